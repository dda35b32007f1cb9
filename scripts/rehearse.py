"""Rehearse every operation on a staging cluster of its own while clients talk.

Deploys, a rollback, another setting, more and fewer workers, a host more and a host less, a host
that restarts, another value for every secret. The clients' ledgers say what it cost: what was lost,
came twice or out of order, how their connections ended, how long they were away, and how many came
back in one second. Ends with 0 where nothing was lost and every connection ended with 1012.

The steps kill-worker, kill-host, kill-all and chaos are accidents. They run only if STEPS names
them. In that case, connections may end with any code.

The reports, and a plot of the sockets of every worker over time, are in .rehearsal/.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

import chaos
import commands
from commands import ROOT

DIRECTORY = ROOT / ".rehearsal"
INVENTORY = DIRECTORY / "inventory"
STAGING = ROOT / "inventories" / "staging"
GENERATED = "generated.yml"
CREDENTIALS = DIRECTORY / "credentials.json"
PYTHON = sys.executable
OPERATE = ROOT / "scripts" / "operate"
SERVICE_RESTART = 1012
ACCIDENTS = {"kill-worker", "kill-host", "kill-all", "chaos"}


class RehearsalError(Exception):
    """A step has failed; printed without a traceback."""


def run(what: str, *command: str | Path, expect: int = 0) -> str:
    """Run a program of the repository; its output goes into a file named after what it does."""
    log = DIRECTORY / f"{what.replace(' ', '-')}.log"
    # On a real cluster the controller takes no processor time from the workers.
    result = commands.run(["nice", *command], merge=True)
    log.write_text(result.stdout)
    if (result.returncode != 0) != (expect != 0):
        ending = "\n".join(result.stdout.splitlines()[-30:])
        raise RehearsalError(
            f"{what}: exited with status {result.returncode}. End of {log}:\n{ending}"
        )
    return result.stdout


def cluster(*arguments: str) -> list[str]:
    """Return the command of the program that makes staging hosts, for this rehearsal's."""
    program = str(ROOT / "scripts" / "staging" / "cluster.py")
    return [PYTHON, program, f"--inventory={INVENTORY}", "--name=rehearsal", *arguments]


def docker(*arguments: str) -> str:
    """Run the engine's client."""
    return run(f"docker {arguments[0]}", ROOT / "scripts" / "staging" / "docker", *arguments)


