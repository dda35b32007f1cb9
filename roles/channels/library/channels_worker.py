"""Ansible module: run a worker on a revision."""

from __future__ import annotations

DOCUMENTATION = r"""
module: channels_worker
short_description: Run a worker on a revision
description:
  - Enables and starts the unit of a worker, or restarts it where the process that runs was
    started with another revision, and waits until the worker is ready. Asks the process and not
    files, so an interrupted run is completed by the next one.
options:
  port:
    description: The worker's port, which names its unit C(channels-web@PORT.service).
    type: int
    required: true
  revision:
    description: What the process must have been started with, in C(CHANNELS_KIT_REVISION).
    type: str
    required: true
  url:
    description: Where the worker answers, without a path.
    type: str
    required: true
  timeout:
    description: Seconds to wait until the worker is ready.
    type: int
    required: true
"""

import time
import urllib.error
import urllib.request
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


def running_revision(process: str) -> str:
    """Return the revision that a process was started with; empty if it has none or is gone."""
    try:
        environment = Path("/proc", process, "environ").read_bytes()
    except OSError:
        return ""
    for entry in environment.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name == b"CHANNELS_KIT_REVISION":
            return value.decode()
    return ""


def readiness(url: str) -> tuple[bool, str]:
    """Return whether the worker says that it is ready, and what it said."""
    try:
        # Never by way of a proxy: the worker is on this host.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=10) as response:
            return response.status == 200, response.read().decode()
    except urllib.error.HTTPError as error:
        return False, f"{error.code} {error.read().decode()}"
    except OSError as error:
        return False, str(error)


def main() -> None:
    """Act on the module's arguments."""
    module = AnsibleModule(
        argument_spec={
            "port": {"type": "int", "required": True},
            "revision": {"type": "str", "required": True},
            "url": {"type": "str", "required": True},
            "timeout": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    port, revision = module.params["port"], module.params["revision"]
    unit = f"channels-web@{port}.service"

    def fail(what: str) -> None:
        _, journal, _ = module.run_command(
            ["journalctl", "--no-pager", "--lines=40", "--output=cat", "--unit", unit]
        )
        module.fail_json(msg=f"{what}\nIts journal ends with:\n{journal}")

    def systemctl(*arguments: str) -> str:
        code, out, err = module.run_command(["systemctl", *arguments])
        if code:
            fail(f"{unit}: systemctl {arguments[0]} failed: {err.strip()}")
        return str(out)

    shown = systemctl("show", "--property=MainPID,ActiveState,UnitFileState", unit)
    state = dict(line.split("=", 1) for line in shown.splitlines())
    before = running_revision(state["MainPID"]) if state["ActiveState"] == "active" else ""
    if before == revision:
        action = "none"
    else:
        action = "restart" if state["ActiveState"] == "active" else "start"
    enable = state["UnitFileState"] != "enabled"
    result = {
        "changed": action != "none" or enable,
        "action": action,
        "diff": {
            "before": f"{unit}: {before or 'not running'}\n",
            "after": f"{unit}: {revision}\n",
        },
    }
    if module.check_mode:
        module.exit_json(**result)

    if result["changed"]:
        systemctl("daemon-reload")
    if enable:
        systemctl("enable", unit)
    if action != "none":
        systemctl(action, unit)

    url = f"{module.params['url']}/-/ready"
    deadline = time.monotonic() + module.params["timeout"]
    ready, answer = readiness(url)
    while not ready and time.monotonic() < deadline:
        time.sleep(0.2)
        ready, answer = readiness(url)
    if not ready:
        fail(f"{unit} is not ready after {module.params['timeout']} s; {url} says: {answer}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
