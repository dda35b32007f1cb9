"""Kernel settings are compared as the kernel means them."""

import runpy
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from .house import ROOT

differ = runpy.run_path(str(ROOT / "plugins/filter/kernel.py"))["kernel_settings_to_apply"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (4096, "4096"),
        ("0x1000", "4096"),
        ("-1", "-1"),
        ("10240 65535", "10240\t65535"),
        (" 10240   65535 ", "10240\t65535"),
        # Of one worker a host, and as the kernel merges them.
        ("8001-8001", "8001"),
        ("8001,8002,8004", "8001-8002,8004"),
        ("8003-8004,8001-8002,8002", "8001-8004"),
        ("", ""),
        ("cubic", "cubic"),
        ("|/usr/bin/core %P", "|/usr/bin/core %P"),
    ],
)
def test_what_the_kernel_prints_otherwise_is_the_same(wanted: Any, found: str) -> None:
    assert differ({"name": wanted}, [found]) == []


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (4096, "128"),
        ("10240 65535", "32768\t60999"),
        ("10240 65535", "1024065535"),
        ("8001-8002", ""),
        ("8001-8003", "8001-8002"),
        ("8001-8002,8004", "8001-8004"),
        ("8001-8010,8002-8003", "8001-8003"),
        ("cubic", "bbr"),
        # Octal for the kernel.
        ("010", "10"),
    ],
)
def test_another_value_is_to_be_applied(wanted: Any, found: str) -> None:
    assert differ({"same": 1, "name": wanted}, ["1", found]) == ["name"]


def test_what_sysctl_did_not_print_is_no_value() -> None:
    with pytest.raises(AnsibleFilterError, match="1 lines for 2 settings: one, two"):
        differ({"one": 1, "two": 2}, ["1"])
