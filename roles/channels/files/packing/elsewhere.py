"""Packages of a list that only another system or another Python needs.

pip freeze lists what is installed where it runs: on Windows also twisted-iocpsupport or pywin32, on
an old Python also backports. It writes no markers, and hosts often cannot have such packages. The
packages that need them have the markers.
"""

from __future__ import annotations

import re
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from packing import PackError, wheels
from packing.packages import Package, applies, environment, logical_lines, parse_line, text_of
from packing.uv import Target, Uv

# Debian's pip lists it, at version 0.0.0. No index has it.
NOWHERE = "pkg-resources"
EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)")


def pins(files: Iterable[Path]) -> list[Package]:
    """Return the exact versions that lists of requirements name."""
    found = []
    for file in files:
        for line in logical_lines(file.read_text(errors="replace")):
            if not line.startswith("-"):
                try:
                    found.append(parse_line(line, file.parent))
                except PackError:
                    continue
    return [package for package in found if not package.url]


def needless(uv: Uv, pinned: Sequence[Package], directory: Path, target: Target) -> set[str]:
    """Return the names of pinned packages that no host needs and that none can have.

    These have no wheel for the hosts, and each package that requires them does so under a marker
    that no host fulfils. The answer is empty if it cannot be told.
    """
    nowhere = {each.name for each in pinned if (each.name, each.version) == (NOWHERE, "0.0.0")}
    asked = [
        each
        for each in pinned
        if each.name not in nowhere and applies(each, target.python, target.machine)
    ]
    try:
        suspects = without_wheel(uv, asked, directory, target)
        if not suspects:
            return nowhere
        others = [each for each in asked if each.name not in suspects]
        return nowhere | (suspects & _only_elsewhere(uv, others, directory, target))
    except PackError:
        return nowhere


def without_wheel(uv: Uv, asked: Sequence[Package], directory: Path, target: Target) -> set[str]:
    """Return the names of packages that have no wheel for a host."""
    told = uv.compile(
        *(directory, ["-"], [target], "--no-deps", "--format=pylock.toml"),
        text=text_of(asked),
        universal=True,
    )
    return {
        canonicalize_name(package["name"])
        for package in tomllib.loads(told).get("packages", ())
        if not any(
            wheels.fits(wheels.file_name(wheel), target) for wheel in package.get("wheels", ())
        )
    }


def _only_elsewhere(
    uv: Uv, installed: Sequence[Package], directory: Path, target: Target
) -> set[str]:
    """Return the names that packages require, and no host does, whatever the extras."""
    needed: set[str] = set()
    named: set[str] = set()
    with tempfile.TemporaryDirectory() as temporary:
        uv.install(directory, text_of(installed), target, Path(temporary))
        for file in Path(temporary).glob("*.dist-info/METADATA"):
            read = HeaderParser().parsestr(file.read_text(errors="replace"))
            lines = read.get_all("Requires-Dist", [])
            extras = ["", *EXTRA.findall("\n".join(lines))]
            for line in lines:
                try:
                    wanted = Requirement(line)
                except InvalidRequirement:
                    continue
                name = canonicalize_name(wanted.name)
                named.add(name)
                host = environment(target.python, target.machine)
                if not wanted.marker or any(
                    wanted.marker.evaluate({**host, "extra": extra}) for extra in extras
                ):
                    needed.add(name)
    return named - needed
