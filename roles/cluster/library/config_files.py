"""Ansible module: put a set of configuration files in place, all or none."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_files
short_description: Put a set of configuration files in place, all or none
description:
  - Every file that has a checker is checked before the first one is replaced, so a bad one leaves
    all of them as they were and fails with the checker's words. Each is replaced in one rename.
  - One call for what would be a task a file. A call costs a host about 0.3 s of processor time,
    most of it Ansible's own start, and a role that has nothing to change is little else.
  - In check mode a missing directory, owner or checker is what a run would have made by then; it
    is neither made nor missed.
options:
  files:
    description: >-
      The files. path and content, mode (0644), owner and group (root), validate (a command with
      %s), and secret (false), which keeps the content out of the diff. The action of the same name
      renders template, with vars, into content.
    type: list
    elements: dict
    required: true
  command:
    description: What is run once all are in place, whether or not any was replaced. It is a change.
    type: list
    elements: str
    default: []
"""

import grp
import os
import pwd
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule


class ConfigFile:
    """One file: what is wanted, what is there."""

    def __init__(self, module: AnsibleModule, wanted: dict[str, Any]) -> None:
        self.module = module
        self.path = Path(wanted["path"])
        self.content: str = wanted["content"]
        self.mode = int(str(wanted.get("mode", "0644")), 8)
        self.owner: str = wanted.get("owner", "root")
        self.group: str = wanted.get("group", "root")
        self.validate: str | None = wanted.get("validate")
        self.secret: bool = wanted.get("secret", False)
        self.candidate = Path(tempfile.mkdtemp(dir=module.tmpdir), self.path.name)
        # Whatever its encoding and line ends are: it may be somebody else's.
        there = self.path.read_bytes() if self.path.is_file() else None
        self.before = None if there is None else there.decode(errors="replace")

    def check(self) -> None:
        """Let the checker read the candidate; fail with its words."""
        self.candidate.touch(mode=0o600)
        self.candidate.write_text(self.content)
        if not self.validate or self.before == self.content:
            return
        if self.module.check_mode and not shutil.which(shlex.split(self.validate)[0]):
            return
        code, out, err = self.module.run_command(self.validate % self.candidate)
        if code:
            self.module.fail_json(
                msg=f"{self.path} was not replaced, nor any other file: its checker refuses it.\n"
                f"{(out + err).replace(str(self.candidate), str(self.path)).strip()}"
            )

    def replace(self) -> bool:
        """Put the candidate in place and return whether anything changed."""
        changed = self.before != self.content or self.path.is_symlink()
        if self.module.check_mode:
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


def main() -> None:
    """Act on the module's arguments."""
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "dict", "required": True},
            "command": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    files = [ConfigFile(module, wanted) for wanted in module.params["files"]]
    for file in files:
        file.check()
    changed = [file for file in files if file.replace()]
    command: list[str] = module.params["command"]
    if command and not module.check_mode:
        module.run_command(command, check_rc=True)
    module.exit_json(
        changed=bool(changed or command),
        paths=[str(file.path) for file in changed],
        diff=[file.diff() for file in changed],
    )


if __name__ == "__main__":
    main()
