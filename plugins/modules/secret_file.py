#!/usr/bin/python
"""Ansible module: create a file with a random secret."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: secret_file
short_description: Create a file with a random secret
description:
  - Creates a file that contains a random secret in hexadecimal digits. Keeps an existing secret.
  - Replaces a file whose secret is empty or too short.
  - Writes the file under another name and renames it. So the file is never empty, incomplete or
    readable by others.
  - Does not return or show the secret.
options:
  path:
    description: The file. Its directory must exist.
    type: path
    required: true
  bytes:
    description: Random bytes of a new secret. The file holds two digits for each.
    type: int
    default: 32
  minimum:
    description: A file that holds fewer characters is replaced; spaces around them do not count.
    type: int
    default: 32
  owner:
    description: The user that the file belongs to.
    type: str
    default: root
  group:
    description: The group that the file belongs to.
    type: str
    default: root
  mode:
    description: Permissions. Others must have none.
    type: str
    default: "0600"
attributes:
  check_mode:
    support: full
    description: Can run in check mode.
  diff_mode:
    support: none
    description: Does not show a secret.
author:
  - Channels Kit
"""

EXAMPLES = r"""
- name: Configure | Create the administrator's password
  secret_file:
    path: /etc/redis/administrator.password
"""

RETURN = r"""
reason:
  description: Why a secret was created; empty if the existing one was kept.
  type: str
  returned: success
"""

import secrets
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.private_file import put

SMALLEST = 16


def reason_to_make(path: Path, minimum: int) -> str:
    """Return why a file needs a new secret; an empty string where it needs none."""
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        return "the file is missing"
    if len(found.strip()) < minimum:
        return f"the file holds {len(found.strip())} characters; at least {minimum} are required"
    return ""


def main() -> None:
    """Act as a module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "bytes": {"type": "int", "default": 32},
            "minimum": {"type": "int", "default": 32},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str", "default": "0600"},
        },
        supports_check_mode=True,
    )
    count, minimum = module.params["bytes"], module.params["minimum"]
    if count < SMALLEST or not SMALLEST <= minimum <= 2 * count:
        module.fail_json(
            msg=f"bytes must be {SMALLEST} or more, and minimum from {SMALLEST} to 2 * bytes"
        )
    if int(module.params["mode"], 8) & 0o007:
        module.fail_json(msg=f"mode is {module.params['mode']}; others must have no permission")
    path = Path(module.params["path"])
    reason = reason_to_make(path, minimum)
    attributes = {name: module.params[name] for name in ("owner", "group", "mode")}
    secret = secrets.token_hex(count) if reason else None
    module.exit_json(changed=put(module, path, secret, attributes), reason=reason)


if __name__ == "__main__":
    main()
