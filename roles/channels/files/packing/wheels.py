"""Build what no index has as a wheel: from Git, from a directory, from a source distribution."""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import urlopen

from packaging import tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from packing import PackError, tree
from packing.packages import Package, applies, text_of
from packing.python import interpreter
from packing.uv import Target, Uv

# What uv takes for a host's C library; every Debian that is supported has a newer one.
GLIBC = 28
# Lines of a failed build's output that are shown.
WORDS = 20


@dataclass(frozen=True)
class Builder:
    """Builds wheels for hosts, once for the same input.

    Attributes:
        uv: builds them.
        cache: the directory that keeps them.
        directory: of the application, whose settings of uv hold.
        targets: the hosts.
    """

    uv: Uv
    cache: Path
    directory: Path
    targets: Sequence[Target]

    def replaced(self, packages: Sequence[Package]) -> tuple[list[Package], list[Path]]:
        """Return the packages with those that had to be built as wheels, and these wheels.

        Raises:
            PackError: one cannot be built here for a host; names it, and what to do.
        """
        without = self._without_wheel([each for each in packages if not each.url])
        kept: list[Package] = []
        wheels: list[Path] = []
        for package in packages:
            if not package.url and package not in without:
                kept.append(package)
                continue
            built = {
                wheel.name: wheel
                for target in self.targets
                if applies(package, target.python, target.machine)
                for wheel in [self._wheel(package, target)]
            }
            if built:
                name, version, _, _ = parse_wheel_filename(next(iter(built)))
                hashes = tuple(f"sha256:{_digest(wheel)}" for wheel in built.values())
                kept.append(Package(name, str(version), package.marker, hashes))
                wheels += built.values()
        return kept, wheels

    def _without_wheel(self, packages: Sequence[Package]) -> set[Package]:
        """Return the packages that a host needs and that have no wheel for it."""
        if not packages:
            return set()
        known: dict[tuple[str, str], list[str]] = {}
        for target in self.targets:
            wanted = [each for each in packages if applies(each, target.python, target.machine)]
            told = self.uv.compile(
                *(self.directory, ["-"], [target], "--no-deps", "--format=pylock.toml"),
                text=text_of(wanted),
            )
            for package in tomllib.loads(told).get("packages", ()):
                name = (canonicalize_name(package["name"]), str(package.get("version", "")))
                known[name] = [file_name(wheel) for wheel in package.get("wheels", ())]
        return {
            package
            for package in packages
            for target in self.targets
            if applies(package, target.python, target.machine)
            and not any(
                fits(wheel, target)
                for wheel in known.get(
                    (package.name, package.version), ["unknown-1-py3-none-any.whl"]
                )
            )
        }

    def _wheel(self, package: Package, target: Target) -> Path:
        """Return a wheel of a package that runs on a host."""
        python = self._python(target)
        if package.url:
            label = package.url
            if Path(package.url).is_dir():
                label = f"{package.name} {_digest_of(package.url)}"
        else:
            label = f"{package.name}=={package.version} {' '.join(sorted(package.hashes))}"
        key = hashlib.sha256(f"{label} {python} {platform.machine()}".encode()).hexdigest()[:20]
        kept = self.cache / key
        if not kept.is_dir():
            with tempfile.TemporaryDirectory(dir=_made(self.cache)) as temporary:
                out = Path(temporary, "out")
                out.mkdir()
                self._build(package, python, Path(temporary), out)
                out.rename(kept)
        wheel = next(iter(sorted(kept.glob("*.whl"))))
        if not fits(wheel.name, target):
            raise PackError(
                f"{package.line().split()[0]} has no wheel for Python {target.minor} on"
                f" {target.machine}, and this machine cannot build one: it has no Python"
                f" {target.minor} for {target.machine}. Pack on a machine that has it, or lock a"
                " version that has a wheel"
            )
        return wheel

    def _build(self, package: Package, python: str, temporary: Path, out: Path) -> None:
        try:
            if package.url.startswith("git+"):
                source = _checked_out(package.url, temporary / "source")
            elif package.url and Path(package.url).is_dir():
                source = temporary / "source"
                _copy(Path(package.url), source)
            elif urlsplit(package.url).path.endswith(".whl"):
                _bring(package, out)
                return
            else:
                self._build_by_install(package, python, temporary, out)
                return
            build = ("build", "--quiet", "--wheel", f"--python={python}", f"--out-dir={out}")
            self.uv.run(temporary, *build, "--no-sources", source)
        except PackError as error:
            raise PackError(self._not_built(package, str(error))) from error

    def _not_built(self, package: Package, told: str) -> str:
        """Return a message for a package that was not built: what to do, and the last words."""
        lines = told.splitlines()
        if len(lines) > 2 * WORDS:
            lines = [*lines[:2], "...", *lines[-WORDS:]]
        if package.url:
            why = "To fix it, install what its build needs on this machine"
        else:
            why = (
                f"It has no wheel for Python {self.targets[0].minor} on {self.targets[0].machine}"
                " (Linux), so it is built on this machine. To fix it, lock a version that has a"
                " wheel, install what its build needs on this machine, or remove the package if"
                " the application does not need it on Linux"
            )
        name = f"{package.name}=={package.version}" if package.version else package.url
        return "\n".join([f"Cannot build a wheel of {name}. {why}.", *lines])

    def _build_by_install(self, package: Package, python: str, temporary: Path, out: Path) -> None:
        """Build a source distribution as uv does when it installs it, and take its wheel."""
        hashes = ("--require-hashes",) if package.hashes else ()
        cache = temporary / "cache"
        self.uv.run(
            self.directory,
            *("pip", "install", "--quiet", "--no-deps", f"--cache-dir={cache}", *hashes),
            *(f"--target={temporary / 'installed'}", f"--python={python}", "--requirement=-"),
            text=text_of([replace(package, marker="")]),
        )
        wheels = [path for path in cache.rglob("*.whl") if path.is_file()]
        own = [path for path in wheels if _name_of(path) == package.name]
        if not own:
            raise PackError("uv left no wheel of it in its cache")
        shutil.copy(own[0], out)

    def _python(self, target: Target) -> str:
        """Return a Python like the host's, or any that this machine has."""
        anywhere = Path(tempfile.gettempdir())  # in no project, which may want another one
        if target.machine == platform.machine():
            try:
                return self.uv.run(anywhere, "python", "find", target.minor).strip()
            except PackError:
                if found := interpreter(target.minor, self.cache.parent / "pythons"):
                    return found
        return self.uv.run(anywhere, "python", "find").strip()


