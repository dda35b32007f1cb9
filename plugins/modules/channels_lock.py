#!/usr/bin/python
"""Take and release the lock of a cluster on an app host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: channels_lock
short_description: Take and release the lock of a cluster on an app host
description:
  - Every operation that changes a cluster holds the lock on every app host that answers.
  - Use the action of the same name. It adds who runs the operation, and takes over the lock of an
    ended operation of the same controller.
  - Taking and releasing the lock is not reported as a change. Removing another operation's lock is.
options:
  state:
    description:
      - V(present) takes the lock. If this operation holds it, updates its owner information.
      - V(absent) writes a line to the audit log and releases this operation's lock.
      - V(broken) removes the lock, whoever holds it.
    type: str
    choices: [present, absent, broken]
    required: true
  owner:
    description: "Who takes the lock: who, what, run, and other information about the operation."
    type: dict
    default: {}
  instead_of:
    description: The run of an operation that ended without releasing the lock.
    type: str
    default: ""
  result:
    description: How the operation ended, for the audit log.
    type: str
    default: ok
author: Channels Kit
"""

EXAMPLES = r"""
- name: Lock | Take the lock
  channels_lock:
    state: present
    what: deploy v1.2
  register: _channels_lock

- name: Unlock | Remove the lock
  channels_lock:
    state: broken
"""

RETURN = r"""
refused:
  description: Whether another operation holds the lock.
  type: bool
  returned: when O(state=present)
holder:
  description: "Who held the lock before: who, what, run, seconds since it was taken."
  type: dict
  returned: always
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.channels_releases import Layout, Lock

OPTIONS = {
    "state": {"type": "str", "choices": ["present", "absent", "broken"], "required": True},
    "owner": {"type": "dict", "default": {}},
    "instead_of": {"type": "str", "default": ""},
    "result": {"type": "str", "default": "ok"},
}


def main() -> None:
    """Do what the arguments say."""
    module = AnsibleModule(OPTIONS, supports_check_mode=True)
    params = module.params
    lock = Lock(Layout(Path("/")))
    holder = lock.holder()
    if module.check_mode:
        module.exit_json(changed=False, refused=False, holder=holder)
    if params["state"] == "present":
        refused = not lock.take(params["owner"], params["instead_of"])
        module.exit_json(changed=False, refused=refused, holder=lock.holder() if refused else {})
    if params["state"] == "absent":
        lock.give_back(params["owner"]["run"], params["result"])
        module.exit_json(changed=False, holder=holder)
    module.exit_json(changed=lock.break_it(), holder=holder)


if __name__ == "__main__":
    main()
