"""Turn what an application needs into a list of packages that every host can install.

What a lock says is taken as it is. What is not locked is resolved once, and the result is kept by
what it was made from, so that the next deploy takes the same versions.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from packing import PackError, archive, elsewhere, faster, faults, locks, tree
from packing.packages import Package, applies, logical_lines, parse, text_of
from packing.uv import Target, Uv
from packing.wheels import Builder

# Raised where the same inputs are to give another result.
FORMAT = 2
# The release carries it; it is no package of an environment.
KIT = "channels-kit"
# The newest that the kit is tested with.
NEWEST_PYTHON = "3.13"
DRIVERS = {"psycopg", "psycopg2", "psycopg2-binary"}
LAYERS = {"channels-postgres", "channels-rabbitmq", "channels-redis"}
INCLUDES = re.compile(r"(?:-r|-c|--requirement|--constraint)[ =]?\s*(\S+)$")
OPTIONS = re.compile(r"(?:-i|-f|--index-url|--extra-index-url|--find-links)[ =]")


@dataclass(frozen=True)
class Question:
    """What the packages depend on.

    Attributes:
        top: the directory of the source.
        root: the directory of manage.py below it.
        named: the file that the operator names; else it is found.
        server: the server that runs the workers.
        extras: extras or dependency groups of the application.
        targets: the hosts.
        preferred: versions that are taken where the application leaves it open: the kit's lock.
        project_needed: whether the application itself is installed: its modules are elsewhere.
        overlay: whether the settings of the cluster stand in front of the application's.
    """

    top: Path
    root: str
    named: str
    server: str
    extras: Sequence[str]
    targets: Sequence[Target]
    preferred: Path | None = None
    project_needed: bool = False
    overlay: bool = False


@dataclass(frozen=True)
class Answer:
    """The packages.

    Attributes:
        file: what they were read from.
        inputs: names what was asked: the same one only for the same packages.
        packages: each with its version and hashes.
        wheels: the files of those that no index has.
        options: of indexes, as a requirements file has them.
    """

    file: str
    inputs: str
    packages: Sequence[Package]
    wheels: Sequence[Path]
    options: Sequence[str] = ()

    @property
    def text(self) -> str:
        """The list as pip reads it."""
        return "".join(f"{option}\n" for option in self.options) + text_of(self.packages)

    def versions(self, targets: Sequence[Target]) -> dict[str, str]:
        """Return the version of each package that a host gets."""
        return {
            package.name: package.version
            for package in self.packages
            if any(applies(package, each.python, each.machine) for each in targets)
        }


class Requirements:
    """Answers what packages an application needs.

    Args:
        uv: resolves and builds.
        cache: the directory that keeps answers and wheels.
        refresh: whether to resolve anew what is kept.
        former: the archive of the release that runs: another controller may have packed it.
    """

    def __init__(
        self, uv: Uv, cache: Path, refresh: bool = False, former: Path | None = None
    ) -> None:
        self.uv = uv
        self.cache = cache
        self.refresh = refresh
        self.former = former if former and former.is_file() and not refresh else None

    def answer(self, question: Question) -> Answer:
        """Return the packages for a question; the same ones as before for the same question.

        Raises:
            PackError: they cannot be told; says why.
        """
        file = locks.find(question.top, question.root, question.named)
        inputs = _key(question, file)
        kept = self.cache / "requirements" / f"{inputs}.json"
        if kept.is_file() and not self.refresh:
            answer = _read(kept)
            if all(wheel.is_file() for wheel in answer.wheels):
                for used in (kept, *(wheel.parent for wheel in answer.wheels)):
                    os.utime(used)
                return answer
        if former := self._of_former(inputs, file):
            return former
        refuse_python(file, question.targets)
        listed = elsewhere.pins(_included(file)) if file.suffix in (".txt", ".in") else []
        refuse_old(file, listed, question.targets)
        try:
            packages, wheels = self._settled(question, file)
        except PackError:
            left_out = elsewhere.needless(self.uv, listed, file.parent, question.targets[0])
            if not left_out:
                raise
            packages, wheels = self._settled(question, file, left_out)
        answer = Answer(str(file), inputs, packages, wheels, list(_options(file)))
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(asdict(answer), default=str, indent=1))
        return answer

    def _settled(
        self, question: Question, file: Path, needless: Collection[str] = ()
    ) -> tuple[list[Package], list[Path]]:
        """Return all packages, and the wheels that had to be built."""
        packages = self._locked(question, file, needless)
        left_out = {KIT, *needless, *replaced(question, packages)}
        packages = [package for package in packages if package.name not in left_out]
        packages = self._completed(question, file, packages)
        wheels = self.cache.resolve() / "wheels"
        return Builder(self.uv, wheels, file.parent, question.targets).replaced(packages)

    def _of_former(self, inputs: str, file: Path) -> Answer | None:
        """Return the packages of the release that runs, if it was asked the same."""
        if not self.former:
            return None
        described = archive.describe("", self.former)
        if described.get("inputs") != inputs:
            return None
        directory = self.cache.resolve() / "wheels" / f"release-{self.former.name[:12]}"
        directory.mkdir(parents=True, exist_ok=True)
        archive.unpack_wheels(self.former, directory)
        text = described["requirements"]
        options = [line for line in text.splitlines() if line.startswith("--")]
        wheels = sorted(directory.glob("*.whl"))
        return Answer(str(file), inputs, parse(text, file.parent), wheels, options)

    def _locked(self, question: Question, file: Path, needless: Collection[str]) -> list[Package]:
        """Return the application's own packages."""
        target = question.targets[0]
        wanted = locks.read(file, target.python, target.machine)
        refuse_old(file, [*wanted.packages, *wanted.constraints], question.targets)
        if wanted.export:
            return self._exported(question, file)
        if wanted.packages:
            return self._whole(question, file, wanted.packages)
        if not wanted.requirements and not wanted.read:
            return []
        constraints = text_of(replace(each, hashes=()) for each in wanted.constraints)
        packages = self._resolved(question, file, wanted, constraints, needless)
        hashes = {(each.name, each.version): each.hashes for each in wanted.constraints}
        for line in logical_lines(file.read_text()) if file.suffix == ".txt" else ():
            if "--hash" in line:
                for package in parse(line, file.parent):
                    hashes[package.name, package.version] = package.hashes
        return [each.only(hashes.get((each.name, each.version), ())) for each in packages]

    def _whole(self, question: Question, file: Path, packages: Sequence[Package]) -> list[Package]:
        """Add what locked packages need on the hosts alone.

        Pipenv locks for the Python that it runs with. redis, for one, needs another package before
        Python 3.11.3, which Debian 12 has.
        """
        try:
            told = self.uv.compile(file.parent, ["-"], question.targets, text=pins_of(packages))
        except PackError:
            # A lock that contradicts its packages is taken as it is: it was chosen.
            return list(packages)
        return added_to(packages, parse(told, file.parent))

    def _resolved(
        self,
        question: Question,
        file: Path,
        wanted: locks.Wanted,
        constraints: str,
        needless: Collection[str],
    ) -> list[Package]:
        """Resolve what is not locked, without known faults if there is a choice."""
        directory = file.parent
        known = self._known(question, file)
        options = [f"--extra={extra}" for extra in self._extras(question, file)]
        inputs: list[str | Path] = [wanted.read] if wanted.read else ["-"]
        own = file.name in ("pyproject.toml", "setup.py", "setup.cfg")
        excludes = self._written("excludes.in", "".join(f"{name}\n" for name in needless))
        avoided = "\n".join(faults.AVOIDED)
        tries = [constraints] if constraints else [avoided, ""]
        for index, limits in enumerate(tries):
            limit = self._written("constraints.in", limits)
            try:
                text = self.uv.compile(
                    *(directory, inputs, question.targets, f"--constraints={limit}"),
                    *([f"--excludes={excludes}"] if needless else []),
                    *(options if own else []),
                    text="".join(f"{line}\n" for line in wanted.requirements),
                    preferred=known,
                )
            except PackError as error:
                if index + 1 == len(tries):
                    newer = self._newer_python(question, directory, inputs, wanted, limit)
                    raise PackError(f"{newer}{error}") from error
            else:
                found = parse(text, directory)
                # The application runs from its files; it is no package of its environment.
                left_out = "" if question.project_needed else str(directory.resolve())
                return [_named(each) for each in found if not left_out or each.url != left_out]
        return []

    def _newer_python(
        self,
        question: Question,
        directory: Path,
        inputs: Sequence[str | Path],
        wanted: locks.Wanted,
        limit: Path,
    ) -> str:
        """Return what to do if packages are found for a newer Python; else nothing."""
        targets = [Target(NEWEST_PYTHON, each.machine) for each in question.targets]
        if any(Version(each.python) >= Version(NEWEST_PYTHON) for each in question.targets):
            return ""
        try:
            text = "".join(f"{line}\n" for line in wanted.requirements)
            self.uv.compile(directory, inputs, targets, f"--constraints={limit}", text=text)
        except PackError:
            return ""
        why = f"The application needs a newer Python, such as {NEWEST_PYTHON}"
        return f"{_another_python(f'{why} ({wanted.file})', question.targets)}\n"

    def _known(self, question: Question, file: Path) -> Path:
        """Return a list of versions that uv prefers: those of before, if there are any."""
        key = hashlib.sha256(f"{file} {question.server}".encode()).hexdigest()[:20]
        known = self.cache / "requirements" / f"{key}.txt"
        known.parent.mkdir(parents=True, exist_ok=True)
        if self.refresh:
            known.unlink(missing_ok=True)
        elif self.former and not known.is_file():
            known.write_text(archive.describe("", self.former)["requirements"])
        return known.resolve()

    def _exported(self, question: Question, lock: Path) -> list[Package]:
        """Return the packages of uv.lock, of the member that the application is."""
        member = _member(question, lock)
        read = tomllib.loads((member / "pyproject.toml").read_text())
        name = read.get("project", {}).get("name", "")
        options = [f"--package={name}"] if member != lock.parent and name else []
        groups = read.get("dependency-groups", {})
        extras = read.get("project", {}).get("optional-dependencies", {})
        for extra in self._extras(question, member / "pyproject.toml"):
            if extra not in extras and extra not in groups:
                choices = ", ".join([*extras, *groups]) or "none"
                raise PackError(
                    f"channels_extras has {extra}; {member / 'pyproject.toml'} has no extra and no"
                    f" dependency group of this name. It has: {choices}"
                )
            options.append(f"--extra={extra}" if extra in extras else f"--group={extra}")
        if not question.project_needed:
            options.append("--no-emit-project")
        text = self.uv.run(
            lock.parent,
            *("export", "--quiet", "--frozen", "--no-dev", "--no-header", "--no-annotate"),
            *("--no-editable", f"--project={lock.parent}", *options),
        )
        return [_named(package) for package in parse(text, lock.parent)]

    def _extras(self, question: Question, file: Path) -> list[str]:
        """Return the extras to install: those asked for, and one named after the server."""
        if file.name != "pyproject.toml":
            return list(question.extras)
        read = tomllib.loads(file.read_text())
        extras = read.get("project", {}).get("optional-dependencies", {})
        own = [question.server] if question.server in extras else []
        return [*own, *(extra for extra in question.extras if extra not in own)]

    def _completed(self, question: Question, file: Path, packages: list[Package]) -> list[Package]:
        """Add what a cluster needs and the application does not bring, with what that needs."""
        limit = self._written("pins.in", pins_of(packages))
        text = ""
        if question.preferred and question.preferred.is_file():
            locked = tomllib.loads(question.preferred.read_text()).get("package", [])
            text = "".join(
                f"{each['name']}=={each['version']}\n" for each in locked if "version" in each
            )
        if wanted := missing(question, packages):
            try:
                told = self.uv.compile(
                    *(file.parent, ["-"], question.targets, f"--constraints={limit}"),
                    text="".join(f"{each}\n" for each in wanted),
                    preferred=self._written("preferred.txt", text),
                )
            except PackError as error:
                raise PackError(
                    f"No allowed version of {' and '.join(wanted)} is compatible with {file}. Lock"
                    f" one with the application, or set another channels_server.\n{error}"
                ) from error
            packages = added_to(packages, parse(told, file.parent))
        limit = self._written("pins.in", pins_of(packages))
        preferred = self._written("preferred.txt", text)
        return packages + faster.additions(
            self.uv, packages, file.parent, question.targets, [f"--constraints={limit}"], preferred
        )

    def _written(self, name: str, text: str) -> Path:
        file = self.cache.resolve() / "requirements" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file


