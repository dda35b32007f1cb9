#!/usr/bin/python
"""Install, switch to, record, mark and remove releases on an app host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: channels_release
short_description: Install, switch to, record, mark and remove releases on an app host
description:
  - A release is the application with the kit's library, under a name that is a hash of both.
options:
  home:
    description: Directory of the releases, environments and archives.
    type: path
    required: true
  state:
    description:
      - V(installed) unpacks a release from its archives in HOME/archives, compiles it and collects
        its static files. The last step makes the release visible, so it is never incomplete.
      - V(current) makes an installed release the one that starts at boot.
      - V(recorded) notes that the operation which made a release the current one is complete. Of
        releases on several hosts, the one with the latest O(time) was deployed last.
      - V(bad) marks a release as bad. A rollback does not choose it.
      - V(pruned) removes all but O(keep) releases, with their environments, archives and secrets.
    type: str
    choices: [installed, current, recorded, bad, pruned]
    required: true
  name:
    description: The release. Needed for every state but V(pruned).
    type: str
  environment:
    description: The environment of its Python packages, for O(state=installed).
    type: str
  python:
    description:
      - The archive of the Python that the release brings, for O(state=installed).
      - Empty for the host's own.
    type: str
    default: ''
  user:
    description: The user that collects its static files, for O(state=installed).
    type: str
  static:
    description:
      - Whether to collect static files when a release is installed. Without Django's staticfiles
        in the project, none are collected.
    type: bool
    default: true
  time:
    description:
      - When it was deployed, for O(state=recorded), in seconds since 1970.
      - By the controller's clock, so that it is the same on every host.
    type: int
  reason:
    description: Why the release is bad, for O(state=bad).
    type: str
  keep:
    description:
      - Number of releases to keep, including the running and the previous ones. The same number of
        bad releases is kept in addition, for analysis.
    type: int
author: Channels Kit
"""

EXAMPLES = r"""
- name: Release | Unpack it
  channels_release:
    home: /srv/channels
    state: installed
    name: 0123456789ab
    environment: ba9876543210-3.11-x86_64
    user: channels

- name: Record | Record when the release was deployed
  channels_release:
    home: /srv/channels
    state: recorded
    name: 0123456789ab
    time: 1795842000

- name: Prune | Remove old releases
  channels_release:
    home: /srv/channels
    state: pruned
    keep: 5
"""

RETURN = r"""
removed:
  description: The paths that were removed.
  type: list
  elements: str
  returned: when O(state=pruned)
"""

from collections.abc import Sequence
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.channels_releases import Layout, ReleaseError, Releases

OPTIONS = {
    "home": {"type": "path", "required": True},
    "state": {
        "type": "str",
        "choices": ["installed", "current", "recorded", "bad", "pruned"],
        "required": True,
    },
    "name": {"type": "str"},
    "environment": {"type": "str"},
    "python": {"type": "str", "default": ""},
    "user": {"type": "str"},
    "static": {"type": "bool", "default": True},
    "time": {"type": "int"},
    "reason": {"type": "str"},
    "keep": {"type": "int"},
}
REQUIRED = [
    ("state", "installed", ("name", "environment", "user")),
    ("state", "current", ("name",)),
    ("state", "recorded", ("name", "time")),
    ("state", "bad", ("name", "reason")),
    ("state", "pruned", ("keep",)),
]


def main() -> None:
    """Do what the arguments say."""
    module = AnsibleModule(OPTIONS, required_if=REQUIRED, supports_check_mode=True)

    def run(command: Sequence[str]) -> str:
        code, out, err = module.run_command(list(command))
        if code:
            raise ReleaseError(f"{' '.join(command)} exited with status {code}:\n{out}{err}")
        return str(out)

    params = module.params
    name = params["name"]
    releases = Releases(Layout(Path(params["home"])), run)
    before = releases.current()
    check = module.check_mode
    try:
        if params["state"] == "installed":
            there = name in releases.installed()
            if not check:
                names = (params["name"], params["environment"], params["user"])
                releases.install(*names, params["static"], params["python"])
            module.exit_json(changed=not there)
        if params["state"] == "current":
            changed = releases.switch(name, check)
            diff = {
                "before": f"current release: {before or 'none'}\n",
                "after": f"current release: {name}\n",
            }
            module.exit_json(changed=changed, diff=diff if changed else {})
        if params["state"] == "recorded":
            module.exit_json(changed=releases.record(name, params["time"], check))
        if params["state"] == "bad":
            module.exit_json(changed=check or releases.mark_bad(name, params["reason"]))
        removed = releases.prune(params["keep"], check)
        module.exit_json(changed=bool(removed), removed=removed)
    except (ReleaseError, OSError, KeyError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
