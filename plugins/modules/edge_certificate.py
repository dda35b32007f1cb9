#!/usr/bin/python
"""Ansible module: put the certificate of an edge in place."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: edge_certificate
short_description: Put the certificate of an edge in place
description:
  - Stores a certificate and its key in a directory that is named after their content, so that a
    configuration of nginx can name exactly this pair. Does not change what nginx serves.
  - Also stores a key for session tickets, so that tickets stay valid across reloads. Each
    certificate has a key of its own.
  - Takes the given certificate, or the one that certbot obtained, or a self-signed one if there is
    none yet.
  - Removes the certificates that neither the given configuration nor the new one uses.
  - Does not return or show a key.
options:
  names:
    description: Names and addresses for a self-signed certificate.
    type: list
    elements: str
    required: true
  certificate:
    description: A certificate and its chain, in PEM.
    type: str
  key:
    description: The private key of O(certificate), in PEM.
    type: str
  lineage:
    description: Directory of a certificate of certbot. It may be missing.
    type: path
  directory:
    description: Where the certificates are stored. Only root can read it.
    type: path
    default: /etc/nginx/tls
  configuration:
    description: The configuration of nginx. The certificate that it names is kept.
    type: path
    default: /etc/nginx/nginx.conf
requirements:
  - openssl on the host.
attributes:
  check_mode:
    support: full
    description: Can run in check mode. RV(id) of a new self-signed certificate is not known there.
  diff_mode:
    support: none
    description: Does not show a key.
author:
  - Channels Kit
"""

EXAMPLES = r"""
- name: Nginx | Put the certificate in place
  edge_certificate:
    names: [chat.example.org]
    certificate: "{{ lookup('ansible.builtin.file', '/etc/pki/chat.pem') }}"
    key: "{{ vault_chat_key }}"
  register: pair

- name: Nginx | Put the certificate of certbot in place, or a self-signed one
  edge_certificate:
    names: [chat.example.org]
    lineage: /etc/letsencrypt/live/channels-edge
"""

RETURN = r"""
id:
  description: Name of the directory of the certificate, below O(directory).
  type: str
  returned: success
source:
  description: Where the certificate is from, C(files), C(acme) or C(self-signed).
  type: str
  returned: success
not_after:
  description: End of its validity, in openssl's words. May be empty in check mode.
  type: str
  returned: success
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_certificates import (
    CertificateError,
    Edge,
    Store,
    canonical,
    describe,
    identify,
    read_lineage,
)

UNKNOWN = "0" * 12


def _as_file(text: str) -> str:
    return text.strip() + "\n"


def main() -> None:
    """Act as a module."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "certificate": {"type": "str"},
            "key": {"type": "str", "no_log": True},
            "lineage": {"type": "path"},
            "directory": {"type": "path", "default": "/etc/nginx/tls"},
            "configuration": {"type": "path", "default": "/etc/nginx/nginx.conf"},
        },
        required_together=[("certificate", "key")],
        mutually_exclusive=[("certificate", "lineage")],
        supports_check_mode=True,
    )
    openssl = module.get_bin_path("openssl", required=not module.check_mode)
    store = Store(Path(module.params["directory"]))
    names = list(dict.fromkeys(canonical(name.strip("[]")) for name in module.params["names"]))
    try:
        source = "files"
        pair = None
        if module.params["certificate"]:
            pair = (_as_file(module.params["certificate"]), _as_file(module.params["key"]))
        elif module.params["lineage"]:
            source, pair = "acme", read_lineage(Path(module.params["lineage"]))
        made = False
        if pair is None:
            source, pair = "self-signed", store.self_signed(names) if openssl else None
            made = pair is None
            if pair is None and module.check_mode:
                module.exit_json(changed=True, id=UNKNOWN, source=source, not_after="")
            pair = pair or store.make_self_signed(names)
        not_after = describe(pair[0]).not_after if openssl else ""
        changed = made or not store.holds(*pair)
        new = identify(*pair)
        if not module.check_mode:
            before = Edge(Path(module.params["configuration"]), store).current()
            store.put(*pair)
            store.remove_others({new, before})
    except CertificateError as error:
        module.fail_json(msg=f"{error}. Nothing changed.")
    module.exit_json(changed=changed, id=new, source=source, not_after=not_after)


if __name__ == "__main__":
    main()
