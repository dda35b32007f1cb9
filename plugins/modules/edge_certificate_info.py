#!/usr/bin/python
"""Ansible module: read the certificate that an edge serves, as a client would."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: edge_certificate_info
short_description: Read the certificate that an edge serves, as a client would
description:
  - Opens a TLS connection for each name and verifies the certificate as a client on this host
    would, with the certificate authorities that the host trusts.
  - Reports why a client would refuse it, and when it expires. Changes nothing.
options:
  address:
    description: Address of the edge.
    type: str
    required: true
  port:
    description: Port of the edge.
    type: int
    default: 443
  names:
    description:
      - Host names and addresses for which the certificate must be valid.
      - For C(*.example.org), C(www.example.org) is tried.
    type: list
    elements: str
    required: true
  days:
    description: A certificate that expires within this number of days is a problem.
    type: int
    default: 14
  timeout:
    description: Seconds that a connection may take.
    type: int
    default: 10
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
- name: Certificates | Read the certificate of the edge
  edge_certificate_info:
    address: 10.0.0.10
    names: [chat.example.org]
  register: certificate
"""

RETURN = r"""
problems:
  description: What is wrong, one sentence for each name and cause; empty if nothing is.
  type: list
  elements: str
  returned: success
not_after:
  description: End of the validity of the certificate; empty if no client accepts it.
  type: str
  returned: success
days_left:
  description: Days until then; none if no client accepts it.
  type: int
  returned: success
"""

import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DAY = 86400


@dataclass
class Found:
    """What clients have seen.

    Attributes:
        ends: the moments at which the certificates expire, in seconds since 1970, by their words.
        problems: what is wrong.
    """

    ends: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def look(
    address: str, port: int, names: Sequence[str], timeout: float, context: ssl.SSLContext
) -> Found:
    """Ask an edge by every name."""
    found = Found()
    for name in (each.strip("[]").replace("*.", "www.") for each in names):
        try:
            with (
                socket.create_connection((address, port), timeout=timeout) as plain,
                context.wrap_socket(plain, server_hostname=name) as connection,
            ):
                words: Any = (connection.getpeercert() or {})["notAfter"]
            found.ends[words] = ssl.cert_time_to_seconds(words)
        except ssl.SSLCertVerificationError as error:
            found.problems.append(f"{name}: certificate not trusted: {error.verify_message}")
        except OSError as error:
            found.problems.append(f"{name}: no TLS at {address} port {port}: {error}")
    return found


def expiring(found: Found, days: int, now: float) -> Iterator[str]:
    """Yield what expires too soon."""
    for words, end in found.ends.items():
        left = int((end - now) // DAY)
        if left < days:
            wanted = f"at least {days} are required"
            yield f"the certificate expires in {left} days, on {words}; {wanted}"


def main() -> None:
    """Act as a module."""
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "port": {"type": "int", "default": 443},
            "names": {"type": "list", "elements": "str", "required": True},
            "days": {"type": "int", "default": 14},
            "timeout": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    given, now = module.params, time.time()
    context = ssl.create_default_context()
    found = look(given["address"], given["port"], given["names"], given["timeout"], context)
    first = min(found.ends.items(), key=lambda item: item[1], default=None)
    module.exit_json(
        changed=False,
        problems=[*found.problems, *expiring(found, given["days"], now)],
        not_after=first[0] if first else "",
        days_left=int((first[1] - now) // DAY) if first else None,
    )


if __name__ == "__main__":
    main()
