#!/usr/bin/python
"""Ansible module: list the files that do not have the wanted content."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: compare_files
short_description: List the files that do not have the wanted content
description:
  - Compares the content, the mode and the owner of several files at once. A template without a
    change takes two executions of modules, so a loop over many files takes seconds per host. With
    this module, the loop runs only over the files that differ.
  - Changes nothing and returns C(changed=false).
options:
  contents:
    description: The wanted content of each file, by its path.
    type: dict
    required: true
  mode:
    description: The wanted mode of every file, as an octal number.
    type: str
    default: "0644"
attributes:
  check_mode:
    support: full
    description: Can run in check mode, and does the same.
  diff_mode:
    support: none
    description: The task that writes the files shows the difference.
author:
  - Channels Kit
"""

EXAMPLES = r"""
- name: Configure | Compare the configuration files
  compare_files:
    contents: "{{ contents }}"
  register: files

- name: Configure | Write the configuration files
  ansible.builtin.copy:
    content: "{{ contents[item] }}"
    dest: "{{ item }}"
    owner: root
    group: root
    mode: "0644"
  loop: "{{ files.different }}"
"""

RETURN = r"""
different:
  description: >-
    Paths of O(contents) that are missing, are no regular file, belong to another user or group than
    root, or have another mode or content.
  type: list
  elements: str
  returned: success
"""

import os
import stat
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


def is_in_place(path: Path, content: bytes, mode: int) -> bool:
    """Return whether a file has a content and a mode, and belongs to root."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (
        stat.S_ISREG(found.st_mode)
        and stat.S_IMODE(found.st_mode) == mode
        and (found.st_uid, found.st_gid) == (0, 0)
        and path.read_bytes() == content
    )


def main() -> None:
    """Act as a module."""
    module = AnsibleModule(
        argument_spec={
            "contents": {"type": "dict", "required": True},
            "mode": {"type": "str", "default": "0644"},
        },
        supports_check_mode=True,
    )
    mode = int(module.params["mode"], 8)
    different = [
        path
        for path, content in module.params["contents"].items()
        if not is_in_place(Path(path), os.fsencode(content), mode)
    ]
    module.exit_json(changed=False, different=different)


if __name__ == "__main__":
    main()
