"""scripts/verify_report.py: what it prints, what it keeps, and how it ends."""

import math
import stat
from pathlib import Path
from typing import Any

import pytest

import verify_report
from verification import history

from .verify_reports import NAME, check, matrix, names, write


def show(file: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command; return its exit status and what it printed."""
    status = verify_report.main([str(file), *arguments])
    return status, *capsys.readouterr()


def test_what_is_not_ok_comes_first_and_the_verdict_and_the_page_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, output, errors = show(write(tmp_path), capsys)
    assert (status, errors) == (0, "")
    assert output.splitlines()[-2:] == [
        "Verified: 18 checks and pairs are ok.",
        str(tmp_path / "20261128T211500Z.html"),
    ]
    failed = check(
        effective="1024",
        status="failed",
        message="A drop-in lowers it.",
        advice="Run make converge.",
    )
    status, output, _ = show(write(tmp_path, verdict="failed", checks=[failed]), capsys)
    # A report that was shown was shown; the verdict is for make verify to end with.
    assert status == 0
    assert output.splitlines()[:3] == [
        "FAILED     open files: expected 65536, effective 1024:"
        " app1 channels-web@8001.service (/proc/812/limits)",
        "           A drop-in lowers it.",
        "           Run make converge.",
    ]
    assert "NOT verified: 1 of 18 checks and pairs failed." in output


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({"checks": [check(status="failed")]}, "NOT verified: 1 of 18 checks and pairs failed."),
        (
            {"checks": [check(status="failed"), check(status="skipped")]},
            "NOT verified: 1 of 18 checks and pairs failed.",
        ),
        ({"verdict": "failed"}, "NOT verified: the run did not complete."),
        ({"checks": [], "matrix": {}, "behaviour": []}, "Incomplete: nothing was checked."),
        (
            {"checks": [check(status="skipped")], "matrix": None, "behaviour": None},
            "Incomplete: nothing was checked.",
        ),
        (
            {"checks": [check(status="unreadable")], "verdict": "incomplete"},
            "Incomplete: 1 of 18 checks and pairs could not be read.",
        ),
        ({"verdict": "incomplete"}, "Incomplete: not everything was checked."),
        (
            {"checks": [check(status="unreadable")]},
            "Verified, but 1 of 18 checks and pairs could not be read.",
        ),
    ],
)
def test_the_content_overrules_a_verdict_that_is_too_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], values: dict[str, Any], verdict: str
) -> None:
    _, output, _ = show(write(tmp_path, **values), capsys)
    assert output.splitlines()[-2] == verdict


def test_the_same_finding_at_many_places_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [check(f"app{n}", effective="1024", status="failed") for n in (10, 2, 1, 3)]
    _, output, _ = show(write(tmp_path, checks=checks), capsys)
    assert output.count("open files: expected 65536") == 1
    assert output.splitlines()[0].endswith(
        "app1 channels-web@8001.service (/proc/812/limits);"
        " app2 channels-web@8001.service (/proc/812/limits);"
        " app3 channels-web@8001.service (/proc/812/limits); and 1 more"
    )


def test_a_split_matrix_names_the_worker_and_the_groups(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = names(3)
    alone = "app2:8002"
    failed = {
        (one, two): "no message"
        for one in workers
        for two in workers
        if one != two and alone in (one, two)
    }
    _, output, _ = show(write(tmp_path, matrix=matrix(workers, failed)), capsys)
    assert (
        f"{alone}: its messages did not arrive on 5 workers,"
        " those of 5 workers did not arrive on it." in output
    )
    assert "The workers form 2 groups that do not reach each other:" in output
    # Those that only failed to hear of it are no suspects.
    assert "app1:8001: its messages" not in output


def test_pairs_that_were_not_measured_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = matrix(names(2))
    part["cells"] = [cell for cell in part["cells"] if cell["to"] != "app2:8002"]
    _, output, _ = show(write(tmp_path, matrix=part), capsys)
    assert "matrix: 3 pairs not measured" in output


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"format": 1, "ki', "contains no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "report is no object"),
        ('{"format": 2}', "format is 2, not 1: written by another version"),
        ('{"format": 1, "kit": "0.5.0"}', "report.environment is missing"),
    ],
)
def test_a_damaged_report_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, problem: str
) -> None:
    file = tmp_path / NAME
    file.write_text(content)
    status, output, errors = show(file, capsys)
    assert (status, output) == (2, "")
    assert errors.startswith(f"The report cannot be shown. {NAME}")
    assert problem in errors
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"began": "yesterday"}, "report.began is no time"),
        ({"verdict": "fine"}, "report.verdict is 'fine', not verified or failed or incomplete"),
        ({"checks": {}, "verdict": "failed", "seconds": True}, "report.seconds is no number"),
        ({"checks": "all"}, "report.checks is no list"),
        ({"checks": [check(status="good")]}, "checks[0].status is 'good', not ok or failed"),
        ({"checks": [check(used="1")]}, "checks[0].used is no number"),
    ],
)
def test_a_wrong_value_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], values: dict[str, Any], problem: str
) -> None:
    status, _, errors = show(write(tmp_path, **values), capsys)
    assert status == 2
    assert problem in errors


def test_numbers_that_are_none_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [check(used=math.nan, limit=100), check(used=1, limit=math.inf)]
    _, output, _ = show(write(tmp_path, checks=checks), capsys)
    assert "limits:" not in output


def test_a_terminal_obeys_nothing_of_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b[2J\x07a\nb\u202ec\ud800"
    _, output, _ = show(
        write(tmp_path, checks=[check(evil, evil, status="failed", message=evil)]), capsys
    )
    assert "\ufffd[2J\ufffda b\ufffdc\ufffd" in output
    assert not any(mark in output for mark in "\x1b\x07\u202e\ud800")


def test_a_directory_means_its_newest_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, errors = show(tmp_path, capsys)
    assert (status, errors) == (
        2,
        f"The report cannot be shown. {tmp_path} contains no reports. Run make verify first\n",
    )
    write(tmp_path, "20261127T211500Z.json", verdict="failed")
    write(tmp_path)
    (tmp_path / "notes.json").write_text("mine")
    assert show(tmp_path, capsys)[0] == 0
    assert sorted(path.name for path in tmp_path.glob("*.html")) == ["20261128T211500Z.html"]


def test_the_page_is_its_owners_and_replaced_as_a_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path)
    page = file.with_suffix(".html")
    page.write_text("the former page")
    page.chmod(0o644)
    monkeypatch.setattr(
        Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space", "x"))
    )
    status, output, errors = show(file, capsys)
    assert (status, errors) == (2, "The page was not written. x: No space\n")
    # The verdict is known nevertheless.
    assert "Verified: 18 checks and pairs are ok." in output
    assert page.read_text() == "the former page"
    assert len(list(tmp_path.iterdir())) == 2, "a temporary file is left"
    monkeypatch.undo()
    assert show(file, capsys)[0] == 0
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600


def test_git_ignores_the_reports() -> None:
    root = Path(verify_report.__file__).parents[1]
    assert "/.verify/" in (root / ".gitignore").read_text().splitlines()


def test_the_history_ends_with_the_run_that_is_shown(tmp_path: Path) -> None:
    slow = matrix(names(2))
    slow["cells"][0]["seconds"] = 1.5
    write(tmp_path, "20261126T040000Z.json", matrix=slow, checks=[check(status="failed")])
    (tmp_path / "20261127T040000Z.json").write_text('{"form')
    file = write(tmp_path)
    write(tmp_path, "20261129T040000Z.json")
    first, second = history.earlier(file)
    assert (first.verdict, first.failed, first.p99, first.page) == ("failed", 1, 1.5, False)
    assert second.problem.startswith("20261127T040000Z.json contains no JSON")
