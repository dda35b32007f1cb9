"""Read what an application needs from whatever it keeps that in."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.utils import canonicalize_name

from packing import PackError
from packing.packages import Package, environment

Table = Mapping[str, Any]

LOCKS = ("uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "pylock.toml")
LISTS = (
    "requirements.txt",
    *(f"requirements/{name}.txt" for name in ("production", "prod", "base", "requirements")),
    *("requirements.in", "Pipfile", "pyproject.toml", "setup.py", "setup.cfg"),
)

# Other lists: requirements-prod.txt, prod-requirements.txt, or prod.txt in a directory of lists.
LIST_NAME = re.compile(
    r"(?:[^/]*/(?:(?P<before>\w+)[-_.])?requirements(?:[-_.](?P<after>\w+))?|"
    r"(?:requirements|reqs)/(?P<inside>\w+))\.(?:txt|in)"
)
FOR_HOSTS = ("production", "prod", "deploy", "requirements", "base", "common", "main")
NOT_HOSTS = frozenset(
    {"ci", "dev", "develop", "development", "doc", "docs", "lint", "local", "node_modules"}
    | {"test", "testing", "tests", "venv"}
)


@dataclass(frozen=True)
class Wanted:
    """What an application needs.

    Attributes:
        file: what it was read from.
        packages: every package at its version, where the file is a lock that says so.
        requirements: else: what uv resolves, a line each.
        read: else: the file itself, which uv reads.
        constraints: the versions that a lock gives to what is resolved.
        export: whether uv exports the file.
    """

    file: Path
    packages: Sequence[Package] = ()
    requirements: Sequence[str] = ()
    read: Path | None = None
    constraints: Sequence[Package] = field(default=())
    export: bool = False


def find(top: Path, root: str, named: str = "") -> Path:
    """Return the file that says what an application needs.

    The nearest directory from that of manage.py upwards decides; in it, a lock comes first. Above
    the source there can be the lock of a workspace that it is a member of.

    Args:
        top: the directory of the source.
        root: the directory of manage.py below it.
        named: the file, as the operator names it.

    Raises:
        PackError: there is none.
    """
    if named:
        if not (top / named).is_file():
            raise PackError(f"channels_requirements is {named}; {top} has no such file")
        return top / named
    directory = (top / root).resolve()
    inside = [directory, *directory.parents]
    inside = [each for each in inside if each.is_relative_to(top.resolve())]
    above = list(top.resolve().parents)
    for each in inside:
        if lock := next((each / name for name in LOCKS if (each / name).is_file()), None):
            return lock
        for name in LISTS:
            if (each / name).is_file() and _lists(each / name):
                return _workspace_lock(each, [*inside, *above]) or each / name
    if lock := _workspace_lock(top.resolve(), above):
        return lock
    others = _others(top)
    if len(others) == 1:
        return top / others[0]
    if others:
        raise PackError(
            f"{top} has several lists of packages, and none where it is looked for. Set"
            f" channels_requirements to one of them: {', '.join(others)}"
        )
    raise PackError(
        f"Nothing in {top} says which packages the application needs. Add one of these files:"
        f" {', '.join((*LOCKS, 'requirements.txt', 'pyproject.toml'))}."
        " Or set channels_requirements to the path of another list"
    )


def read(file: Path, python: str, machine: str) -> Wanted:
    """Return what an application needs.

    Args:
        file: as found.
        python: the full version of the host's Python.
        machine: the host's architecture.

    Raises:
        PackError: the file cannot be read.
    """
    readers: dict[str, Callable[[Path], Wanted]] = {
        "uv.lock": lambda path: Wanted(path, export=True),
        "poetry.lock": poetry,
        "pdm.lock": pdm,
        "Pipfile.lock": pipenv,
        "pylock.toml": lambda path: pylock(path, python, machine),
        "Pipfile": pipfile,
        "pyproject.toml": pyproject,
    }
    try:
        reader = readers.get(file.name)
        return reader(file) if reader else Wanted(file, read=file)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PackError(f"Cannot read {file}: {type(error).__name__}: {error}") from error


def pipenv(file: Path) -> Wanted:
    """Read Pipfile.lock."""
    default = json.loads(file.read_text())["default"]
    return Wanted(file, [_of_pipenv(name, entry, file) for name, entry in default.items()])


def pdm(file: Path) -> Wanted:
    """Read pdm.lock: the packages of the group "default"."""
    lock = tomllib.loads(file.read_text())
    packages = lock.get("package", [])
    if all("groups" in package for package in packages):
        wanted = [package for package in packages if "default" in package["groups"]]
        return Wanted(file, _once(_of_lock(each, file) for each in wanted))
    return _constrained(file, packages)


def poetry(file: Path) -> Wanted:
    """Read poetry.lock: what pyproject.toml asks for, at the versions of the lock."""
    return _constrained(file, tomllib.loads(file.read_text()).get("package", []))


def pylock(file: Path, python: str, machine: str) -> Wanted:
    """Read pylock.toml: what is installed without extras and with the default groups."""
    lock = tomllib.loads(file.read_text())
    groups = frozenset(lock.get("default-groups", ()))
    found = []
    for package in lock["packages"]:
        marker = str(package.get("marker", ""))
        if "dependency_groups" in marker or "extras" in marker:
            host: dict[str, Any] = environment(python, machine)
            chosen = {**host, "extras": frozenset(), "dependency_groups": groups}
            if not Marker(marker).evaluate(chosen, context="lock_file"):
                continue
            marker = ""
        files = [*package.get("wheels", ()), *_one(package, "sdist"), *_one(package, "archive")]
        hashes = tuple(
            f"{algorithm}:{digest}"
            for each in files
            for algorithm, digest in each.get("hashes", {}).items()
        )
        url = ""
        if vcs := package.get("vcs"):
            url = _git_url(vcs.get("url", vcs.get("path", "")), vcs["commit-id"], vcs)
        elif directory := package.get("directory"):
            url = str((file.parent / directory["path"]).resolve())
        elif archive := package.get("archive"):
            url = archive.get("url") or str((file.parent / archive["path"]).resolve())
        name = canonicalize_name(package["name"])
        found.append(Package(name, str(package.get("version", "")), marker, hashes, url))
    return Wanted(file, found)


def pipfile(file: Path) -> Wanted:
    """Read a Pipfile without its lock."""
    packages = tomllib.loads(file.read_text()).get("packages", {})
    return Wanted(file, requirements=[_of_table(name, entry) for name, entry in packages.items()])


def pyproject(file: Path) -> Wanted:
    """Read pyproject.toml without a lock: uv does, but for what Poetry alone understands."""
    read = tomllib.loads(file.read_text())
    poetry = read.get("tool", {}).get("poetry", {})
    if "project" in read or "dependencies" not in poetry:
        return Wanted(file, read=file)
    wanted = [line for entry in poetry["dependencies"].items() for line in _of_poetry(*entry)]
    return Wanted(file, requirements=wanted)


def caret(specifier: str) -> str:
    """Return a version of Poetry's as PEP 440 has it: ^1.2 is >=1.2,<2; ~1.2 is >=1.2,<1.3."""
    parts = []
    for part in (each.strip() for each in specifier.split(",")):
        operator, version = part[:1], part[1:].strip()
        if part in ("", "*"):
            continue
        if operator not in "^~" or part.startswith("~="):
            parts.append(part if operator in "<>=!~" else f"=={part}")
            continue
        numbers = [int(each) for each in re.findall(r"\d+", version)[:3]]
        if operator == "^":
            first = next((i for i, number in enumerate(numbers) if number), len(numbers) - 1)
        else:
            first = min(1, len(numbers) - 1)
        above = [*numbers[:first], numbers[first] + 1]
        parts.append(f">={version},<{'.'.join(map(str, above))}")
    return ",".join(parts)