def pins_of(packages: Sequence[Package]) -> str:
    """Return the versions of packages of an index, for uv to resolve what goes with them."""
    return text_of(replace(each, hashes=()) for each in packages if not each.url)


def added_to(packages: Sequence[Package], others: Sequence[Package]) -> list[Package]:
    """Return packages, and of some others those that are not among them."""
    known = {package.name for package in packages}
    return [*packages, *(each for each in others if each.name not in known)]


def replaced(question: Question, packages: Sequence[Package]) -> set[str]:
    """Return the server's name if the application locks a version that the kit cannot use."""
    return {
        package.name
        for package in packages
        if package.name == question.server
        and not package.url
        and not faults.usable(package.name, package.version)
    }


def missing(question: Question, packages: Sequence[Package]) -> list[str]:
    """Return what a cluster needs beside an application's packages, as requirements.

    The server; and with the settings of the cluster in front of its own, a driver of PostgreSQL and
    a channel layer, which a project for SQLite and one process does without.
    """
    versions = {package.name: package.version for package in packages}
    wanted = [] if question.server in versions else [faults.SERVERS[question.server]]
    if question.overlay:
        if not versions.keys() & DRIVERS:
            old = Version(versions.get("django", "5.2")) < Version("4.2")
            wanted.append("psycopg2-binary>=2.9" if old else "psycopg[binary]>=3.1.8")
        if not versions.keys() & LAYERS:
            wanted += ["channels-redis>=3.3", *([] if "redis" in versions else ["redis<8"])]
    return wanted


