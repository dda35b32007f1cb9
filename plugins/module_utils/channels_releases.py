"""The releases on an app host: what there is, what runs, what has become of each.

Files say it all, so that a host which was away knows as much as one which was not:

``releases/RELEASE``
    The application, the kit's library, ``release.json``, which says what both are, ``static``, the
    collected files, and ``python``, the interpreter of its environment.
``environments/NAME``
    The Python packages; releases that need the same ones share one.
``pythons/NAME``
    A Python that releases bring, if they do not use the host's own.
``archives/NAME.tar.gz``
    What both were unpacked from. The controller asks for them to bring them to another host.
``current``
    A link to the release that starts when the host does.
``deployed/RELEASE``, ``bad/RELEASE``
    Notes: that it was made the current one, and when the operation that did so was complete, by the
    controller's clock; why it may not run again.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.channels_processes import others_of

Run = Callable[[Sequence[str]], str]
"""Runs a command and returns what it prints; raises CommandError where it fails."""

UNITS = "channels-*"


class ReleaseError(Exception):
    """Something cannot be done; the message says what and why."""


@dataclass(frozen=True)
class Layout:
    """Where things are on a host. Tests have them below a directory of their own.

    Attributes:
        home: holds releases, environments and archives.
        root: what all other paths are below.
    """

    home: Path
    root: Path = Path("/")

    @property
    def configuration(self) -> Path:
        """Environment files, and what the host's programs read."""
        return self.root / "etc/channels"

    @property
    def units(self) -> Path:
        """Unit files."""
        return self.root / "etc/systemd/system"

    @property
    def drained(self) -> Path:
        """There while the host is drained: no unit of the application starts."""
        return self.configuration / "drained"

    @property
    def bridge(self) -> Path:
        """There while processes with different channel layers hear each other."""
        return self.configuration / "layer-bridge"

    @property
    def lock(self) -> Path:
        """There while somebody changes the cluster."""
        return self.root / "run/channels-deploy.lock"

    @property
    def audit(self) -> Path:
        """One line for each operation, however it ended."""
        return self.root / "var/log/channels-deploys.log"


def variable_of(process: int, name: str) -> str | None:
    """Return a variable that a process was started with; None if there is none."""
    try:
        environ = Path("/proc", str(process), "environ").read_bytes()
    except OSError:  # it has ended meanwhile, or was never started
        return None
    value = re.search(rb"(?:^|\0)" + name.encode() + rb"=([^\0]*)", environ)
    return value[1].decode() if value else None


def release_of(process: int) -> str:
    """Return the release that a process was started with; empty if there is no such process."""
    return (variable_of(process, "CHANNELS_KIT_REVISION") or "").partition("-")[0]


