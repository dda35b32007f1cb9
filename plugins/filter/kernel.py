"""Filters that compare kernel settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

_RANGES = re.compile(r"(?=.*[-,])\d+(-\d+)?(,\d+(-\d+)?)*")
_NUMBER = re.compile(r"-?(0x[0-9a-fA-F]+|0|[1-9]\d*)")


def kernel_settings_to_apply(wanted: Mapping[str, Any], in_effect: Sequence[str]) -> list[str]:
    """Return the names of the settings that have another value in effect than the wanted one.

    Args:
        wanted: values by name.
        in_effect: what ``sysctl --values`` printed for these names, a line each.
    """
    if len(wanted) != len(in_effect):
        raise AnsibleFilterError(
            f"sysctl printed {len(in_effect)} lines for {len(wanted)} settings: "
            f"{', '.join(wanted)}. Give each setting its full name."
        )
    return [
        name
        for (name, value), found in zip(wanted.items(), in_effect, strict=True)
        if _canonical(str(value)) != _canonical(found)
    ]


def _canonical(value: str) -> list[str]:
    """Return the words of a value as the kernel prints them."""
    return [_canonical_word(word) for word in value.split()]


def _canonical_word(word: str) -> str:
    if _NUMBER.fullmatch(word):
        return str(int(word, 0))
    if _RANGES.fullmatch(word):
        return ",".join(_merged(word.split(",")))
    return word


def _merged(ranges: Iterable[str]) -> list[str]:
    """Return ranges of numbers in order, those that overlap or touch as one."""
    found: list[list[int]] = []
    for first, last in sorted(_bounds(each) for each in ranges):
        if found and first <= found[-1][1] + 1:
            found[-1][1] = max(found[-1][1], last)
        else:
            found.append([first, last])
    return [str(first) if first == last else f"{first}-{last}" for first, last in found]


def _bounds(each: str) -> tuple[int, int]:
    first, _, last = each.partition("-")
    return int(first), int(last or first)


class FilterModule:
    """What Ansible asks for filters."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"kernel_settings_to_apply": kernel_settings_to_apply}
