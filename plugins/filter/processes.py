"""Filters about channels_processes: what runs beside the workers, on which host, from which unit.

A process is an entry of ``channels_processes``: one of ``celery``, ``runworker``, ``manage`` and
``command``, and how it runs. ``plugins/test/processes.py`` says what is allowed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

Process = Mapping[str, Any]
Processes = Mapping[str, Process]
Unit = dict[str, Any]

PREFIX = "channels-process-"
DEFAULT_CONCURRENCY = 2
BEAT_DIRECTORY = "channels-beat"
"""Below /var/lib: where a beat keeps when each task ran last."""


def runs_once(process: Process) -> bool:
    """Return whether a process runs on one host of the cluster."""
    return process.get("celery") == "beat" or process.get("once") is True


def instances(process: Process) -> int:
    """Return how many of a process a host runs."""
    return int(process.get("instances", 1))


def file_name(name: str, process: Process) -> str:
    """Return the name of a process' unit file: a template where there are several."""
    return f"{PREFIX}{name}{'@' if instances(process) > 1 else ''}.service"


def unit_names(name: str, process: Process) -> list[str]:
    """Return the names of a process' units on a host."""
    if instances(process) == 1:
        return [f"{PREFIX}{name}.service"]
    return [f"{PREFIX}{name}@{number}.service" for number in range(1, instances(process) + 1)]


def ports(process: Process, layer_port: int, broker_port: int) -> list[int]:
    """Return the ports of servers, of which a process that takes work is connected to one.

    Empty where it is not known: then the process counts as ready once it has run for some time.
    """
    if "connected_to" in process:
        return [int(port) for port in process["connected_to"]]
    if "runworker" in process:
        return [layer_port]
    # Some applications have one Redis for both, and name it by REDIS_URL: that of the layer.
    return [broker_port, layer_port] if process.get("celery") == "worker" else []


def process_units(
    processes: Processes,
    host: str,
    holders: Mapping[str, str],
    layer_port: int | str,
    broker_port: int | str,
) -> list[Unit]:
    """Return the units of processes that a host runs, without their revisions.

    Args:
        processes: those of the host.
        host: the host's name in the inventory.
        holders: the host of each process that runs once; a process that is not named runs here.
        layer_port: where the channel layer is.
        broker_port: where Celery's broker is.
    """
    return [
        {
            "name": unit,
            "label": f"{host}:{unit.removeprefix(PREFIX).removesuffix('.service')}",
            "connected_to": ports(process, int(layer_port), int(broker_port)),
        }
        for name, process in processes.items()
        if holders.get(name, host) == host
        for unit in unit_names(name, process)
    ]


def once(processes: Processes) -> Processes:
    """Return the processes that run on one host of the cluster."""
    return {name: process for name, process in processes.items() if runs_once(process)}