class Rehearsal:
    """The cluster, what its inventory says beside the staging one's, and its application.

    Args:
        server: the ASGI server of the workers.
        layer: their channel layer.
    """

    def __init__(self, server: str, layer: str) -> None:
        self.settings: dict[str, Any] = {"channels_server": server, "channels_layer": layer}
        # Additional app hosts, which the staging inventory does not have.
        self.more_hosts: list[str] = []
        # A copy of the workspace: its lock says what the application needs.
        workspace = DIRECTORY / "workspace"
        self.application = workspace / "app"
        shutil.rmtree(workspace, ignore_errors=True)
        (workspace / "kit").mkdir(parents=True)
        for name in ("pyproject.toml", "uv.lock", "kit/pyproject.toml"):
            shutil.copy(ROOT / name, workspace / name)
        shutil.copytree(
            ROOT / "app",
            self.application,
            ignore=shutil.ignore_patterns("__pycache__", "db.sqlite3"),
        )
        self.settings["channels_source"] = str(self.application)
        self.releases = 0
        # The clients that talk meanwhile, from when they are started.
        self.clients: subprocess.Popen[str]

    def write_inventory(self) -> None:
        """Write the inventory: a copy of the staging inventory, and the rehearsal's changes."""
        INVENTORY.mkdir(parents=True, exist_ok=True)
        for path in INVENTORY.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != GENERATED:
                path.unlink()
        ignored = shutil.ignore_patterns(GENERATED)
        shutil.copytree(STAGING, INVENTORY, ignore=ignored, dirs_exist_ok=True)
        variables = INVENTORY / "group_vars" / "all"
        variables.mkdir(parents=True, exist_ok=True)
        # If all.yml and the directory all exist, Ansible reads only the directory.
        if (file := variables.with_suffix(".yml")).exists():
            file.replace(variables / file.name)
        # Of several files in a directory, Ansible uses the values of the last one.
        (variables / "zz-rehearsal.yml").write_text(yaml.safe_dump(self.settings))
        more = {"channels": {"hosts": dict.fromkeys(self.more_hosts)}}
        (INVENTORY / "rehearsal.yml").write_text(yaml.safe_dump(more))

    def generated(self, part: str = "vars") -> dict[str, Any]:
        """Return what was generated for this cluster: secrets, users, the edge's port; or hosts."""
        content = yaml.safe_load((INVENTORY / GENERATED).read_text())
        found: dict[str, Any] = content["all"][part]
        return found

    def converge(self, what: str) -> None:
        """Bring the cluster to its inventory."""
        self.write_inventory()
        run(what, OPERATE, INVENTORY, "converge")

    def bring_up(self) -> None:
        """Make the hosts, and their cluster."""
        self.write_inventory()
        run("hosts", *cluster("up", "--edge-port=0"))
        self.converge("first converge")

    def release(self, what: str, *arguments: str) -> None:
        """Deploy an application that has changed."""
        self.releases += 1
        marker = self.application / "chat" / "urls.py"
        original = (ROOT / "app" / "chat" / "urls.py").read_text()
        marker.write_text(f"{original}# Release {self.releases} of the rehearsal.\n")
        run(what, OPERATE, INVENTORY, "deploy", *arguments)

    def deploy(self, times: int) -> None:
        """Deploy, one release after the other."""
        for number in range(1, times + 1):
            with timed(f"deploy {number}"):
                self.release(f"deploy {number}")

    def roll_back(self) -> None:
        """Go back to the release before."""
        run("rollback", OPERATE, INVENTORY, "rollback")

    def change_a_setting(self) -> None:
        """Change what workers are started with."""
        sample = yaml.safe_load((STAGING / "group_vars" / "all" / "application.yml").read_text())
        self.settings["channels_environment"] = {**sample["channels_environment"], "REHEARSAL": "1"}
        self.converge("setting")

    def change_the_layer(self) -> None:
        """From one channel layer to the other, and back."""
        former = self.settings["channels_layer"]
        for kind in ("core" if former == "fanout" else "fanout", former):
            self.settings["channels_layer"] = kind
            with timed(f"channels_layer: {kind}"):
                self.converge(f"layer {kind}")

    def scale_the_workers(self) -> None:
        """Two workers a host, three, two."""
        for count in (3, 2):
            self.settings["cluster_workers_per_host"] = count
            with timed(f"{count} workers per host"):
                self.converge(f"{count} workers")

    def add_and_remove_a_host(self) -> None:
        """Two app hosts, three, two."""
        self.more_hosts = ["app3"]
        self.write_inventory()
        with timed("add a host"):
            run("third host", *cluster("up"))
            self.converge("a host more")
        with timed("remove a host"):
            run("drain app3", OPERATE, INVENTORY, "drain", "app3")
            self.more_hosts = []
            self.converge("a host less")
            run("third host removed", *cluster("up"))

    def restart_a_host(self) -> None:
        """Stop a host as a reboot does, and start it."""
        # Another checkout's rehearsal has an app2, too.
        container = self.generated("hosts")["app2"]["staging_container"]
        docker("stop", "--time", "120", container)
        docker("start", container)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(RehearsalError):
                run(
                    "host back",
                    ROOT / "scripts/ansible-playbook",
                    "-i",
                    INVENTORY,
                    "playbooks/verify.yml",
                )
                return
        raise RehearsalError("app2 did not come back within 120 s. See host-back.log.")

    def kill(self, *units: tuple[str, str]) -> None:
        """Kill workers, and wait until they are back."""
        for host, unit in units:
            run(f"killed on {host}", *cluster("ssh", host, f"sudo systemctl kill -s KILL '{unit}'"))
        wait_until_connected(self.clients)
        playbook = ROOT / "scripts/ansible-playbook"
        run("verified", playbook, "-i", INVENTORY, "playbooks/verify.yml")

    def cause_chaos(self) -> None:
        """Cause every accident of chaos.py."""

        def ssh(host: str, command: str) -> str:
            try:
                return run(f"chaos on {host}", *cluster("ssh", host, command))
            except RehearsalError as error:
                raise OSError(str(error)) from None

        made = self.generated()
        chaos.Chaos(
            ssh,
            docker,
            self.generated("hosts"),
            chaos.Api(
                f"http://127.0.0.1:{made['staging_edge_port']}",
                made["sample_users"],
                "rehearsal-1",
            ),
            connected_since,
            DIRECTORY / "chaos.md",
        ).run()
        # make verify reports a unit that systemd has restarted often; these were the accidents.
        for host in self.generated("hosts"):
            ssh(host, "sudo systemctl reset-failed")
        print("\n     ", end="")

    def rotate_every_secret(self) -> None:
        """Give every secret another value, the signing keys in two runs.

        A third one takes away the former keys: when all that they have signed has expired.
        """
        values = self.generated()
        new = {name: secrets.token_hex(32) for name in ("channels_secret_key", "sample_jwt_key")}
        for name in (
            "postgres_password",
            "redis_layer_password",
            "redis_broker_password",
            "channels_probe_token",
        ):
            self.settings[name] = secrets.token_hex(32)
        for name, value in new.items():
            self.settings[f"{name}_fallbacks"] = [value]
        with timed("passwords, and new keys as fallbacks"):
            self.converge("rotation 1")
        for name, value in new.items():
            self.settings[name] = value
            self.settings[f"{name}_fallbacks"] = [values[name]]
        with timed("new keys sign"):
            self.converge("rotation 2")


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    """Say what is done, and how long it took."""
    print(f"   {what} ...", end=" ", flush=True)
    began = time.monotonic()
    yield
    print(f"{time.monotonic() - began:.1f} s", flush=True)