def _others(top: Path) -> list[str]:
    """Return what else looks like a list of packages for hosts, as paths below top.

    Of several in one directory, that for production decides, or the one that the others include.
    """
    found = []
    for directory, below, names in os.walk(top):
        below[:] = sorted(each for each in below if each[0] != "." and each not in NOT_HOSTS)
        stems = {
            match["before"] or match["after"] or match["inside"] or "requirements": name
            for name in sorted(names)
            for match in [LIST_NAME.fullmatch(f"{Path(directory).name}/{name}")]
            if match
        }
        chosen = next((stems[stem] for stem in FOR_HOSTS if stem in stems), None)
        some = [chosen] if chosen else [stems[stem] for stem in stems if stem not in NOT_HOSTS]
        found += [Path(directory, name).relative_to(top).as_posix() for name in some]
    return found


def _lists(file: Path) -> bool:
    """Return whether a file says what an application needs, and is not for tools alone."""
    if file.name != "pyproject.toml":
        return True
    read = tomllib.loads(file.read_text())
    return "project" in read or "dependencies" in read.get("tool", {}).get("poetry", {})


def _workspace_lock(member: Path, above: Sequence[Path]) -> Path | None:
    """Return the uv.lock of a workspace that a directory is a member of."""
    for directory in above:
        lock = directory / "uv.lock"
        if directory == member or not lock.is_file() or not member.is_relative_to(directory):
            continue
        path = member.relative_to(directory).as_posix()
        for package in tomllib.loads(lock.read_text()).get("package", ()):
            source = package.get("source", {})
            if path in (source.get("editable"), source.get("virtual"), source.get("directory")):
                return lock
    return None


