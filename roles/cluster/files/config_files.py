"""Put a set of configuration files in place on a host, all or none.

What the action config_files runs there, with its arguments in JSON after it; prints JSON.

Every file that has a checker is checked before the first one is replaced, so a bad one leaves all
of them as they were and fails with the checker's words. Each is replaced in one rename. In a dry
run a missing directory, owner or checker is what a run would have made by then; it is neither made
nor missed. The arguments:

files
    path and content, mode (0644), owner and group (root), validate (a command with %s), and secret
    (false), which keeps the content out of the diff.
command
    What is run once all are in place, whether or not any was replaced. It is a change.
check
    Touch nothing, and tell what would be changed.

The answer: changed, the paths that were replaced, and the diff as Ansible shows it; or failed, and
msg.
"""

import grp
import json
import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class FailedError(Exception):
    """Something went wrong: the message tells what."""


def run(command: Sequence[str]) -> tuple[int, str]:
    """Run a command and return its exit code and what it printed."""
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
    except OSError as error:
        return 127, f"{command[0]}: {error.strerror}"
    return done.returncode, done.stdout + done.stderr


class ConfigFile:
    """One file: what is wanted, what is there."""

    def __init__(self, wanted: dict[str, Any], directory: str) -> None:
        self.path = Path(wanted["path"])
        self.content: str = wanted["content"]
        self.mode = int(str(wanted.get("mode", "0644")), 8)
        self.owner: str = wanted.get("owner", "root")
        self.group: str = wanted.get("group", "root")
        self.validate: str | None = wanted.get("validate")
        self.secret: bool = wanted.get("secret", False)
        self.candidate = Path(tempfile.mkdtemp(dir=directory), self.path.name)
        # Whatever its encoding and line ends are: it may be somebody else's.
        there = self.path.read_bytes() if self.path.is_file() else None
        self.before = None if there is None else there.decode(errors="replace")

    def check(self, dry_run: bool) -> None:
        """Let the checker read the candidate; fail with its words."""
        self.candidate.touch(mode=0o600)
        self.candidate.write_text(self.content)
        if not self.validate or self.before == self.content:
            return
        checker = shlex.split(self.validate % self.candidate)
        if dry_run and not shutil.which(checker[0]):
            return
        code, said = run(checker)
        if code:
            raise FailedError(
                f"{self.path} was not replaced, nor any other file: its checker refuses it.\n"
                f"{said.replace(str(self.candidate), str(self.path)).strip()}"
            )

    def replace(self, dry_run: bool) -> bool:
        """Put the candidate in place and return whether anything changed."""
        changed = self.before != self.content or self.path.is_symlink()
        if dry_run:
            return changed or self.attributes() != (self.mode, self.owner, self.group)
        if changed:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            # Beside the file, so that the rename is one; with its attributes, so that
            # nobody reads a secret in between.
            descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
            try:
                with os.fdopen(descriptor, "w") as file:
                    file.write(self.content)
                shutil.chown(name, self.owner, self.group)
                Path(name).chmod(self.mode)
                Path(name).replace(self.path)
            except (OSError, LookupError):  # the latter says that there is no such owner
                Path(name).unlink(missing_ok=True)
                raise
        elif self.attributes() != (self.mode, self.owner, self.group):
            shutil.chown(self.path, self.owner, self.group)
            self.path.chmod(self.mode)
            changed = True
        return changed

    def attributes(self) -> tuple[int, str, str]:
        """Return mode, owner and group of the file that is there."""
        status = self.path.stat()
        try:
            owner, group = pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name
        except KeyError:
            owner = group = ""
        return status.st_mode & 0o7777, owner, group

    def diff(self) -> dict[str, str]:
        """Return the change as Ansible shows it."""
        hidden = "(a secret, not shown)\n"
        return {
            "before_header": str(self.path),
            "after_header": str(self.path),
            "before": hidden if self.secret else self.before or "",
            "after": hidden.replace("not shown", "another one, not shown")
            if self.secret
            else self.content,
        }


def put(
    files: list[dict[str, Any]], command: Sequence[str] = (), check: bool = False
) -> dict[str, Any]:
    """Put files in place, and return the answer.

    Raises:
        FailedError: a checker refuses one, or the command failed.
        OSError, LookupError: one cannot be written, or has an owner that there is not.
    """
    # Its own, which nobody else can read: what is a secret is in there too.
    with tempfile.TemporaryDirectory() as directory:
        wanted = [ConfigFile(file, directory) for file in files]
        for file in wanted:
            file.check(check)
        changed = [file for file in wanted if file.replace(check)]
    if command and not check:
        code, said = run(command)
        if code:
            raise FailedError(f"{shlex.join(command)} failed:\n{said}")
    return {
        "changed": bool(changed or command),
        "paths": [str(file.path) for file in changed],
        "diff": [file.diff() for file in changed],
    }


def main(arguments: str) -> int:
    """Act on arguments in JSON, and print the answer."""
    try:
        answer = put(**json.loads(arguments))
    except (FailedError, OSError, LookupError) as error:
        answer = {"failed": True, "msg": str(error)}
    print(json.dumps(answer))
    return 1 if "failed" in answer else 0
