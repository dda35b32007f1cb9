"""The module that lists the files without the wanted content."""

import os
from pathlib import Path

import pytest

from .modules import run_module

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the files belong to root")

CONTENT = "limit = ä\n"


def different(path: Path, content: str = CONTENT, mode: str = "0644") -> bool:
    answer = run_module("compare_files", contents={str(path): content}, mode=mode)
    assert answer["changed"] is False
    assert answer["different"] in ([], [str(path)])
    return bool(answer["different"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "settings.conf"
    path.write_text(CONTENT)
    path.chmod(0o644)
    return path


def test_a_file_with_its_content_mode_and_owner_is_in_place(file: Path) -> None:
    assert not different(file)
    file.chmod(0o755)
    assert not different(file, mode="0755")


def test_a_file_that_is_missing_or_has_other_content_differs(file: Path) -> None:
    assert different(file, CONTENT + " ")
    file.unlink()
    assert different(file)
    assert different(file / "below")


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o4644])
def test_a_file_with_another_mode_differs(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert different(file)


@pytest.mark.parametrize(("user", "group"), [(1, 0), (0, 1)])
def test_a_file_of_somebody_else_differs(file: Path, user: int, group: int) -> None:
    os.chown(file, user, group)
    assert different(file)


def test_a_link_to_a_file_in_place_differs(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    assert different(link)


def test_only_the_files_that_differ_are_listed_in_their_order(tmp_path: Path, file: Path) -> None:
    wanted = {str(tmp_path / "b"): "", str(file): CONTENT, str(tmp_path / "a"): ""}
    answer = run_module("compare_files", contents=wanted)
    assert answer["different"] == [str(tmp_path / "b"), str(tmp_path / "a")]