def _constrained(file: Path, packages: Sequence[Table]) -> Wanted:
    """Return what pyproject.toml asks for, at the versions of a lock that says not why."""
    project = file.with_name("pyproject.toml")
    if not project.is_file():
        raise PackError(f"{file} needs the pyproject.toml of its project beside it")
    read = tomllib.loads(project.read_text())
    wanted = [_unbound(line) for line in read.get("project", {}).get("dependencies", ())]
    declared = read.get("tool", {}).get("poetry", {}).get("dependencies", {})
    known = {canonicalize_name(re.split(r"[\[ @]", line)[0]) for line in wanted}
    for name, entry in declared.items():
        if canonicalize_name(name) not in known:
            wanted += [_unbound(line) for line in _of_poetry(name, entry)]
    locked = _once(_of_lock(package, file) for package in packages)
    urls = {package.name: package for package in locked if package.url}
    # What is from Git is asked for by its commit; nothing in an index has it.
    direct = {canonicalize_name(re.split(r"[\[ ;@]", line)[0]) for line in wanted}
    wanted = [
        urls[name].line() if name in urls else line
        for line in wanted
        for name in [canonicalize_name(re.split(r"[\[ ;@]", line)[0])]
    ]
    further = [package for name, package in urls.items() if name not in direct]
    versions = [package for package in locked if not package.url]
    return Wanted(file, requirements=wanted, constraints=[*versions, *further])


def _unbound(line: str) -> str:
    """Return a requirement without its version, which the lock gives."""
    wanted, _, marker = line.partition(";")
    name = re.match(r"\s*([A-Za-z0-9._-]+\s*(\[[^\]]*\])?)", wanted)
    plain = (name[1] if name else wanted).strip()
    return f"{plain} ; {marker.strip()}" if marker else plain


def _of_lock(package: Table, file: Path) -> Package:
    """Return a package of poetry.lock or pdm.lock."""
    source = package.get("source", {})
    kind, url = source.get("type", ""), source.get("url", "")
    commit = source.get("resolved_reference", package.get("revision", ""))
    if kind == "git" or "git" in package:
        url = _git_url(url or package["git"], commit, {**package, **source})
    elif kind in ("directory", "file") or "path" in package:
        url = str((file.parent / (url or package["path"])).resolve())
    elif kind == "url":
        pass
    else:
        url = str(package.get("url", ""))
    markers = package.get("markers", package.get("marker", ""))
    if isinstance(markers, Mapping):  # by group
        markers = markers.get("main", "")
    if not markers and (python := package.get("python-versions", package.get("requires_python"))):
        markers = _python_marker(python)
    hashes = tuple(each["hash"] for each in package.get("files", ()))
    name = canonicalize_name(package["name"])
    return Package(name, str(package.get("version", "")), markers, hashes, url)