def _bring(package: Package, out: Path) -> None:
    """Take a wheel that is named by its URL or its path."""
    path = urlsplit(package.url).path
    url = package.url if "://" in package.url else f"file://{package.url}"
    try:
        with urlopen(url) as opened:  # noqa: S310  the application's own list names it
            content = opened.read()
    except OSError as error:
        raise PackError(str(error)) from error
    digest = hashlib.sha256(content).hexdigest()
    if package.hashes and f"sha256:{digest}" not in package.hashes:
        raise PackError(f"It has the hash sha256:{digest}; allowed: {', '.join(package.hashes)}")
    (out / unquote(Path(path).name)).write_bytes(content)


def fits(wheel: str, target: Target) -> bool:
    """Return whether a wheel runs on a host."""
    try:
        return bool(parse_wheel_filename(wheel)[3] & set(_tags(target)))
    except InvalidWheelFilename:
        return False


def _tags(target: Target) -> Iterator[tags.Tag]:
    version = tuple(int(part) for part in target.minor.split("."))
    platforms = [f"manylinux_2_{number}_{target.machine}" for number in range(GLIBC, 4, -1)]
    platforms += [f"manylinux{name}_{target.machine}" for name in ("2014", "2010", "1")]
    platforms += [f"linux_{target.machine}"]
    interpreter = f"cp{version[0]}{version[1]}"
    yield from tags.cpython_tags(version, platforms=platforms)
    yield from tags.compatible_tags(version, interpreter, platforms)


def _checked_out(url: str, directory: Path) -> Path:
    """Clone what a requirement names by git+URL@COMMIT, with its submodules."""
    plain, _, fragment = url.removeprefix("git+").partition("#")
    head, _, last = plain.rpartition("/")
    name, _, reference = last.partition("@")
    address = f"{head}/{name}"
    for command in (
        ["clone", "--quiet", "--no-checkout", address, str(directory)],
        ["-C", str(directory), "checkout", "--quiet", "--detach", reference or "HEAD"],
        ["-C", str(directory), "submodule", "--quiet", "update", "--init", "--recursive"],
    ):
        done = subprocess.run(["git", *command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise PackError(
                f"git {' '.join(command[:1])} exited with status {done.returncode}:"
                f" {_without_credentials(done.stderr.strip())}"
            )
    below = parse_qs(fragment).get("subdirectory", [""])[0]
    return directory / below


def _without_credentials(text: str) -> str:
    return re.sub(r"//[^/@\s]+@", "//", text)


def _copy(source: Path, target: Path) -> None:
    """Copy what would be packed of a directory: a build leaves files where it runs."""
    for entry in tree.entries(source, ()):
        file = target / entry.name
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(entry.file, file)


def _digest_of(directory: str) -> str:
    digest = hashlib.sha256()
    for entry in tree.entries(Path(directory), ()):
        digest.update(f"{entry.name}\0{_digest(entry.file)}\0".encode())
    return digest.hexdigest()


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _name_of(wheel: Path) -> str:
    try:
        return parse_wheel_filename(wheel.name)[0]
    except InvalidWheelFilename:
        return ""


def file_name(wheel: dict[str, str]) -> str:
    """Return the name of a wheel's file that a pylock.toml lists."""
    if name := wheel.get("name"):
        return name
    return Path(urlsplit(wheel.get("url", wheel.get("path", ""))).path).name


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory
