"""Ansible module: run workers on a revision."""

from __future__ import annotations

DOCUMENTATION = r"""
module: channels_worker
short_description: Run workers on a revision
description:
  - Enables the units of workers, starts at once all that do not run, restarts one after the other
    those whose process was started with another revision, and waits until each is ready. Asks the
    processes and not files, so an interrupted run is completed by the next one.
options:
  workers:
    description: >-
      The workers, each with its port, which names its unit C(channels-web@PORT.service), and the
      url where it answers, without a path.
    type: list
    elements: dict
    required: true
  revision:
    description: What a process must have been started with, in C(CHANNELS_KIT_REVISION).
    type: str
    required: true
  timeout:
    description: Seconds to wait until a worker is ready.
    type: int
    required: true
  restart:
    description: Whether a worker that runs on another revision is restarted.
    type: bool
    default: true
"""

RETURN = r"""
outdated:
  description: The ports of workers that run on another revision, where restart is false.
  type: list
  elements: int
  returned: always
"""

import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

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
        with opener.open(f"{url}/-/ready", timeout=10) as response:
            return response.status == 200, response.read().decode()
    except urllib.error.HTTPError as error:
        return False, f"{error.code} {error.read().decode()}"
    except (OSError, http.client.HTTPException) as error:  # the latter: not a worker's answer
        return False, str(error)


class Worker:
    """One worker: its unit, and what runs there."""

    def __init__(self, module: AnsibleModule, port: int, url: str) -> None:
        self.module = module
        self.port = port
        self.unit = f"channels-web@{port}.service"
        self.url = url
        shown = self.systemctl("show", "--property=MainPID,ActiveState,UnitFileState", self.unit)
        state = dict(line.split("=", 1) for line in shown.splitlines())
        # One whose start is under way, too: systemd would join a second start to the first.
        self.active = state["ActiveState"] in ("active", "activating")
        self.enabled = state["UnitFileState"] == "enabled"
        # What the process that runs was started with; empty where none runs.
        self.revision = running_revision(state["MainPID"]) if self.active else ""

    def fail(self, what: str) -> None:
        """Fail with the end of the unit's journal."""
        journalctl = ["journalctl", "--no-pager", "--lines=40", "--output=cat", "--unit", self.unit]
        _, journal, _ = self.module.run_command(journalctl)
        self.module.fail_json(msg=f"{what}\nIts journal ends with:\n{journal}")

    def systemctl(self, *arguments: str) -> str:
        """Run systemctl and return what it printed."""
        code, out, err = self.module.run_command(["systemctl", *arguments])
        if code:
            self.fail(f"{self.unit}: systemctl {arguments[0]} failed: {err.strip()}")
        return str(out)

    def wait_until_ready(self, seconds: int) -> None:
        """Wait for a 200 from its readiness; fail with what it says instead."""
        deadline = time.monotonic() + seconds
        ready, answer = readiness(self.url)
        while not ready and time.monotonic() < deadline:
            time.sleep(0.2)
            ready, answer = readiness(self.url)
        if not ready:
            self.fail(
                f"{self.unit} is not ready after {seconds} s; {self.url}/-/ready says: {answer}"
            )


def main() -> None:
    """Act on the module's arguments."""
    module = AnsibleModule(
        argument_spec={
            "workers": {"type": "list", "elements": "dict", "required": True},
            "revision": {"type": "str", "required": True},
            "timeout": {"type": "int", "required": True},
            "restart": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    revision: str = module.params["revision"]
    seconds: int = module.params["timeout"]
    workers = [Worker(module, worker["port"], worker["url"]) for worker in module.params["workers"]]

    enable = [worker for worker in workers if not worker.enabled]
    start = [worker for worker in workers if not worker.active]
    outdated = [worker for worker in workers if worker.active and worker.revision != revision]
    restart = outdated if module.params["restart"] else []
    touched = [worker for worker in workers if worker in enable + start + restart]
    result: dict[str, Any] = {
        "changed": bool(touched),
        "started": [worker.unit for worker in start],
        "restarted": [worker.unit for worker in restart],
        "outdated": [worker.port for worker in outdated if worker not in restart],
        "diff": {
            "before": "".join(
                f"{each.unit}: {each.revision or 'not running'}\n" for each in touched
            ),
            "after": "".join(f"{each.unit}: {revision}\n" for each in touched),
        },
    }
    if module.check_mode:
        module.exit_json(**result)

    if touched:
        touched[0].systemctl("daemon-reload")
    if enable:
        enable[0].systemctl("enable", *(worker.unit for worker in enable))
    if start:
        start[0].systemctl("start", *(worker.unit for worker in start))
    for worker in restart:
        worker.systemctl("restart", worker.unit)
        worker.wait_until_ready(seconds)
    # Those that a run before this one has touched and not waited for, too.
    for worker in workers:
        if worker in start or worker.revision == revision:
            worker.wait_until_ready(seconds)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
