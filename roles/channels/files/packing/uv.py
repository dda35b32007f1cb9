"""Run uv, the one tool that resolves, exports and builds."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packing import PackError


@dataclass(frozen=True)
class Target:
    """Hosts of one kind.

    Attributes:
        python: the full version of their Python, such as 3.11.2.
        machine: their architecture, such as x86_64.
    """

    python: str
    machine: str

    @property
    def minor(self) -> str:
        """Python's version as environments are named, such as 3.11."""
        return ".".join(self.python.split(".")[:2])

    @property
    def platform(self) -> str:
        """The platform as uv names it."""
        return f"{self.machine}-unknown-linux-gnu"


@dataclass(frozen=True)
class Uv:
    """uv, run in the directory of an application, whose own settings of uv hold.

    Attributes:
        program: the path of uv.
    """

    program: Path

    def run(
        self, directory: Path, *arguments: str | Path, text: str = "", downloads: bool = False
    ) -> str:
        """Return what it prints.

        Args:
            directory: where it runs.
            arguments: of uv.
            text: its standard input.
            downloads: whether it may bring a Python.

        Raises:
            PackError: it failed; with its words.
        """
        # An application's .python-version is for its developers; hosts have a Python of their own.
        environment = {**os.environ, "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}
        if downloads:
            environment["UV_PYTHON_DOWNLOADS"] = "manual"
        environment.pop("VIRTUAL_ENV", None)
        done = subprocess.run(
            [str(self.program), *(str(each) for each in arguments)],
            cwd=directory,
            input=text,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise PackError(
                f"uv {arguments[0]} exited with status {done.returncode}:\n{done.stderr.strip()}"
            )
        return done.stdout

    def compile(
        self,
        directory: Path,
        inputs: Sequence[str | Path],
        targets: Sequence[Target],
        *options: str | Path,
        text: str = "",
        preferred: Path | None = None,
        universal: bool = False,
    ) -> str:
        """Resolve a list of requirements for hosts; return it with versions and hashes.

        Args:
            directory: where it runs, and what paths are relative to.
            inputs: files, or "-" for text.
            targets: the hosts.
            options: of uv.
            text: requirements.
            preferred: a list of versions that are taken where they fit; gets the new list.
            universal: also packages that no host can have.
        """
        quiet = ("--quiet", "--no-header", "--no-annotate", "--no-strip-extras")
        kept = (f"--output-file={preferred}",) if preferred else ()
        told = self.run(
            directory,
            *("pip", "compile", *quiet, "--generate-hashes", *kept),
            *(*_for(targets, universal), *options, *inputs),
            text=text,
        )
        # With an output file, uv is quiet about what it has written.
        return preferred.read_text() if preferred else told

    def install(self, directory: Path, text: str, target: Target, into: Path) -> None:
        """Unpack the wheels of a list for a host, and nothing that they need.

        Args:
            directory: where it runs.
            text: the list.
            target: the host.
            into: the directory to unpack into.
        """
        self.run(
            directory,
            *("pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", f"--target={into}"),
            *(*_for([target], False), "--requirement=-"),
            text=text,
        )


def _for(targets: Sequence[Target], universal: bool) -> list[str]:
    """Return the options that name the hosts; of several kinds, all from the oldest Python on."""
    if len(targets) == 1 and not universal:
        return [
            f"--python-version={targets[0].python}",
            f"--python-platform={targets[0].platform}",
        ]
    versions = sorted(
        (target.python for target in targets),
        key=lambda version: [int(part) for part in version.split(".")],
    )
    return ["--universal", f"--python-version={versions[0]}"]
