"""Serve the stand-in of Hetzner's API on this machine, for make cluster by hand.

Used as ``PYTHONPATH=scripts .venv/bin/python -m tests.cloud``: docs/terraform.md.
"""

from __future__ import annotations

import sys
import threading

import commands
from tests.cloud.account import TOKEN, provider_configuration
from tests.cloud.hetzner import Hetzner, serve
from tests.cloud.machines import machines_of_checkout


def main() -> None:
    """Serve until somebody interrupts; then remove everything."""
    sys.stdout.write("Making the image of the machines, if it is missing: some minutes.\n")
    sys.stdout.flush()
    with machines_of_checkout() as machines, serve(Hetzner(machines, TOKEN)) as endpoint:
        sys.stdout.write(
            "The stand-in of Hetzner's API runs. Set this in another shell:\n"
            f"  export HCLOUD_ENDPOINT={endpoint}\n"
            f"  export HCLOUD_TOKEN={TOKEN}\n"
            f"  export TF_CLI_CONFIG_FILE={provider_configuration()}\n"
            "this in inventories/ENV/hcloud.tfvars, with your addresses and keys:\n"
            f'  network = "{machines.free_subnet()}"\n'
            "and this in inventories/ENV/group_vars/all/cluster.yml, because all hosts share this"
            " machine:\n"
            "  cluster_sockets: 1000\n"
            f"  cluster_nofile: {machines.nofile()}\n"
            "  cluster_workers_per_host: 1\n"
            "Then: make cluster. At the end: make destroy, then Ctrl-C here, which removes all that"
            " is left: docs/terraform.md#try-it-without-an-account.\n"
        )
        sys.stdout.flush()
        try:
            threading.Event().wait()
        finally:
            commands.ignore_signals()
            sys.stdout.write("\nRemoving the machines.\n")
            sys.stdout.flush()


if __name__ == "__main__":
    commands.end_on_signals()
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(commands.INTERRUPTED)
