#!/usr/bin/python
"""Take and give back the lock of a cluster on one of its app hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: channels_lock
short_description: Take and give back the lock of a cluster on one of its app hosts
description:
  - Every operation that changes a cluster holds the lock on every app host that answers.
  - Use the action of the same name, which knows who runs the operation on the controller, and takes
    over the lock of an operation of this controller that has ended.
  - The lock is no change of the host, since it is gone when the operation ends. To break it is one.
options:
  state:
    description:
      - V(present) takes the lock, or adds to one's own.
      - V(absent) writes a line into the audit log and gives one's own lock back.
      - V(broken) gives it back, whoever has it.
    type: str
    choices: [present, absent, broken]
    required: true
  owner:
    description: "Who takes it: who, what, run, and what else is to be known of the operation."
    type: dict
    default: {}
  instead_of:
    description: The run of an operation that has ended without giving it back.
    type: str
    default: ""
  result:
    description: How the operation ended, for the audit log.
    type: str
    default: ok
author: Channels Kit
"""

EXAMPLES = r"""
- name: Lock | Keep other operators out
  channels_lock:
    state: present
    what: deploy v1.2
  register: _channels_lock

- name: Unlock | Break the lock
  channels_lock:
    state: broken
"""

RETURN = r"""
refused:
  description: Whether somebody else has the lock.
  type: bool
  returned: when O(state=present)
holder:
  description: "Who had the lock before: who, what, run, seconds since they took it."
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
