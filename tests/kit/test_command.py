"""The probe's command line where it does not come to a proof; test_cluster.py has the rest."""

import io
import sys
from pathlib import Path

import pytest

from channels_kit.probe.__main__ import main, read_token

WORKER = "--worker=app1:8001=http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHANNELS_KIT_PROBE_TOKEN", "of-the-environment")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "VERB"),
        (["matrix"], "name each worker with its URL"),
        (["matrix", "--worker=app1"], "'app1' is not NAME=URL"),
        (["matrix", "--worker==http://a"], "is not NAME=URL"),
        (["matrix", "--worker=app1=a:8001"], "'a:8001' is not a base URL"),
        (["matrix", WORKER, WORKER], "a worker is named twice"),
        (["matrix", "--edge=ftp://a"], "'ftp://a' is not a base URL"),
        (["matrix", WORKER, "--rounds=0"], "at least 1"),
        (["matrix", WORKER, "--timeout=0"], "above 0"),
        (["matrix", WORKER, "--token-file=/no/such/file"], "No such file"),
        (["matrix", WORKER, "--page=login/"], "'login/' is not a page; allowed: a path"),
        (["matrix", WORKER, "--socket=ws"], "'ws' is not a socket; allowed: a path"),
        (["matrix", WORKER, '--socket={"path": "/", "close": 1}'], "is not a socket"),
        (["matrix", WORKER, "--site=chat.example.org"], "is not a base URL"),
        (["matrix", WORKER, "--hold=-1"], "--hold must be 0 to 600 seconds"),
        (["matrix", WORKER, "--hold=nan"], "--hold must be 0 to 600 seconds"),
        (["matrix", WORKER, "--rolling"], "--rolling requires --release"),
        (["matrix", WORKER, "--touched=app2:8001"], "--touched app2:8001 is none of the workers"),
        (
            ["matrix", WORKER, "--touched=app1:8001", "--edge=http://a"],
            "--touched and --edge exclude each other",
        ),
        (["matrix", WORKER, "--json=/no/such/directory/file"], "/no/such/directory"),
    ],
)
def test_wrong_usage_ends_with_2_and_clear_words(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_checks_come_from_the_environment_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHANNELS_KIT_PROBE_CHECKS", '{"pages": ["login/"]}')
    with pytest.raises(SystemExit) as caught:
        main(["matrix", WORKER])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "CHANNELS_KIT_PROBE_CHECKS: 'login/' is not a page" in said
    # Arguments take their place.
    assert main(["matrix", WORKER, "--page=/", "--hold=0"]) == 1
    assert "  / on app1:8001: connection refused" in capsys.readouterr().out


def test_without_a_token_the_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CHANNELS_KIT_PROBE_TOKEN")
    with pytest.raises(SystemExit) as caught:
        main(["matrix", WORKER])
    assert caught.value.code == 2
    assert "CHANNELS_KIT_PROBE_TOKEN" in capsys.readouterr().err


def test_the_token_comes_from_environment_file_or_standard_input(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("of-the-file\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("of-standard-input\n"))
    assert read_token(None) == "of-the-environment"
    assert read_token(str(file)) == "of-the-file"
    assert read_token("-") == "of-standard-input"


def test_a_worker_that_is_down_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    # Nothing listens on port 1 of the loopback.
    assert main(["matrix", WORKER, "--hold=0"]) == 1
    output = capsys.readouterr().out
    assert "app1:8001 -> app1:8001: 0 of 5 delivered" in output
    assert "\x1b" not in output
