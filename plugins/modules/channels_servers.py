#!/usr/bin/python
"""Check which servers of the application do not answer."""

from __future__ import annotations

DOCUMENTATION = r"""
module: channels_servers
short_description: Check which servers of the application do not answer
description:
  - Connects from the host to Redis and PostgreSQL and sends one request in their protocol, without
    logging in. This distinguishes an outage from a broken release.
  - Changes nothing.
options:
  servers:
    description: The servers.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the server in messages.
        type: str
        required: true
      protocol:
        description: Protocol of the server.
        type: str
        choices: [redis, postgresql]
        required: true
      address:
        description: Host name or address. A server without one is skipped.
        type: str
        required: true
      port:
        description: Port.
        type: int
        required: true
      tls:
        description:
          - Whether the server speaks TLS from the start, as Redis does. PostgreSQL answers without.
          - The certificate is not verified. The application does that.
        type: bool
        default: false
  timeout:
    description: Seconds to wait for an answer. Covers servers that are just starting.
    type: float
    default: 10
author: Channels Kit
"""

EXAMPLES = r"""
- name: Look | Check the servers
  channels_servers:
    servers:
      - name: channel layer
        protocol: redis
        address: 10.0.0.12
        port: 6379
  register: _channels_servers
"""

RETURN = r"""
silent:
  description: The servers that do not answer, each with the reason.
  type: list
  elements: str
  returned: always
  sample: ["channel layer (10.0.0.12:6379): Connection refused"]
"""

import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from ansible.module_utils.basic import AnsibleModule

OPTIONS = {
    "servers": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "protocol": {"type": "str", "choices": ["redis", "postgresql"], "required": True},
            "address": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "tls": {"type": "bool", "default": False},
        },
    },
    "timeout": {"type": "float", "default": 10.0},
}

WORDS = {
    "redis": b"PING\r\n",
    # SSLRequest of PostgreSQL's protocol, which is answered before anybody logs in.
    "postgresql": bytes.fromhex("00000008 04d2162f"),
}

PATIENCE = 3.0
"""Seconds that a server may take for one answer."""

INTERVAL = 0.5
"""Seconds between two questions."""


def silence(server: Mapping[str, Any]) -> str:
    """Return why a server does not answer; empty where it does."""
    try:
        where = (server["address"], server["port"])
        with ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection(where, timeout=PATIENCE))
            if server.get("tls"):
                connection = stack.enter_context(unverified().wrap_socket(connection))
            connection.sendall(WORDS[server["protocol"]])
            return "" if connection.recv(1) else "it ends the connection"
    except TimeoutError:
        return f"no answer within {PATIENCE:g} s"
    except OSError as error:
        return error.strerror or str(error)


def unverified() -> ssl.SSLContext:
    """Return a client's context that takes any certificate: only an answer counts."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def main() -> None:
    """Ask until all answer, or the time is over."""
    module = AnsibleModule(OPTIONS, supports_check_mode=True)
    deadline = time.monotonic() + module.params["timeout"]
    servers = [server for server in module.params["servers"] if server["address"]]
    while True:
        found = [(server, silence(server)) for server in servers]
        silent = [
            f"{server['name']} ({server['address']}:{server['port']}): {reason}"
            for server, reason in found
            if reason
        ]
        if not silent or time.monotonic() >= deadline:
            module.exit_json(changed=False, silent=silent)
        time.sleep(INTERVAL)


if __name__ == "__main__":
    main()