def refuse_old(file: Path, packages: Sequence[Package], targets: Sequence[Target]) -> None:
    """Refuse an application that is too old, before anything is resolved or built.

    Raises:
        PackError: names the version, and what to do.
    """
    versions = {
        package.name: package.version.removesuffix(".*")
        for package in packages
        if package.version and any(applies(package, each.python, each.machine) for each in targets)
    }
    if refused := faults.too_old(versions, str(file)):
        raise PackError(refused)


def refuse_python(file: Path, targets: Sequence[Target]) -> None:
    """Refuse hosts whose Python the application does not support.

    Raises:
        PackError: names the versions, and what to do.
    """
    project = file.with_name("pyproject.toml")
    read = tomllib.loads(project.read_text()) if project.is_file() else {}
    wanted = read.get("project", {}).get("requires-python", "")
    if file.name == "uv.lock":
        wanted = tomllib.loads(file.read_text()).get("requires-python", "")
    elif not wanted:
        # Poetry's upper bounds are those of the day that it was locked.
        poetry = read.get("tool", {}).get("poetry", {}).get("dependencies", {}).get("python", "")
        bounds = locks.caret(str(poetry)).split(",")
        wanted = ",".join(bound for bound in bounds if bound.startswith(">"))
    wrong = sorted({each.python for each in targets if each.python not in SpecifierSet(wanted)})
    if wrong:
        raise PackError(_another_python(f"The application needs Python {wanted} ({file})", targets))


