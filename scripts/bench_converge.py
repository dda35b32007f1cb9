"""Time site.yml on four bare hosts against plain apt-get and pip of the same packages.

Both run on fresh hosts made for the purpose, all four hosts at once. What site.yml takes beyond the
plain run is what its own work costs: configuration, services, migrations, workers that are ready.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import yaml

import commands
from commands import ROOT

BIN = ROOT / ".venv" / "bin"
NAME = "bench"
INVENTORY = commands.STATE / "bench-inventory"
GOAL = 1.3


def read(path: str) -> dict[str, Any]:
    """Return a YAML file of the repository."""
    content: dict[str, Any] = yaml.safe_load((ROOT / path).read_text())
    return content


def cluster(*arguments: str, stdin: str | None = None) -> str:
    """Run scripts/staging/cluster.py for the hosts of this benchmark; return what it printed."""
    program = [BIN / "python", ROOT / "scripts/staging/cluster.py"]
    result = commands.run(
        [*program, "--inventory", INVENTORY, "--name", NAME, *arguments], stdin=stdin
    )
    if result.returncode:
        sys.exit(f"{' '.join(arguments[:2])}: {result.stderr[-2000:]}")
    return result.stdout


def read_groups() -> dict[str, list[str]]:
    """Return the hosts of each of the kit's groups."""
    groups: dict[str, list[str]] = json.loads(cluster("groups"))
    return groups


def fresh_hosts() -> None:
    """Make the hosts anew."""
    cluster("down")
    INVENTORY.mkdir(parents=True, exist_ok=True)
    cluster("up", "--edge-port", "0")


def converge() -> float:
    """Return the seconds that site.yml takes on fresh hosts."""
    fresh_hosts()
    start = time.monotonic()
    result = commands.run(
        [ROOT / "scripts" / "ansible-playbook", "-i", INVENTORY, "site.yml"], merge=True
    )
    seconds = time.monotonic() - start
    if result.returncode:
        sys.exit(f"site.yml failed:\n{result.stdout[-4000:]}")
    return seconds


def plain(requirements: str) -> float:
    """Return the seconds that apt-get and pip take on fresh hosts, for the same packages."""
    fresh_hosts()
    every_host = read("roles/base/vars/main.yml")["_base_required_packages"]
    by_group = read("roles/cluster/defaults/main.yml")["cluster_packages"]
    groups = read_groups()
    hosts = {host for members in groups.values() for host in members}

    def install(host: str) -> None:
        packages = list(every_host)
        for group, members in groups.items():
            if host in members:
                packages += by_group.get(group, [])
        if host in groups["channels"]:
            # site.yml brings its Python packages along; plain pip needs a place for them.
            packages.append("python3-venv")
        script = (
            "set -e; export DEBIAN_FRONTEND=noninteractive; apt-get update -qq;"
            f" apt-get install -qq --yes --no-install-recommends {' '.join(packages)} </dev/null"
        )
        if host in groups["channels"]:
            script += (
                "; python3 -m venv /opt/venv; cat > /opt/requirements.txt;"
                " /opt/venv/bin/pip install --quiet --no-cache-dir"
                " --require-hashes --requirement /opt/requirements.txt"
            )
        cluster("ssh", host, f"sudo sh -c '{script}'", stdin=requirements)

    start = time.monotonic()
    with ThreadPoolExecutor() as pool:
        list(pool.map(install, hosts))
    return time.monotonic() - start


def main() -> int:
    """Measure, and print every run and the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    rounds = parser.parse_args().rounds
    with commands.locked(NAME, "make bench-converge"):
        return measure(rounds)


def measure(rounds: int) -> int:
    """Measure; return the status to end with."""
    INVENTORY.mkdir(parents=True, exist_ok=True)
    for path in (ROOT / "inventories" / "staging").iterdir():
        link = INVENTORY / path.name
        # The benchmark writes its own generated.yml.
        if link.name != "generated.yml":
            link.unlink(missing_ok=True)
            link.symlink_to(path)
    converged, plainly = [], []
    try:
        with commands.interruptible():
            for number in range(1, rounds + 1):
                converged.append(converge())
                print(f"round {number} of {rounds}: site.yml {converged[-1]:.1f} s", flush=True)
                app_host = read_groups()["channels"][0]
                requirements = cluster(
                    "ssh", app_host, "cat /srv/channels/current/requirements.txt"
                )
                plainly.append(plain(requirements))
                print(
                    f"round {number} of {rounds}: apt-get and pip {plainly[-1]:.1f} s", flush=True
                )
    except KeyboardInterrupt:
        return commands.interrupted("\nInterrupted; removing the hosts.")
    finally:
        cluster("down")
        shutil.rmtree(INVENTORY)
    ratio = statistics.median(converged) / statistics.median(plainly)
    print(
        f"site.yml on four bare hosts: {statistics.median(converged):.1f} s,"
        f" apt-get and pip alone: {statistics.median(plainly):.1f} s,"
        f" ratio {ratio:.2f} (goal: {GOAL} or less)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