class Releases:
    """What an app host has.

    Args:
        layout: where it is.
        run: runs a command.
    """

    def __init__(self, layout: Layout, run: Run) -> None:
        self.layout = layout
        self.home = layout.home
        self.run = run

    # What there is

    def current(self) -> str:
        """Return the release that starts when the host does; empty if there is none."""
        link = self.home / "current"
        return link.resolve().name if link.is_symlink() else ""

    def running(self) -> dict[str, str]:
        """Return the release of every process of the application by unit: asks the processes.

        A process that a reload has replaced, and that still has sockets, is ``web@8001 (retired)``.
        """
        named = ((name, release_of(process)) for name, process in self._processes())
        return {name: release for name, release in named if release}

    def layers(self) -> list[str]:
        """Return the kinds of channel layer that the application's processes were started with."""
        kinds = {variable_of(process, "CHANNEL_LAYER_KIND") for _, process in self._processes()}
        return sorted(kind for kind in kinds if kind is not None)

    def _processes(self) -> Iterator[tuple[str, int]]:
        shown = self.run(["systemctl", "show", "--property=Id,MainPID", UNITS])
        for block in shown.strip().split("\n\n"):
            unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            if "Id" not in unit:
                continue
            name = unit["Id"].removesuffix(".service").removeprefix("channels-")
            name = name.removeprefix("process-")
            main = int(unit.get("MainPID", "0"))
            yield name, main
            for number, process in enumerate(
                others_of(unit["Id"], main, self.layout.root / "run"), 1
            ):
                count = f" {number}" if number > 1 else ""
                yield f"{name} (retired{count})", process

    def enabled(self) -> list[str]:
        """Return the names of the application's units that start when the host does."""
        directory = self.layout.units / "multi-user.target.wants"
        return sorted(path.name for path in directory.glob("channels-*.service"))

    def unit_files(self) -> list[str]:
        """Return the names of the application's unit files."""
        return sorted(path.name for path in self.layout.units.glob("channels-*.service"))

    def listed(self) -> list[dict[str, Any]]:
        """Return what is known of every installed release, the last deployed first."""
        units = self.running()
        current = self.current()
        found = []
        for name in self.installed():
            bad = self._note("bad", name)
            found.append(
                {
                    "release": name,
                    "current": name == current,
                    "runs": sorted(unit for unit, release in units.items() if release == name),
                    "deployed": self._time(self._note("deployed", name)),
                    "recorded": self.recorded(name),
                    "bad": bad.read_text().strip() if bad.exists() else "",
                }
            )
        return sorted(found, key=lambda each: each["deployed"], reverse=True)

    def installed(self) -> list[str]:
        """Return the names of the releases that are there whole."""
        return sorted(path.name for path in (self.home / "releases").glob("[0-9a-f]*"))

    def recorded(self, name: str) -> int:
        """Return when a release was deployed, by the controller's clock; 0 without a record."""
        note = self._note("deployed", name)
        text = note.read_text().strip() if note.exists() else ""
        return int(text) if text.isdecimal() else 0

    def archives(self) -> list[str]:
        """Return the names of the archives, those of releases and of environments."""
        return [
            path.name.removesuffix(".tar.gz")
            for path in self._entries("archives")
            if path.name.endswith(".tar.gz")
        ]

    def environments(self) -> list[str]:
        """Return the names of the environments that are there whole."""
        return sorted(path.parent.name for path in (self.home / "environments").glob("*/complete"))

    def kit(self) -> str:
        """Return the version of the kit that the current release carries; empty if none."""
        described = self.home / "current" / "release.json"
        if described.exists():
            return str(json.loads(described.read_text())["kit"])
        file = self.home / "current" / "kit.txt"  # version 0.3.0 and before
        return file.read_text().strip() if file.exists() else ""

    # What is done to them

    def install(
        self, name: str, environment: str, user: str, static: bool = True, python: str = ""
    ) -> bool:
        """Unpack a release from its archives; it appears whole, as the last step.

        Args:
            name: the release.
            environment: of its Python packages.
            user: collects its static files.
            static: whether to collect them.
            python: the Python that it brings; empty for the host's own.

        Returns:
            Whether it was not there before.

        Raises:
            ReleaseError: an archive is missing, or a step failed.
        """
        final = self.home / "releases" / name
        if final.is_dir():
            return False
        new = final.with_name(f".{name}")
        shutil.rmtree(new, ignore_errors=True)  # what an interrupted run has left
        # The application's user must read the files, even if root's umask is 077.
        umask = os.umask(0o022)
        try:
            new.mkdir(parents=True)
            self._fill(new, name, environment, python)
            if static:
                self._collect(new, name, user)
        except Exception:
            shutil.rmtree(new, ignore_errors=True)  # the disk may be full
            raise
        finally:
            os.umask(umask)
        new.rename(final)
        return True

    def switch(self, name: str, check: bool = False) -> bool:
        """Make a release the current one, and note when; return whether it was not.

        Raises:
            ReleaseError: it is not installed.
        """
        if self.current() == name:
            return False
        if check:
            return True
        directory = self.home / "releases" / name
        if not directory.is_dir():
            raise ReleaseError(f"release {name} is not installed")
        link = self.home / ".current"
        link.unlink(missing_ok=True)
        link.symlink_to(directory)
        link.replace(self.home / "current")
        note = self._note("deployed", name)
        note.parent.mkdir(exist_ok=True)
        note.touch()
        self._note("bad", name).unlink(missing_ok=True)
        return True

    def record(self, name: str, time: int, check: bool = False) -> bool:
        """Note when a release was deployed, by the controller's clock; return whether it is new."""
        if self.recorded(name) == time:
            return False
        if not check:
            note = self._note("deployed", name)
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(f"{time}\n")
        return True

    def mark_bad(self, name: str, reason: str) -> bool:
        """Keep a rollback from going back to a release; return whether it was not marked so."""
        note = self._note("bad", name)
        if note.exists() and note.read_text() == reason:
            return False
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(reason)
        return True

    def prune(self, keep: int, check: bool = False) -> list[str]:
        """Remove releases beyond those to keep, and what only they needed; return the paths."""
        gone = self.surplus(keep)
        for path in [] if check else gone:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return [str(path) for path in gone]

    def surplus(self, keep: int) -> list[Path]:
        """Return what nobody goes back to: releases, environments, archives, secrets."""
        found = self.listed()
        kept = {each["release"] for each in found if each["current"] or each["runs"]}
        deployed = [each for each in found if each["deployed"]]
        for each in deployed:
            if len(kept) < keep and not each["bad"]:
                kept.add(each["release"])
        # Apart from the others: however many bad ones come in a row, there is one to go back to.
        kept.update([each["release"] for each in deployed if each["bad"]][:keep])
        directories = [path for path in self._entries("releases") if path.name not in kept]
        # What an interrupted installation has left goes too; nobody else installs meanwhile.
        used = {self._environment_of(name) for name in kept}
        directories += [path for path in self._entries("environments") if path.name not in used]
        pythons = {self._python_of(name) for name in used}
        directories += [path for path in self._entries("pythons") if path.name not in pythons]
        names = {f"{name}.tar.gz" for name in kept | used | pythons}
        archives = [path for path in self._entries("archives") if path.name not in names]
        # Former environment files hold former secrets.
        texts = [path.read_text() for path in self.layout.units.glob("channels-*.service")]
        host = self.layout.configuration / "host.conf"
        texts += [host.read_text()] if host.exists() else []
        secrets = [
            path
            for path in self.layout.configuration.glob("*.env")
            if not any(str(path) in text for text in texts)
        ]
        return directories + archives + secrets

    # Parts

    def _entries(self, kind: str) -> list[Path]:
        directory = self.home / kind
        return sorted(directory.iterdir()) if directory.is_dir() else []

    def _note(self, kind: str, name: str) -> Path:
        return self.home / kind / name

    def _time(self, note: Path) -> float:
        return note.stat().st_mtime if note.exists() else 0.0

    def _environment_of(self, name: str) -> str:
        text = (self.home / "releases" / name / "python").read_text()
        found = re.search(r"/environments/([^/]+)/", text)
        return found[1] if found else ""

    def _python_of(self, environment: str) -> str:
        """Return the Python of an environment; empty if it is the host's own."""
        configuration = self.home / "environments" / environment / "pyvenv.cfg"
        text = configuration.read_text() if configuration.is_file() else ""
        found = re.search(r"^home = .*/pythons/([^/\n]+)/bin$", text, re.M)
        return found[1] if found else ""

    def _fill(self, new: Path, name: str, environment: str, python: str) -> None:
        """Unpack a release into a directory, and make what it needs to run."""
        self._unpack(name, new)
        venv = self._environment(environment, python)
        # By the environment's own path: a worker stays with it when ../current moves on.
        program = new / "python"
        program.write_text(f'#!/bin/sh\nexec {venv}/bin/python "$@"\n')
        program.chmod(0o755)
        self.run([str(program), "-m", "compileall", "-q", str(new / "app"), str(new / "kit")])

    def _collect(self, new: Path, name: str, user: str) -> None:
        """Collect the static files of a release, if the project has Django's staticfiles."""
        # The application's user writes nothing here but these files.
        static = new / "static"
        static.mkdir()
        account = pwd.getpwnam(user)
        os.chown(static, account.pw_uid, account.pw_gid)
        try:
            said = self.run(
                [
                    *("channels-manage", "--release", f".{name}", "collectstatic"),
                    *("--settings=channels_kit.collected", "--no-input", "--verbosity", "0"),
                ]
            )
        except ReleaseError as error:
            if "Unknown command: 'collectstatic'" in str(error):
                return
            raise
        self._link_static(new, static, said)

    def _link_static(self, new: Path, static: Path, said: str) -> None:
        """Have the project's own STATIC_ROOT lead to the collected files, where it is free.

        Args:
            new: the directory of the release.
            static: the collected files.
            said: what the program has printed; a line says where the project would have them.
        """
        own = ""
        for line in said.splitlines():
            found = json.loads(line) if line.startswith('{"static_root"') else {}
            own = found.get("static_root", own)
        path = Path(os.path.normpath(own or "/"))
        if not path.is_relative_to((new / "app").resolve()):
            return
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Relative: the release moves to its final name.
            path.symlink_to(os.path.relpath(static.resolve(), path.parent.resolve()))

    def _python(self, name: str) -> str:
        """Return the program of a Python, which is unpacked unless it is there."""
        if not name:
            return "python3"
        directory = self.home / "pythons" / name
        if not directory.is_dir():
            new = directory.with_name(f".{name}")
            shutil.rmtree(new, ignore_errors=True)  # what an interrupted run has left
            new.mkdir(parents=True)
            self._unpack(name, new)
            new.rename(directory)
        return str(directory / "bin/python3")

    def _environment(self, name: str, python: str) -> Path:
        """Return a virtual environment; unpack it unless it is there whole."""
        venv = self.home / "environments" / name
        complete = venv / "complete"
        if not complete.exists():
            shutil.rmtree(venv, ignore_errors=True)
            venv.parent.mkdir(parents=True, exist_ok=True)
            self.run([self._python(python), "-m", "venv", "--without-pip", str(venv)])
            packages = next(venv.glob("lib/python3*/site-packages"))
            self._unpack(name, packages)
            # Compiled already where the controller's Python is of this version.
            if not any(packages.glob("*/__pycache__")):
                python = str(venv / "bin/python")
                self.run([python, "-m", "compileall", "-q", "-j", "0", str(packages)])
            complete.touch()
        return venv

    def _unpack(self, name: str, directory: Path) -> None:
        archive = self.home / "archives" / f"{name}.tar.gz"
        if not archive.exists():
            raise ReleaseError(f"{archive} is missing")
        self.run(
            [
                *("tar", "--extract", "--gzip", "--no-same-owner"),
                *(f"--file={archive}", f"--directory={directory}"),
            ]
        )