def holders(
    hosts: Sequence[str], hostvars: Mapping[str, Any], told: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """Return the host of each process that runs once; empty where every host is drained.

    The host that has it keeps it, also when a host that comes before is back: nothing that runs
    is moved without need. A host that does not answer is not known to be without it, and keeps it
    too: better none for some time than two.

    Args:
        hosts: the app hosts, in the inventory's order.
        hostvars: the variables of all hosts.
        told: what channels_release_info has told of those that answered, each with its ``host``.
    """
    known = {each["host"]: each for each in told}
    found: dict[str, str] = {}
    wanted: dict[str, list[tuple[str, Process]]] = {}
    for host in hosts:
        for name, process in once(processes_of(hostvars, host)).items():
            wanted.setdefault(name, []).append((host, process))
    for name, places in wanted.items():
        fit = [each for each in places if not known.get(each[0], {}).get("drained")]
        having = [
            (host, process)
            for host, process in fit
            if set(unit_names(name, process)) & set(known.get(host, {}).get("enabled", ()))
        ]
        found[name] = next((host for host, _ in [*having, *fit]), "")
    return found


def processes_of(hostvars: Mapping[str, Any], host: str) -> Processes:
    """Return the processes that the inventory gives a host; none of what is no mapping."""
    given = hostvars[host].get("channels_processes") or {}
    return given if isinstance(given, Mapping) else {}


def process_count(hosts: Sequence[str], hostvars: Mapping[str, Any]) -> int:
    """Return how many processes there are beside the workers, in the whole cluster.

    Each may have connections to the database of its own: so of a Celery worker, each child.
    """
    shared: dict[str, int] = {}
    count = 0
    for host in hosts:
        for name, process in processes_of(hostvars, host).items():
            try:
                number = instances(process)
                if process.get("celery") == "worker":
                    number *= int(process.get("concurrency", DEFAULT_CONCURRENCY))
            except (AttributeError, TypeError, ValueError):
                continue  # the preflight refuses the process itself
            if runs_once(process):
                shared[name] = max(number, shared.get(name, 0))
            else:
                count += number
    return count + sum(shared.values())


def uses_celery(processes: Processes) -> bool:
    """Return whether a process is one of Celery."""
    return any("celery" in process for process in processes.values())


def process_files(
    template: str, processes: Processes, host: str, directory: str, celery: str | None
) -> dict[str, str]:
    """Return the unit file of each process, by name, without its revision.

    Args:
        template: the unit file; it has @DESCRIPTION@, @LABEL@, @COMMAND@ and @LINES@.
        processes: those of the host.
        host: the host's name in the inventory.
        directory: the release.
        celery: Celery's application; empty if none is known.

    Raises:
        AnsibleFilterError: a process of Celery has no application.
    """
    made = {}
    for name, process in processes.items():
        several = instances(process) > 1
        label = f"{name}@%i" if several else name
        if "celery" in process and not celery:
            raise AnsibleFilterError(
                f"channels_processes has the Celery process {name}, but no Celery application was"
                " found in the release. Set channels_celery_application: a module, or"
                " module:attribute"
            )
        values = {
            "@DESCRIPTION@": f"Process {label} of the application",
            "@LABEL@": f"{host}:{label}",
            "@COMMAND@": command(name, process, host, directory, celery or ""),
            "@LINES@": "\n".join(lines(name, process)),
        }
        made[file_name(name, process)] = filled(template, values)
    return made


def filled(template: str, values: Mapping[str, str]) -> str:
    """Return a template with its marks replaced; what replaces one is no template itself."""
    return re.sub("|".join(values), lambda found: values[found[0]], template)


def lines(name: str, process: Process) -> list[str]:
    """Return what the unit file of a process has beside the command."""
    if process.get("celery") == "worker":
        # The first SIGTERM lets the tasks in hand end; it goes to the main process alone.
        return ["KillMode=mixed"]
    if process.get("celery") == "beat":
        return [f"StateDirectory={BEAT_DIRECTORY}/{name}"]
    return []


def command(name: str, process: Process, host: str, directory: str, celery: str) -> str:
    """Return the command line of a process, as systemd reads it."""
    python = f"{directory}/python"
    node = f"{name}-%i" if instances(process) > 1 else name
    if process.get("celery") == "worker":
        concurrency = process.get("concurrency", DEFAULT_CONCURRENCY)
        words = [*(python, "-m", "celery", "--app", celery, "worker")]
        words += [f"--concurrency={concurrency}", "--loglevel=INFO"]
        words += ["--without-gossip", "--without-mingle"]
        words += [f"--queues={','.join(process['queues'])}"] if process.get("queues") else []
        words += process.get("arguments", [])
        return f"{quoted(words)} --hostname={node}@{quoted([host])}"
    if process.get("celery") == "beat":
        schedule = f"--schedule=/var/lib/{BEAT_DIRECTORY}/{name}/schedule"
        words = [*(python, "-m", "celery", "--app", celery, "beat", "--loglevel=INFO", schedule)]
        return quoted([*words, *process.get("arguments", [])])
    if "runworker" in process:
        # A channel's name may begin with a dash.
        return quoted([python, "manage.py", "runworker", "--", *process["runworker"]])
    if "manage" in process:
        return quoted([python, "manage.py", *shlex.split(process["manage"])])
    program, *arguments = process["command"]
    return quoted([python if program == "python" else program, *arguments])


def quoted(words: Sequence[Any]) -> str:
    """Return words as a command line of a unit file has them: systemd changes none of them."""
    return " ".join(map(_quoted, map(str, words)))


def _quoted(word: str) -> str:
    # Specifiers begin with a percent sign, variables with a dollar sign: systemd.service(5).
    text = word.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[A-Za-z0-9_@%+=:,./$-]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class FilterModule:
    """What Ansible asks for filters."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "channels_holders": holders,
            "channels_once": once,
            "channels_process_files": process_files,
            "channels_process_units": process_units,
            "channels_uses_celery": uses_celery,
            "cluster_process_count": process_count,
        }
