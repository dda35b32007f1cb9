"""Packages as pip reads them: a list of versions with their hashes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from packing import PackError

HASH = re.compile(r"\s--hash=(\S+)")
COMMENT = re.compile(r"(^|\s)#.*$")


@dataclass(frozen=True)
class Package:
    """One package at one version.

    Attributes:
        name: in its canonical form.
        version: empty for one that comes from a URL or a directory.
        marker: the environments that need it; empty for all.
        hashes: of its files, each as algorithm:digest.
        url: where it comes from if no index has it: git+URL@COMMIT, a URL, or a directory.
    """

    name: str
    version: str = ""
    marker: str = ""
    hashes: tuple[str, ...] = ()
    url: str = ""

    def line(self) -> str:
        """Return it as pip reads it."""
        wanted = f"{self.name}=={self.version}" if not self.url else f"{self.name} @ {self.url}"
        marker = f" ; {self.marker}" if self.marker else ""
        return wanted + marker + "".join(f" \\\n    --hash={each}" for each in sorted(self.hashes))

    def only(self, allowed: Iterable[str]) -> Package:
        """Return it with the hashes that are among those allowed, where any are given."""
        known = set(allowed)
        return replace(
            self, hashes=tuple(each for each in self.hashes if each in known or not known)
        )


def text_of(packages: Iterable[Package]) -> str:
    """Return a list of packages as pip reads it, in a fixed order."""
    order = sorted(packages, key=lambda each: (each.name, each.version, each.marker))
    return "".join(f"{package.line()}\n" for package in order)


def logical_lines(text: str) -> Iterator[str]:
    """Yield the lines of a list as pip reads it, put together, without comments."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        if stripped := COMMENT.sub("", line).strip():
            yield stripped


def parse(text: str, directory: Path) -> list[Package]:
    """Return the packages of a list that uv has printed.

    Args:
        text: the list.
        directory: what its relative paths are relative to.

    Raises:
        PackError: a line cannot be read.
    """
    return [parse_line(line, directory) for line in logical_lines(text) if line[:2] != "--"]


def parse_line(line: str, directory: Path) -> Package:
    """Return the package of one line."""
    hashes = tuple(HASH.findall(line))
    wanted = HASH.sub("", line).strip()
    wanted = re.sub(r"^(-e|--editable)[ =]", "", wanted).strip()
    if re.match(r"(file://|\.|/)", wanted):  # a directory without a name: ./libs/forms ; marker
        path, _, marker = wanted.partition(" ; ")
        return Package(directory_name(path), marker=marker.strip(), url=local(path, directory))
    try:
        read = Requirement(wanted)
    except InvalidRequirement as error:
        raise PackError(f"Cannot read this line of the requirements: {line}\n{error}") from None
    marker = str(read.marker) if read.marker else ""
    name = canonicalize_name(read.name)
    if read.url:
        here = read.url.startswith(("file:", ".", "/"))
        url = local(read.url, directory) if here else read.url
        return Package(name, marker=marker, hashes=hashes, url=url)
    version = next((each.version for each in read.specifier if each.operator in ("==", "===")), "")
    if not version:
        raise PackError(f"This requirement has no exact version: {line}")
    return Package(name, version, marker, hashes)


def local(path: str, directory: Path) -> str:
    """Return a path as an absolute one."""
    plain = unquote(urlsplit(path).path) if path.startswith("file:") else path
    return str((directory / plain.partition("[")[0]).resolve())


def directory_name(path: str) -> str:
    """Return a name for a directory that is given without one; its build tells the right one."""
    return canonicalize_name(Path(path.partition("[")[0]).name or "project")


def environment(python: str, machine: str) -> dict[str, str]:
    """Return what markers are evaluated against for a host of Debian.

    Args:
        python: its full version, such as 3.11.2.
        machine: such as x86_64.
    """
    return {
        "implementation_name": "cpython",
        "implementation_version": python,
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "6.1",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
        "sys_platform": "linux",
        "extra": "",
    }


def applies(package: Package, python: str, machine: str) -> bool:
    """Return whether a host needs a package."""
    return not package.marker or Marker(package.marker).evaluate(environment(python, machine))
