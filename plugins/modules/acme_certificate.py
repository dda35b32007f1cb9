#!/usr/bin/python
"""Ansible module: obtain the certificate of an edge by ACME."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: acme_certificate
short_description: Obtain the certificate of an edge by ACME
description:
  - Runs certbot if there is no certificate yet, if it was obtained with other arguments (names,
    certificate authority, challenge, hook), or if it expires soon.
  - Then has nginx serve the certificate, if it does not. nginx validates its configuration first.
  - A certificate authority that does not answer, or that refuses a name, is a warning and not a
    failure. nginx continues to serve the certificate that it has. The next run retries.
options:
  name:
    description: Name under which certbot keeps the certificate.
    type: str
    required: true
  domains:
    description: Host names of the certificate. C(*.example.org) needs a challenge by DNS.
    type: list
    elements: str
    required: true
  email:
    description: E-mail address of the account at the certificate authority.
    type: str
    required: true
  server:
    description: URL of the directory of the certificate authority. Empty for certbot's default.
    type: str
    default: ""
  webroot:
    description:
      - Directory in which certbot puts the answers to challenges by HTTP. It is created.
      - The answers are in C(.well-known/acme-challenge) below it.
    type: path
  arguments:
    description: Arguments of certbot for another challenge than by O(webroot).
    type: list
    elements: str
    default: []
  hook:
    description: Command that has nginx serve a renewed certificate.
    type: list
    elements: str
    required: true
  days:
    description: A certificate that expires within this number of days is renewed.
    type: int
    default: 25
  configuration_directory:
    description: Where certbot keeps accounts and certificates.
    type: path
    default: /etc/letsencrypt
  work_directory:
    description: Where certbot keeps its working files.
    type: path
    default: /var/lib/letsencrypt
  log_directory:
    description: Where certbot writes its logs.
    type: path
    default: /var/log/letsencrypt
requirements:
  - certbot and openssl on the host.
attributes:
  check_mode:
    support: full
    description: Can run in check mode. It asks no certificate authority.
  diff_mode:
    support: none
    description: Does not show a key.
author:
  - Channels Kit
"""

EXAMPLES = r"""
- name: Acme | Obtain the certificate
  acme_certificate:
    name: channels-edge
    domains: [chat.example.org]
    email: operations@example.org
    webroot: /var/lib/channels-acme
    hook: [/usr/local/sbin/channels-certificate, deploy]
"""

RETURN = r"""
reason:
  description: Why certbot was run; empty if it was not.
  type: str
  returned: success
obtained:
  description: Whether there is a certificate that was obtained with these arguments.
  type: bool
  returned: success
installed:
  description: Whether certbot is installed; it may be missing in check mode.
  type: bool
  returned: success
problem:
  description: Why there is none, or why nginx does not serve it; empty if it does.
  type: str
  returned: success
"""

import json
import shlex
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.edge_certificates import CertificateError, describe, read_lineage

# Lines of certbot that say nothing of the cause.
NOISE = (
    "Ask for help",
    "Saving debug log",
    "See the logfile",
    "Hint:",
    "Requesting a certificate",
    "Some challenges have failed",
    "Account registered",
    "Renewing an existing certificate",
    "Plugins selected",
)
MAX_WORDS = 600
DAY = 86400


def words_of(output: str) -> str:
    """Return what certbot says of a failure, without what it says each time."""
    lines = [line.strip() for line in output.splitlines()]
    told = [line for line in lines if line.strip("- ") and not line.startswith(NOISE)]
    return " ".join(told)[-MAX_WORDS:] or "certbot said nothing"


def reason_to_run(
    pair: tuple[str, str] | None, former: Any, wanted: Any, days: int, now: float
) -> str:
    """Return why certbot has to run; an empty string if it has not."""
    if pair is None:
        return "there is no certificate yet"
    if former != wanted:
        return "the certificate was obtained with other arguments"
    left = int((describe(pair[0]).expires - now) // DAY)
    return f"the certificate expires in {left} days" if left < days else ""


def main() -> None:
    """Act as a module."""
    text = {"type": "str", "required": True}
    words = {"type": "list", "elements": "str"}
    module = AnsibleModule(
        argument_spec={
            "name": text,
            "domains": {**words, "required": True},
            "email": text,
            "server": {"type": "str", "default": ""},
            "webroot": {"type": "path"},
            "arguments": {**words, "default": []},
            "hook": {**words, "required": True},
            "days": {"type": "int", "default": 25},
            "configuration_directory": {"type": "path", "default": "/etc/letsencrypt"},
            "work_directory": {"type": "path", "default": "/var/lib/letsencrypt"},
            "log_directory": {"type": "path", "default": "/var/log/letsencrypt"},
        },
        required_one_of=[("webroot", "arguments")],
        supports_check_mode=True,
    )
    given = module.params
    certbot = module.get_bin_path("certbot", required=not module.check_mode)
    home = Path(given["configuration_directory"])
    lineage, state = home / "live" / given["name"], home / f"{given['name']}.json"
    challenge = given["arguments"] or ["--webroot", "--webroot-path", given["webroot"]]
    server = ["--server", given["server"]] if given["server"] else []
    wanted = [
        *("--cert-name", given["name"], "--key-type", "ecdsa", *server, *challenge),
        *("--deploy-hook", shlex.join(given["hook"])),
        *(word for domain in given["domains"] for word in ("--domain", domain)),
    ]
    try:
        former = json.loads(state.read_text()) if state.exists() else None
        reason = reason_to_run(read_lineage(lineage), former, wanted, given["days"], time.time())
    except (CertificateError, ValueError) as error:
        former, reason = None, str(error)
    if module.check_mode:
        module.exit_json(
            changed=bool(reason),
            reason=reason,
            obtained=not reason,
            problem="",
            installed=certbot is not None,
        )

    changed, problem = False, ""
    if reason:
        if given["webroot"]:
            Path(given["webroot"]).mkdir(mode=0o755, parents=True, exist_ok=True)
        command = [
            *(certbot, "certonly", "--non-interactive", "--agree-tos", "--no-eff-email"),
            *("--email", given["email"], "--config-dir", str(home)),
            *("--work-dir", given["work_directory"], "--logs-dir", given["log_directory"]),
            # Of the same arguments, certbot renews a certificate that expires within 30 days.
            *(["--keep-until-expiring"] if former == wanted else ["--force-renewal"]),
            *("--renew-with-new-domains", *wanted),
        ]
        code, out, err = module.run_command(command)
        if code:
            problem = f"certbot obtained no certificate: {words_of(out + chr(10) + err)}"
        else:
            changed = True
            state.write_text(json.dumps(wanted))
    if not problem and read_lineage(lineage):
        # Whatever came of the hook. An interrupted run may have ended before it, too.
        environment = {"RENEWED_LINEAGE": str(lineage)}
        code, out, err = module.run_command(given["hook"], environ_update=environment)
        if code:
            problem = words_of(out + err)
        else:
            changed = changed or "nothing to change" not in out
    if problem:
        module.warn(
            f"{problem} nginx continues to serve the certificate that it has. The next run retries."
        )
    module.exit_json(
        changed=changed,
        reason=reason,
        obtained=read_lineage(lineage) is not None and state.exists(),
        problem=problem,
        installed=True,
    )


if __name__ == "__main__":
    main()
