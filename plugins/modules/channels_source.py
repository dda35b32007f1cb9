#!/usr/bin/python
"""Check out a commit of a Git repository on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: channels_source
short_description: Check out a commit of a Git repository on the controller
description:
  - Clones or updates the repository, and checks out a commit with its submodules.
  - Git uses the SSH agent and the credential helpers of the user who runs it. It asks nobody.
options:
  url:
    description: The repository, without a password.
    type: str
    required: true
  reference:
    description: A commit, a tag or a branch. Empty for the default branch.
    type: str
    default: ''
  token:
    description:
      - The password that the server of an https URL is given.
      - Git gets it in its environment. It is in no command line, log or file.
    type: str
    default: ''
  directory:
    description: Where repositories are kept. Created if it does not exist.
    type: path
    required: true
author: Channels Kit
"""

EXAMPLES = r"""
- name: Select | Check out the Git repository on the controller
  channels_source:
    url: https://git.example.org/shop.git
    reference: v1.2
    token: "{{ channels_source_token }}"
    directory: /home/ada/kit/.releases/repositories
  delegate_to: localhost
"""

RETURN = r"""
path:
  description: The directory of the commit.
  type: str
  returned: success
commit:
  description: The full name of the commit.
  type: str
  returned: success
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

KEPT = 5
"""How many commits of a repository stay, the last ones that were taken."""

# Git runs it to ask for a name and a password. The token is in the environment of Git alone.
ASKPASS = """\
#!/bin/sh
case $1 in
Username*) echo token ;;
*) printf '%s\\n' "$CHANNELS_SOURCE_TOKEN" ;;
esac
"""


class GitError(Exception):
    """Git failed; the message has its words."""


class Repository:
    """A repository, kept on the controller.

    Args:
        module: runs commands.
        url: where it comes from.
        directory: where it is kept.
        environment: what Git gets beside the user's own environment.
    """

    def __init__(self, module: Any, url: str, directory: Path, environment: dict[str, str]) -> None:
        self.module = module
        self.url = url
        self.directory = directory
        self.environment = environment

    def take(self, reference: str) -> tuple[Path, str]:
        """Return the directory of a commit with its submodules, and the commit's name."""
        mirror = self.directory / "mirror.git"
        if not (mirror / "HEAD").exists():
            shutil.rmtree(mirror, ignore_errors=True)
            self.git("clone", "--quiet", "--mirror", "--", self.url, str(mirror))
        else:
            self.git("-C", str(mirror), "remote", "update", "--prune")
        wanted = f"{reference or 'HEAD'}^{{commit}}"
        verify = ("rev-parse", "--quiet", "--verify", "--end-of-options", wanted)
        try:
            commit = self.git("-C", str(mirror), *verify).strip()
        except GitError as error:
            raise GitError(f"{self.url} has no commit, tag or branch {reference}") from error
        taken = self.directory / commit
        if not taken.is_dir():
            with tempfile.TemporaryDirectory(dir=self.directory) as temporary:
                tree = str(Path(temporary, "tree"))
                self.git("clone", "--quiet", "--no-checkout", "--", str(mirror), tree)
                # Submodules by a relative URL are beside the repository, not beside its mirror.
                self.git("-C", tree, "remote", "set-url", "origin", self.url)
                self.git("-C", tree, "checkout", "--quiet", "--detach", commit)
                self.git("-C", tree, "submodule", "--quiet", "update", "--init", "--recursive")
                Path(tree).rename(taken)
        os.utime(taken)
        self.prune()
        return taken, commit

    def prune(self) -> None:
        """Remove all but the last commits that were taken."""
        found = [path for path in self.directory.iterdir() if len(path.name) == 40]
        for path in sorted(found, key=lambda each: each.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(path)

    def git(self, *arguments: str) -> str:
        """Return what git prints.

        Raises:
            GitError: it failed.
        """
        code, out, err = self.module.run_command(
            ["git", *arguments], environ_update=self.environment
        )
        if code:
            raise GitError(str(err).strip() or f"git exited with status {code}")
        return str(out)


def main() -> None:
    """Do what the arguments say."""
    module = AnsibleModule(
        {
            "url": {"type": "str", "required": True},
            "reference": {"type": "str", "default": ""},
            "token": {"type": "str", "default": "", "no_log": True},
            "directory": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    url, reference, token = (module.params[name] for name in ("url", "reference", "token"))
    directory = Path(module.params["directory"], hashlib.sha256(url.encode()).hexdigest()[:16])
    directory.mkdir(parents=True, exist_ok=True)
    environment = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    environment["GIT_SSH_COMMAND"] = os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    try:
        with (
            (directory / ".lock").open("w") as lock,
            tempfile.TemporaryDirectory() as temporary,
        ):
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.utime(directory)  # prune_archives.py removes what nobody uses
            if token:
                program = Path(temporary, "askpass")
                program.write_text(ASKPASS)
                program.chmod(0o700)
                environment |= {"GIT_ASKPASS": str(program), "CHANNELS_SOURCE_TOKEN": token}
                # Not what a helper of the user's has kept for the same server.
                environment |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "credential.helper"}
                environment |= {"GIT_CONFIG_VALUE_0": ""}
            path, commit = Repository(module, url, directory, environment).take(reference)
    except (GitError, OSError) as error:
        said = (
            f"Cannot take {reference or 'the default branch'} of {url}. Nothing changed.\n{error}"
        )
        # A server may repeat what it was given.
        module.fail_json(msg=said.replace(token, "********") if token else said)
    module.exit_json(changed=False, path=str(path), commit=commit)


if __name__ == "__main__":
    main()
