"""A converged cluster as its tests see it: hosts, workers, the edge, the proof."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import testinfra
import yaml
from cluster import APPLICATION_SECRETS, SECRETS
from testinfra.host import Host
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from channels_kit.paths import READY, probe_path
from harness.ansible import ROOT, Run, deploy, play, read_facts
from harness.wait import eventually

# Connects as anybody can, and says in one word what came of it.
CONNECT = """\
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5).close()
    print("open")
except OSError as error:
    print(type(error).__name__)
"""

# Asks every worker, all at once, and prints the statuses.
ASK = """\
import concurrent.futures, json, sys, urllib.error, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
def ask(url):
    try:
        return opener.open(url, timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return str(error)
urls = sys.argv[1:]
with concurrent.futures.ThreadPoolExecutor(len(urls)) as pool:
    print(json.dumps(dict(zip(urls, pool.map(ask, urls)))))
"""


def with_its_own(name: str, other: str) -> str:
    """Return a file of module_utils with another one in the place where it imports from it."""
    texts = [(ROOT / "plugins/module_utils" / f"{each}.py").read_text() for each in (name, other)]
    imported = re.sub("from __future__.*\n", "", texts[1])
    return re.sub(f"from ansible.module_utils.{other} import .*\n", lambda _: imported, texts[0])


# Prints the releases of a host, by what its modules are made of.
LIST_RELEASES = f"""\
{with_its_own("channels_releases", "channels_processes")}
import subprocess, sys
def run(command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
print(json.dumps(Releases(Layout(Path(sys.argv[1])), run).listed()))
"""


@dataclass(frozen=True)
class Worker:
    """A worker of the cluster.

    Attributes:
        name: what it answers with, HOST:PORT.
        host: where it runs.
        address: where it listens.
        port: the one port of its one process.
        url: its base URL.
    """

    name: str
    host: str
    address: str
    port: int
    url: str

    @property
    def unit(self) -> str:
        """The unit that runs it."""
        return f"channels-web@{self.port}.service"


@dataclass(frozen=True)
class Proof:
    """What channels_kit.probe said.

    Attributes:
        rc: its exit code.
        report: its report for programs.
        text: its report for people.
    """

    rc: int
    report: dict[str, Any]
    text: str

    def part(self, name: str) -> dict[str, Any]:
        """Return "directly" or "through the edge"."""
        parts: list[dict[str, Any]] = self.report["parts"]
        return next(part for part in parts if part["name"] == name)

    def proved(self, name: str) -> set[tuple[str, str]]:
        """Return the pairs of workers for which every message of a part arrived."""
        part = self.part(name)
        workers = {endpoint["name"]: endpoint["worker"] for endpoint in part["endpoints"]}
        verdicts: dict[tuple[str, str], list[bool]] = {}
        for pair in part["pairs"]:
            workers_of_pair = workers[pair["sender"]], workers[pair["receiver"]]
            verdicts.setdefault(workers_of_pair, []).append(pair["ok"])
        return {pair for pair, all_ok in verdicts.items() if all(all_ok)}


class Cluster:
    """The cluster of a scenario's inventory.

    Args:
        inventory: the inventory's directory.
        workspace: an empty directory of the tests' own.
    """

    def __init__(self, inventory: Path, workspace: Path) -> None:
        self.inventory = inventory
        generated = yaml.safe_load((inventory / "generated.yml").read_text())["all"]
        self.variables: dict[str, Any] = generated["vars"]
        # What the inventory comes to, by host.
        self.facts = read_facts(inventory)
        some = next(iter(self.facts.values()))
        self.workers = [Worker(**worker) for worker in some["workers"]]
        # The interpreter of the release that runs, with its packages.
        self.release_python = f"{some['home']}/current/python"
        # Where people reach the edge: the port that is published on this machine.
        self.origin = Origin(f"http://127.0.0.1:{self.variables['staging_edge_port']}")
        self.users: dict[str, str] = self.variables["sample_users"]
        # Every secret of the cluster, by the name of its variable or user.
        names = (*SECRETS, *APPLICATION_SECRETS)
        self.secrets = {name: self.variables[name] for name in names} | self.users
        self.ssh_config = workspace / "ssh_config"
        self.ssh_config.write_text(self._ssh_config(generated["hosts"], workspace))
        self.hosts: dict[str, Host] = {
            name: testinfra.get_host(
                f"ssh://{name}", ssh_config=str(self.ssh_config), controlpersist=0, sudo=True
            )
            for name in self.facts
        }

    def _ssh_config(self, hosts: dict[str, dict[str, str]], workspace: Path) -> str:
        lines = [
            f"IdentityFile {self.variables['ansible_ssh_private_key_file']}",
            *(
                option.removeprefix("-o ").replace("=", " ", 1)
                for option in self.variables["ansible_ssh_common_args"].split(" -o ")
            ),
            f"User {self.variables['ansible_user']}",
            "IdentitiesOnly yes",
            "BatchMode yes",
            "LogLevel ERROR",
            # One connection a host for all tests.
            "ControlMaster auto",
            f"ControlPath {workspace}/%n",
            "ControlPersist 60",
        ]
        for name, variables in hosts.items():
            lines += [f"Host {name}", f"HostName {variables['ansible_host']}"]
        return "\n".join(lines) + "\n"

    # Hosts

    def group(self, name: str) -> list[str]:
        """Return the hosts of a group."""
        return [host for host, facts in self.facts.items() if name in facts["groups"]]

    def fact(self, name: str, host: str | None = None) -> Any:
        """Return a fact of a host; of the first one where all agree."""
        return self.facts[host or next(iter(self.facts))][name]

    def ssh(
        self, host: str, *command: str, stdin: str = "", options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the user who logs in; unlike testinfra's, it takes standard input."""
        return subprocess.run(
            ["ssh", "-F", self.ssh_config, *options, host, shlex.join(command)],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )

    def python(self, host: str, program: str, *arguments: str, user: str = "root") -> str:
        """Run a small program on a host and return what it printed."""
        result = self.ssh(host, "sudo", "-u", user, "python3", "-", *arguments, stdin=program)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def connect_from(self, host: str, address: str, port: int) -> str:
        """Return what a host gets that connects to an address: "open", or the error's class."""
        return self.python(host, CONNECT, address, str(port), user="nobody")

    def show(self, host: str, unit: str, *properties: str) -> dict[str, str]:
        """Return properties of a unit."""
        shown = self.hosts[host].check_output(
            "systemctl show %s --property=%s", unit, ",".join(properties)
        )
        return dict(line.split("=", 1) for line in shown.splitlines())

    def process_of(self, worker: Worker) -> str:
        """Return the id of the process that a worker is."""
        return self.show(worker.host, worker.unit, "MainPID")["MainPID"]

    def nofile_of(self, host: str, process: str) -> tuple[int, int]:
        """Return the soft and the hard limit of open files that a process has."""
        limits = self.hosts[host].check_output("cat %s", f"/proc/{process}/limits")
        line = next(line for line in limits.splitlines() if line.startswith("Max open files"))
        return int(line.split()[3]), int(line.split()[4])

    def journals(self, since: float) -> Iterator[tuple[str, str]]:
        """Yield what the cluster's units wrote on each host."""
        units = ("channels-*", "nginx*", "redis-server@*", "postgresql@*")
        for name, host in self.hosts.items():
            options = " ".join(f"--unit={shlex.quote(unit)}" for unit in units)
            written = host.run(
                "journalctl --no-pager --output=short-precise --lines=40"
                f" --since=@{since:.0f} {options}"
            )
            yield name, written.stdout

    def releases(self) -> dict[str, list[dict[str, Any]]]:
        """Return what each app host has of releases, as the module channels_release_info."""
        return {
            host: json.loads(self.python(host, LIST_RELEASES, self.fact("home", host)))
            for host in self.group("channels")
        }

    def running(self) -> set[str]:
        """Return the releases that processes run."""
        found = self.releases().values()
        return {each["release"] for listed in found for each in listed if each["runs"]}

    # Workers

    def ready(self) -> dict[str, Any]:
        """Return what each worker says when asked if it is ready: a status, or an error."""
        urls = {worker.name: worker.url + READY for worker in self.workers}
        host = self.workers[0].host
        answers = json.loads(self.python(host, ASK, *urls.values(), user="nobody"))
        return {name: answers[url] for name, url in urls.items()}

    def states(self) -> dict[str, str]:
        """Return the state of each worker's unit."""
        return {
            worker.name: self.show(worker.host, worker.unit, "ActiveState")["ActiveState"]
            for worker in self.workers
        }

    def wait_until_ready(self) -> None:
        """Wait until every worker is ready, and its unit thinks so too."""
        eventually(self.ready, lambda said: set(said.values()) == {200}, "all workers ready")
        eventually(self.states, lambda of: set(of.values()) == {"active"}, "all units active")

    def prove(self, hold: int = 0) -> Proof:
        """Run the proof as playbooks/verify.yml does: by channels-prove, on the first app host.

        Args:
            hold: seconds that its sockets are silent, and that the application's are held.
        """
        command = [
            *("channels-prove", "current", f"--hold={hold}"),
            f"--edge={self.fact('edge_urls')[0]}",
            *(f"--worker={worker.name}={worker.url}" for worker in self.workers),
        ]
        script = f"""
            directory=$(sudo -u {self.fact("user")} mktemp -d) || exit 99
            {shlex.join(command)} --json "$directory/report.json" >&2
            code=$?
            cat "$directory/report.json"
            rm -r "$directory"
            exit $code
        """
        result = self.ssh(self.group("channels")[0], *("sudo", "sh", "-c", script))
        assert result.returncode in (0, 1), result.stderr
        return Proof(result.returncode, json.loads(result.stdout), result.stderr)

    # The edge

    @contextmanager
    def probe_socket(self, run: str, endpoint: str) -> Iterator[tuple[ClientConnection, str]]:
        """Open a probe socket through the edge, from this machine; yield it and its worker."""
        url = self.origin.replace("http", "ws", 1) + probe_path(run, endpoint)
        token = self.variables["channels_probe_token"]
        with connect(
            url,
            origin=self.origin,
            additional_headers={"Authorization": f"Bearer {token}"},
            compression=None,
            proxy=None,
            ping_interval=None,
            close_timeout=5,
        ) as connection:
            hello = json.loads(connection.recv(timeout=10))
            assert hello["type"] == "hello", hello
            yield connection, hello["worker"]

    # Ansible

    def converge(self, *arguments: str, inventory: Path | None = None) -> Run:
        """Run site.yml as an operator does."""
        return play(inventory or self.inventory, "site.yml", *arguments)

    def deploy(self, *arguments: str) -> Run:
        """Deploy, roll back or restart as an operator does."""
        return deploy(self.inventory, *arguments)