class Lock:
    """Who changes the cluster.

    Args:
        layout: where the lock and the audit log are.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def holder(self) -> dict[str, Any]:
        """Return who has it, with ``seconds`` since they took it; empty if nobody does."""
        try:
            told = self._read()
            seconds = time.time() - self.layout.lock.stat().st_mtime
        except FileNotFoundError:
            return {}
        except ValueError:  # not written by this class
            told, seconds = {}, 0.0
        return {"who": "somebody", "what": "", "run": "", **told, "seconds": round(seconds)}

    def take(self, owner: Mapping[str, Any], instead_of: str = "") -> bool:
        """Take it, or add to one's own; return whether the owner has it now.

        Args:
            owner: who, what, run (one for each operation), and what else is to be known.
            instead_of: the run of somebody who is gone.
        """
        holder = self.holder()
        if not holder:
            return self._create(owner)
        if holder["run"] == owner["run"]:
            status = self.layout.lock.stat()
            self._write(self.layout.lock, {**self._read(), **owner})
            os.utime(self.layout.lock, (status.st_atime, status.st_mtime))
            return True
        if instead_of and holder["run"] == instead_of:
            self.layout.lock.unlink(missing_ok=True)
            return self._create(owner)
        return False

    def give_back(self, run: str, result: str) -> bool:
        """Write a line into the audit log and give the lock back; return whether it was theirs."""
        holder = self.holder()
        if not holder or holder["run"] != run:
            return False
        line = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "who": holder["who"],
            "what": holder["what"],
            "release": holder.get("release", ""),
            "result": result,
            "seconds": holder["seconds"],
        }
        with self.layout.audit.open("a") as log:
            log.write(json.dumps(line) + "\n")
        self.layout.lock.unlink()
        return True

    def break_it(self) -> bool:
        """Give it back, whoever has it; return whether anybody had it."""
        there = self.layout.lock.exists()
        self.layout.lock.unlink(missing_ok=True)
        return there

    def _create(self, owner: Mapping[str, Any]) -> bool:
        """Create it with its content, in one step; return whether nobody else was faster."""
        temporary = self.layout.lock.with_name(f".{self.layout.lock.name}.{os.getpid()}")
        self._write(temporary, owner)
        try:
            os.link(temporary, self.layout.lock)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        return True

    def _read(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.layout.lock.read_text() or "{}")
        return told

    def _write(self, file: Path, owner: Mapping[str, Any]) -> None:
        file.write_text(json.dumps(dict(owner)))
