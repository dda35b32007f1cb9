#!/usr/bin/python
"""Ansible module: check whether nginx runs with the current content of its files."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: nginx_freshness
short_description: Check whether nginx runs with the current content of its files
description:
  - Asks nginx for the name of the configuration that it has read, and compares the start time of
    its worker processes with the time of change of its files. A reload starts new worker processes.
    So a worker process that is older than a file runs with an old configuration. This happens if an
    earlier run ended before the reload, or if somebody edited the file.
  - Changes nothing and returns C(changed=false). Set C(changed_when) to notify a handler that
    reloads nginx.
notes:
  - A file's last change is its ctime, which a rename sets and no program can set back. A change of
    its mode or owner counts too.
  - A worker process that ends is started again with the configuration that nginx has read before.
    If all of them have ended since the change, only O(generation) shows an old configuration.
options:
  files:
    description: Files that nginx reads when it starts or reloads.
    type: list
    elements: path
    required: true
  url:
    description: >-
      Where nginx answers with the name of its configuration and the id of the process that answers.
    type: str
    required: true
  generation:
    description: The name of the configuration in the files.
    type: str
    required: true
attributes:
  check_mode:
    support: full
    description: Can run in check mode, and does the same.
  diff_mode:
    support: none
    description: Has nothing to compare.
author:
  - Channels Kit
"""

EXAMPLES = r"""
- name: Nginx | Compare the configuration in effect
  nginx_freshness:
    files: [/etc/nginx/nginx.conf]
    url: http://127.0.0.1:7980/generation
    generation: 3f2a9c41d0be
  register: nginx
  changed_when: nginx.stale
  notify: Nginx | Reload nginx
"""

RETURN = r"""
stale:
  description: >-
    Whether nginx runs with another configuration than the one in its files, or gives no answer.
  type: bool
  returned: success
reason:
  description: Why it is stale; empty if it is not.
  type: str
  returned: success
nofile:
  description: >-
    Smallest open-file limit of the worker processes; null if it is infinite or nginx gives no
    answer.
  type: int
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.host_nginx import nginx_freshness


def main() -> None:
    """Act as a module."""
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "path", "required": True},
            "url": {"type": "str", "required": True},
            "generation": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **nginx_freshness(**module.params))


if __name__ == "__main__":
    main()