def _another_python(why: str, targets: Sequence[Target]) -> str:
    """Return a message on hosts whose Python is not the right one."""
    have = ", ".join(sorted({each.python for each in targets}))
    return (
        f"{why}; the hosts have {have}."
        " Use hosts with such a Python (Debian 12 has 3.11, Debian 13 has 3.13), or set"
        ' channels_python, such as "3.13"'
    )


def _member(question: Question, lock: Path) -> Path:
    """Return the directory of the package of a workspace that the application is."""
    directory = (question.top / question.root).resolve()
    for each in (directory, *directory.parents):
        if each == lock.parent.resolve() or (each / "pyproject.toml").is_file():
            return each if (each / "pyproject.toml").is_file() else lock.parent
    return lock.parent


def _named(package: Package) -> Package:
    """Return a package of a directory with the name of its project."""
    project = Path(package.url, "pyproject.toml")
    if not package.url.startswith("/") or not project.is_file():
        return package
    name = tomllib.loads(project.read_text()).get("project", {}).get("name", package.name)
    return replace(package, name=canonicalize_name(name))


def _options(file: Path) -> Iterator[str]:
    """Yield the options of indexes in a requirements file. None that holds a credential."""
    for read in _included(file) if file.suffix in (".txt", ".in") else ():
        for line in logical_lines(read.read_text()):
            if OPTIONS.match(line) and "@" not in line and "$" not in line:
                yield line


