"""The callback that has the controller compile each template of the kit once."""

import copy
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from plugins.callback import do_once

from .house import Run, run

SECRET = "a-secret-that-an-inventory-renders"
INVENTORY = {
    "all": {
        "hosts": {"app1": {"ansible_connection": "local", "cluster_address": "10.0.0.1"}},
        "vars": {
            "secret": f"{{{{ '{SECRET}' | upper }}}}",
            "cluster_server_names": ["chat.example.org"],
        },
    }
}
PLAYS = [
    {
        "name": "Play",
        "hosts": "app1",
        "gather_facts": False,
        "roles": ["cluster"],
        "tasks": [
            {
                "name": "Play | Render what the role and the inventory say",
                "ansible.builtin.debug": {"msg": "{{ cluster_spare_hosts }} {{ secret }}"},
            }
        ],
    }
]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "channels-kit" / "templates"


def render(tmp_path: Path, cache: Path) -> Run:
    # Without what makes the runs of other tests faster.
    return run(tmp_path, INVENTORY, PLAYS, XDG_CACHE_HOME=str(cache.parents[1]), PYTHONPATH="")


def kept(cache: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in cache.iterdir()}


def test_the_kits_templates_are_compiled_once_and_no_inventorys_are_kept(
    tmp_path: Path, cache: Path
) -> None:
    first = render(tmp_path, cache)
    assert first.code == 0, first.output
    assert SECRET.upper() in first.output
    compiled = kept(cache)
    assert compiled
    assert cache.stat().st_mode & 0o777 == 0o700
    assert not [file for file in cache.iterdir() if SECRET.encode() in file.read_bytes()]
    assert render(tmp_path, cache) == first
    assert kept(cache) == compiled


def test_a_directory_that_others_may_write_into_is_not_read(tmp_path: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    assert render(tmp_path, cache).code == 0
    assert kept(cache) == {}


def test_what_cannot_be_kept_is_no_error(tmp_path: Path, cache: Path) -> None:
    cache.parents[1].write_text("no directory")
    assert render(tmp_path, cache).code == 0


def test_a_broken_file_is_compiled_anew(tmp_path: Path, cache: Path) -> None:
    first = render(tmp_path, cache)
    assert first.code == 0, first.output
    for file in cache.iterdir():
        os.truncate(file, file.stat().st_size // 2)
    assert render(tmp_path, cache) == first


def test_copies_share_what_never_changes_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "values.yml"
    file.write_text("list: [a string, 5]\n")
    do_once.share_copies()
    read: dict[str, Any] = DataLoader().load_from_file(str(file))
    copied = copy.deepcopy(read)
    assert copied == read
    assert copied["list"] is not read["list"]
    assert copied["list"][0] is read["list"][0]