def _once(packages: Any) -> list[Package]:
    """Return each package once: pdm lists one again for each of its extras.

    The versions of Python that a package runs on are of no interest, unless there are several.
    """
    found = {(package.name, package.version, package.url): package for package in packages}
    counted: dict[str, int] = {}
    for name, _, _ in found:
        counted[name] = counted.get(name, 0) + 1
    return [
        package
        if counted[package.name] > 1 or "python" not in package.marker
        else Package(package.name, package.version, _kept(package), package.hashes, package.url)
        for package in found.values()
    ]


def _kept(package: Package) -> str:
    own = re.fullmatch(r"(python_full_version [<>=!]+ '[^']+'( and )?)*", package.marker)
    return "" if own else package.marker


def _python_marker(specifier: str) -> str:
    parts = [part.strip() for part in caret(specifier).split(",") if part.strip()]
    pairs = [re.match(r"([<>=!~]+)\s*([\w.]+)$", part) for part in parts]
    return " and ".join(f"python_full_version {pair[1]} '{pair[2]}'" for pair in pairs if pair)


def _of_pipenv(name: str, entry: Any, file: Path) -> Package:
    canonical = canonicalize_name(name)
    marker, hashes = entry.get("markers", ""), tuple(entry.get("hashes", ()))
    if "git" in entry:
        return Package(canonical, "", marker, (), _git_url(entry["git"], entry["ref"], entry))
    if path := entry.get("path", entry.get("file")):
        url = path if "://" in path else str((file.parent / path).resolve())
        return Package(canonical, "", marker, hashes, url)
    return Package(canonical, entry["version"].removeprefix("=="), marker, hashes)


def _of_table(name: str, entry: Any) -> str:
    """Return a requirement of a Pipfile."""
    if isinstance(entry, str):
        return name if entry == "*" else f"{name}{entry}"
    if "git" in entry:
        return f"{name} @ {_git_url(entry['git'], entry.get('ref', 'HEAD'), entry)}"
    extras = f"[{','.join(entry['extras'])}]" if entry.get("extras") else ""
    version = entry.get("version", "*")
    marker = f" ; {entry['markers']}" if entry.get("markers") else ""
    return f"{name}{extras}{'' if version == '*' else version}{marker}"


def _of_poetry(name: str, entry: Any) -> list[str]:
    """Return the requirements that Poetry has under a name."""
    if name.lower() == "python":
        return []
    if isinstance(entry, list):
        return [line for each in entry for line in _of_poetry(name, each)]
    table = {"version": entry} if isinstance(entry, str) else entry
    if table.get("optional"):
        return []
    extras = f"[{','.join(table['extras'])}]" if table.get("extras") else ""
    markers = [str(table["markers"])] if table.get("markers") else []
    markers += [_python_marker(str(table["python"]))] if table.get("python") else []
    marker = f" ; {' and '.join(f'({each})' for each in markers)}" if markers else ""
    if "git" in table:
        reference = table.get("rev", table.get("tag", table.get("branch", "HEAD")))
        return [f"{name}{extras} @ {_git_url(table['git'], reference, table)}{marker}"]
    if url := table.get("url", table.get("path")):
        return [f"{name}{extras} @ {url}{marker}"]
    return [f"{name}{extras}{caret(str(table.get('version', '*')))}{marker}"]


def _git_url(url: str, reference: str, table: Table) -> str:
    plain = re.sub(r"^git\+", "", url)
    if match := re.match(r"([\w.-]+@[\w.-]+):(?!//)(.+)$", plain):  # git@host:owner/name
        plain = f"ssh://{match[1]}/{match[2]}"
    below = table.get("subdirectory")
    return f"git+{plain}@{reference}" + (f"#subdirectory={below}" if below else "")


def _one(package: Table, key: str) -> list[Table]:
    return [package[key]] if key in package else []