def start_load(rehearsal: Rehearsal, options: argparse.Namespace) -> subprocess.Popen[str]:
    """Start the clients; they talk until they are told to stop."""
    made = rehearsal.generated()
    rooms = [f"rehearsal-{number}" for number in range(1, options.rooms + 1)]
    program = (
        "from chat.models import Room\n"
        f"for name in {rooms!r}: Room.objects.get_or_create(name=name, defaults={{'title': name}})"
    )
    run("rooms", *cluster("ssh", "app1", f'sudo channels-manage shell -c "{program}"'))
    CREDENTIALS.touch(mode=0o600)
    CREDENTIALS.write_text(json.dumps(made["sample_users"]))
    limits = [
        *("--expect-codes", str(SERVICE_RESTART)),
        *("--max-recovery-p99", str(options.max_away)),
    ]
    url = f"http://127.0.0.1:{made['staging_edge_port']}"
    trusted = {}
    if options.tls:
        url = f"https://127.0.0.1:{made['staging_edge_tls_port']}"
        # Where OpenSSL looks for the certificate authorities that a client trusts.
        authority = Path(made["nginx_tls_certificate"]).with_name("ca.pem")
        trusted = {"SSL_CERT_FILE": str(authority)}
    command = [
        *(PYTHON, "-m", "channels_kit.load", "run"),
        *("--url", url),
        *(f"--room={room}" for room in rooms),
        *("--adapter", "chat.load_adapter:RoomAdapter", "--credentials", str(CREDENTIALS)),
        *("--clients", str(options.clients), "--rate", str(options.rate), "--duration", "36000"),
        *("--connect-rate", "50", "--reconnect-rate", "inf"),
        *([] if set(options.steps) & ACCIDENTS else limits),
        *("--timeline", str(DIRECTORY / "timeline.json"), "--json", str(DIRECTORY / "load.json")),
    ]
    with (DIRECTORY / "load.log").open("w") as log:
        # They end when this program tells them to, or when it is killed: at 36000 s otherwise.
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "INT", *command],
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT / "app"), "PATH": "/usr/bin:/bin", **trusted},
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def end_load(clients: subprocess.Popen[str]) -> int:
    """Tell the clients to end; return what their ledgers say."""
    if clients.poll() is None:
        clients.send_signal(signal.SIGINT)
    try:
        return clients.wait(commands.PATIENCE)
    except subprocess.TimeoutExpired:
        clients.kill()
        clients.wait()
        raise RehearsalError(
            f"the clients did not end within {commands.PATIENCE:.0f} s and were killed;"
            f" see {DIRECTORY / 'load.log'}"
        ) from None


