#!/usr/bin/python
"""List the releases of an app host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: channels_release_info
short_description: List the releases of an app host
description:
  - Reads the releases, which one is current, and which one each process runs.
  - Works on a bare host without the kit. Changes nothing.
options:
  home:
    description: Directory of the releases, environments and archives.
    type: path
    required: true
author: Channels Kit
"""

EXAMPLES = r"""
- name: State | Read the releases of the host
  channels_release_info:
    home: /srv/channels
  register: _channels_host
"""

RETURN = r"""
current:
  description: The release that starts at boot; empty if there is none.
  type: str
  returned: always
kit:
  description: The version of the kit that the current release carries.
  type: str
  returned: always
serves:
  description: Whether a worker runs.
  type: bool
  returned: always
drained:
  description: Whether the host is drained.
  type: bool
  returned: always
layers:
  description:
    - Which channel layers the application's processes were started with, such as V(core). Empty
      text stands for that of the application's settings.
  type: list
  elements: str
  returned: always
bridged:
  description: Whether a run has left the bridge between two channel layers open.
  type: bool
  returned: always
enabled:
  description: The application's units that start at boot, by their names in systemd.
  type: list
  elements: str
  returned: always
unit_files:
  description: The names of the application's unit files.
  type: list
  elements: str
  returned: always
python:
  description: The version of the host's Python, such as 3.11.
  type: str
  returned: always
python_full:
  description: The full version of the host's Python, such as 3.11.2.
  type: str
  returned: always
machine:
  description: The host's architecture, such as x86_64.
  type: str
  returned: always
releases:
  description:
    - "The releases, the last deployed first. Each has its name (release), whether it is current,
      the units that run it (runs), when it became the current one by the host's clock (deployed,
      seconds since 1970, 0 for never), when its deploy was complete by the controller's clock
      (recorded, 0 for never), and why it is marked as bad (empty if it is not)."
  type: list
  elements: dict
  returned: always
archives:
  description: The names of the archives, those of releases and of environments.
  type: list
  elements: str
  returned: always
environments:
  description: The complete environments.
  type: list
  elements: str
  returned: always
"""

import platform
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.channels_releases import Layout, Releases


def main() -> None:
    """Answer."""
    module = AnsibleModule({"home": {"type": "path", "required": True}}, supports_check_mode=True)
    layout = Layout(Path(module.params["home"]))
    releases = Releases(layout, lambda command: str(module.run_command(command, check_rc=True)[1]))
    module.exit_json(
        changed=False,
        current=releases.current(),
        kit=releases.kit(),
        serves=any(unit.startswith("web@") for unit in releases.running()),
        drained=layout.drained.exists(),
        layers=releases.layers(),
        bridged=layout.bridge.exists(),
        enabled=releases.enabled(),
        unit_files=releases.unit_files(),
        python=".".join(platform.python_version_tuple()[:2]),
        python_full=platform.python_version(),
        machine=platform.machine(),
        releases=releases.listed(),
        archives=releases.archives(),
        environments=releases.environments(),
    )


if __name__ == "__main__":
    main()
