"""The module secret_file: no secret is empty, seen by others, or made twice."""

import re
import stat
from pathlib import Path
from typing import Any

import pytest

from .modules import run_module


def test_it_makes_a_secret_once(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    predicted = run_module("secret_file", check=True, path=str(path))
    assert (predicted["changed"], path.exists()) == (True, False)

    first = run_module("secret_file", path=str(path))
    secret = path.read_text()
    second = run_module("secret_file", path=str(path))

    assert first["changed"] is True
    assert re.fullmatch("[0-9a-f]{64}", secret)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (second["changed"], path.read_text()) == (False, secret)
    assert secret not in first["output"] + second["output"]
    assert [file.name for file in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize("content", ["", "\n", " " * 64, "abc"])
def test_an_empty_or_short_secret_is_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "secret"
    path.write_text(content)
    path.chmod(0o644)
    assert run_module("secret_file", check=True, path=str(path))["changed"] is True
    assert path.read_text() == content

    answer = run_module("secret_file", path=str(path))

    assert answer["changed"] is True
    assert "at least 32 are required" in answer["reason"]
    assert re.fullmatch("[0-9a-f]{64}", path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_mode_alone_is_changed_and_the_secret_kept(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("a" * 64)
    path.chmod(0o644)
    assert run_module("secret_file", path=str(path))["changed"] is True
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("a" * 64, 0o600)


def test_two_secrets_differ(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run_module("secret_file", path=str(tmp_path / name))
    assert (tmp_path / "one").read_text() != (tmp_path / "two").read_text()


@pytest.mark.parametrize(
    "wrong", [{"bytes": 0, "minimum": 0}, {"minimum": 4}, {"minimum": 65}, {"mode": "0644"}]
)
def test_what_would_be_no_secret_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    answer = run_module("secret_file", path=str(tmp_path / "secret"), **wrong)
    assert answer["failed"] is True
    assert list(tmp_path.iterdir()) == []