def wait_until_connected(clients: subprocess.Popen[str]) -> None:
    """Wait until the clients say, from now on, that all of them are connected."""
    log = DIRECTORY / "load.log"
    said = len(log.read_text())
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if clients.poll() is not None:
            raise RehearsalError(
                f"the clients exited with status {clients.returncode}; see {log}:\n"
                + log.read_text()[-2000:]
            )
        for line in log.read_text()[said:].splitlines():
            connected = re.search(r"(\d+) of (\d+) connected", line)
            if connected and connected[1] == connected[2]:
                return
        time.sleep(0.2)
    raise RehearsalError(f"not all clients connected within 300 s; see {log}")


def connected_since() -> float | None:
    """Return the time since which all clients are connected, in seconds of the epoch, or None."""
    since = None
    for line in (DIRECTORY / "load.log").read_text().splitlines():
        if said := re.match(r"(\S+) .*?(\d+) of (\d+) connected", line):
            if said[2] != said[3]:
                since = None
            elif since is None:
                since = datetime.fromisoformat(said[1]).timestamp()
    return since


def remove() -> None:
    """Remove the cluster, and say how where that fails."""
    if not INVENTORY.exists():
        return
    with timed("remove the cluster"):
        result = commands.run(cluster("down"), merge=True)
    if result.returncode:
        print(f"{result.stdout}\nSome hosts may still exist. Remove them:", file=sys.stderr)
        print(f"  {' '.join(cluster('down'))}", file=sys.stderr)


def main() -> int:
    """Rehearse what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--rate", type=float, default=50, help="messages per second (default: 50)")
    parser.add_argument("--rooms", type=int, default=100, help="number of rooms (default: 100)")
    parser.add_argument(
        "--max-away", type=float, default=3.0, help="maximum p99 of the seconds away (default: 3)"
    )
    parser.add_argument("--server", default="uvicorn", choices=["uvicorn", "daphne", "hypercorn"])
    parser.add_argument("--layer", default="core", choices=["core", "pubsub", "fanout"])
    parser.add_argument("--deploys", type=int, default=3, help="number of deploys (default: 3)")
    parser.add_argument("--tls", action="store_true", help="clients connect by wss://")
    parser.add_argument("--keep", action="store_true", help="do not remove the cluster at the end")
    parser.add_argument("steps", nargs="*", help="steps to run (default: all)")
    options = parser.parse_args()

    try:
        with commands.locked("rehearsal", "make rehearse"):
            return rehearse(parser, options)
    except (RehearsalError, chaos.NotBackError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1


def rehearse(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Rehearse the steps; return the status to end with."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    rehearsal = Rehearsal(options.server, options.layer)
    steps: dict[str, Callable[[], None]] = {
        "deploy": lambda: rehearsal.deploy(options.deploys),
        "rollback": rehearsal.roll_back,
        "setting": rehearsal.change_a_setting,
        "layer": rehearsal.change_the_layer,
        "workers": rehearsal.scale_the_workers,
        "host": rehearsal.add_and_remove_a_host,
        "reboot": rehearsal.restart_a_host,
        "rotate": rehearsal.rotate_every_secret,
        "kill-worker": lambda: rehearsal.kill(("app1", "channels-web@8001")),
        "kill-host": lambda: rehearsal.kill(("app1", "channels-web@*")),
        "chaos": rehearsal.cause_chaos,
        "kill-all": lambda: rehearsal.kill(("app1", "channels-web@*"), ("app2", "channels-web@*")),
    }
    unknown = set(options.steps) - set(steps)
    if unknown:
        parser.error(f"unknown steps: {', '.join(sorted(unknown))}; steps: {', '.join(steps)}")

    try:
        with commands.interruptible():
            with timed("bring up the cluster"):
                rehearsal.bring_up()
            rehearsal.clients = start_load(rehearsal, options)
            try:
                wait_until_connected(rehearsal.clients)
                for name in options.steps or [step for step in steps if step not in ACCIDENTS]:
                    with timed(name):
                        steps[name]()
            finally:
                code = end_load(rehearsal.clients)
    except KeyboardInterrupt:
        return commands.interrupted("\nInterrupted. make rehearse starts again from the beginning.")
    finally:
        CREDENTIALS.unlink(missing_ok=True)
        if not options.keep:
            remove()
    print((DIRECTORY / "load.log").read_text())
    plot = [PYTHON, "-m", "channels_kit.load", "plot", str(DIRECTORY / "timeline.json")]
    run("plot", *plot, "--output", str(DIRECTORY / "sockets.svg"))
    print(f"The sockets of every worker over time: {DIRECTORY / 'sockets.svg'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