def _included(file: Path) -> list[Path]:
    """Return a requirements file and all that it includes."""
    found = [file]
    for read in found:
        for line in logical_lines(read.read_text()) if read.is_file() else ():
            match = INCLUDES.match(line)
            if match and (other := (read.parent / match[1]).resolve()) not in found:
                found.append(other)
    return [each for each in found if each.is_file()]


def _key(question: Question, file: Path) -> str:
    """Return a name for a question: the same one only for the same answer."""
    read = {file, file.with_name("pyproject.toml"), file.with_name("uv.toml")}
    read |= set(_included(file)) if file.suffix in (".txt", ".in") else set()
    if file.name == "uv.lock":
        read.add(_member(question, file) / "pyproject.toml")
    digest = hashlib.sha256(str(FORMAT).encode())
    for each in sorted(each for each in read if each.is_file()):
        digest.update(f"{each.name}\0".encode() + each.read_bytes() + b"\0")
        # Packages in directories beside it are built from what is there now.
        text = each.read_text(errors="replace")
        for path in sorted(set(re.findall(r'(?:path|directory|editable) ?= ?"([^"]+)"', text))):
            directory = each.parent / path
            if path not in (".", "") and (directory / "pyproject.toml").is_file():
                for entry in tree.entries(directory, ()):
                    digest.update(entry.name.encode() + entry.file.read_bytes())
        for line in logical_lines(text) if each.suffix == ".txt" else ():
            path = re.sub(r"^(-e|--editable)[ =]", "", line).split(" ;")[0]
            if path.startswith((".", "/")) and (each.parent / path).is_dir():
                for entry in tree.entries(each.parent / path, ()):
                    digest.update(entry.name.encode() + entry.file.read_bytes())
    options: list[Any] = [question.server, list(question.extras), question.project_needed]
    options += [question.overlay] if question.overlay else []
    options += [[target.minor, target.machine] for target in question.targets]
    digest.update(json.dumps(options).encode())
    return digest.hexdigest()[:20]


def _read(kept: Path) -> Answer:
    told = json.loads(kept.read_text())
    packages = [Package(**{**each, "hashes": tuple(each["hashes"])}) for each in told["packages"]]
    wheels = [Path(wheel) for wheel in told["wheels"]]
    return Answer(told["file"], told["inputs"], packages, wheels, told["options"])
