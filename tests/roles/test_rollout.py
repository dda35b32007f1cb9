"""What the playbooks do on which host and in which order, on hosts that are a word each.

The tasks are those of the role. What would look at units, restart them or write their files is an
action of the tests' own, and the commands of a host are programs that write down their words.
"""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .house import ROLE_NAMES, ROLES, ROOT, Run, Tree, defaults, finish, read_yaml, start
from .projects import KIT_LOCK, django_project, fake_uv, write
from .test_preflight import GOOD

OLD, NEW, BAD = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"
HOSTS = ("app1", "app2")
VERSION = "0.2.0"
WEB, CELERY = "channels-web@8001.service", "channels-process-celery.service"
BEAT = "channels-process-beat.service"
UNITS = (WEB, "channels-web@8002.service", CELERY)

# Answers by what the test says of a host, and writes down what it was asked.
ACTION = """
import json
import os
from pathlib import Path

from ansible.plugins.action import ActionBase

NAME = Path(__file__).stem


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        host = task_vars["inventory_hostname"]
        arguments = self._task.args
        units = [unit["name"] for unit in arguments.get("units", [])]
        told = [f"{NAME} {host}", arguments.get("state", ""), *(unit[9:-8] for unit in units)]
        if "number" in arguments:
            told.append(f"{arguments['number']}/{arguments['total']}")
        proof = arguments.get("proof", [])
        workers = [word[9:].split("=")[0] for word in proof if word.startswith("--worker=")]
        touched = [word[10:] for word in proof if word.startswith("--touched=")]
        if NAME == "channels_roll" and proof:
            short = [word for word in proof if not word.startswith("--touched=")]
            long = [*arguments["canary_proof"], "--hold=0"]
            assert short == long, "the short proof is the long one, but for its hold"
        told.append(f"proving {' '.join(workers)}" if workers else "")
        told.append(f"from and to {' '.join(touched)}" if touched else "")
        if NAME == "channels_proof":
            told.append(f"after {arguments.get('seconds', 0)} s")
        if NAME == "record_systemd":
            told += [str(arguments.get(name, "")) for name in ("name", "enabled")]
        if NAME == "record_copy":
            told.append(arguments["content"].strip())
        if NAME == "channels_release":
            told += [arguments.get("name", ""), str(arguments.get("time", ""))]
        if NAME == "host_checks":
            return {**result, "checks": [], "clock": []}
        if NAME == "channels_release_info":
            # By the directory: a host may ask for another one.
            asked = Path(arguments["home"]).name
            facts = json.loads(os.environ["KNOWN"])[asked]["facts"]
            broken = {name: facts[name] for name in ("failed", "msg") if name in facts}
            return {**result, **(broken or facts)}
        known = json.loads(os.environ["KNOWN"])[host]
        if NAME == "channels_lock":
            told += [arguments.get("release", ""), arguments.get("result", "")]
        if arguments.get("idle_only"):
            told[0] = f"idle {host}"
        with Path(os.environ["RECORD"]).open("a") as record:
            record.write(" ".join(filter(None, told)) + "\\n")
        if NAME == "channels_lock":
            refused = arguments["state"] == "present" and known["locked"]
            said = {"msg": "Locked by ann."} if refused else {}
            return {**result, **said, "refused": refused, "owner": {"who": "ada@desk"}}
        wrong = known["wrong"].get(NAME + (" wave" if "number" in arguments else ""))
        wrong = wrong or known["wrong"].get(f"{NAME} {arguments.get('state')}")
        if wrong:
            return {**result, "failed": True, "msg": wrong}
        # What a roll of this host has restarted runs the new release, until it is put back.
        record = Path(os.environ["RECORD"]).read_text().splitlines()
        rolls = [line for line in record if line.startswith("channels_roll")]
        own = [
            line
            for line in rolls
            if line.split()[1] == host and line.split()[2] not in ("drained", "removed")
        ]
        touched = bool(own) and "/" in own[-1]
        looked = {}
        for unit in arguments.get("units", []):
            told = known["units"].get(unit["name"])
            if told:
                revision = "bbbbbbbbbbbb-rolled" if touched else told["revision"]
                right = told["up_to_date"] or revision == unit.get("revision")
                looked[unit["name"]] = {**told, "revision": revision, "up_to_date": right}
                if touched and " reloaded " in own[-1] and told.get("replaceable"):
                    looked[unit["name"]]["retired"] = [told["process"]]
                if rolls and known["outage"]:
                    looked[unit["name"]] |= {"ready": False, "reason": "answers 503"}
                if own:
                    looked[unit["name"]] |= {"process": 5678}
        if NAME == "channels_servers":
            return {**result, "silent": known["silent"]}
        if NAME == "channels_roll" and arguments.get("state") == "resumed":
            resumed = [unit["name"] for unit in arguments["units"]]
            return {**result, "changed": True, "resumed": resumed, "lost": []}
        changed = arguments.get("state") != "gathered"
        told = {"units": looked, "seconds": 3.5, "memory_available": 10_000}
        if arguments.get("idle_only"):
            told["busy"] = [unit["name"] for unit in arguments["units"]]
        return {**result, "changed": changed, **told}
"""
UNIT = "unit of {{ channels_release.id | default('none') }}\n"
# These plays do not render the units once, as release.yml does; a lookup each time is slow.
LOOKUP = re.compile(r"lookup\('ansible\.builtin\.template', '[a-z@-]+\.service\.j2'\)")
PROGRAM = """#!/bin/sh
echo "$(basename "$0") $*" >> "$RECORD"
[ -z "${CHANNELS_CHECKS-}" ] || echo "checks $CHANNELS_CHECKS" >> "$RECORD"
case "$*" in
*--json=-*)
    printf '%s' '{"ok": true, "verdict": "Proved: wires (16 of 16 pairs).", "parts": [],'
    printf '%s' ' "pages": [], "sockets": [], "strangers": {}, "behaviour": [{"name": "handshake",'
    echo ' "subject": "edge", "status": "ok", "message": ""}]}' ;;
*) echo "Proved: wires (16 of 16 pairs)." ;;
esac
case "$*" in *"$FAILS"*) exit 1 ;; esac
"""


def unit(active: bool = True, revision: str = "", right: bool = False, ready: bool = True) -> Tree:
    """A unit as a look tells of it."""
    return {
        "active": active,
        "up_to_date": right,
        "outdated": active and not right,
        "ready": active and ready,
        "reason": "" if active and ready else "answers 503",
        "revision": revision,
        "process": 1234 if active else 0,
        "path": "/etc/systemd/system/channels-web@.service",
        "content": f"unit of {revision.partition('-')[0] or OLD}",
        "nofile_stale": False,
    }


RUNS = dict.fromkeys(UNITS, unit(revision=f"{OLD}-01234567"))
# Workers whose new process can be started beside the running one.
MODERN = {
    name: {**told, "replaceable": True, "memory": 100, "memory_left": None, "retired": []}
    if "web" in name
    else told
    for name, told in RUNS.items()
}
RIGHT = dict.fromkeys(UNITS, unit(revision=f"{NEW}-01234567", right=True))
SICK = dict.fromkeys(UNITS, unit(revision=f"{OLD}-01234567", ready=False))
NOTHING = dict.fromkeys(UNITS, unit(active=False))


def installed(name: str, deployed: int = 0, recorded: int = 0) -> Tree:
    """A release as channels_release_info tells of it."""
    told = {"release": name, "current": False, "bad": "", "runs": []}
    return {**told, "deployed": deployed or recorded, "recorded": recorded}


TARGET = {"python": "3.11.2", "machine": "x86_64"}


@dataclass
class Case:
    """A cluster of two hosts, and the plays that are run on it."""

    plays: list[Tree]
    app1: Tree = field(default_factory=lambda: RUNS)
    app2: Tree = field(default_factory=lambda: RUNS)
    # By host and action, what goes wrong.
    wrong: dict[str, Tree] = field(default_factory=dict)
    # By host, what channels_release_info tells.
    facts: dict[str, Tree] = field(default_factory=dict)
    # The servers that answer no host; and whether the workers lose theirs in the roll.
    silent: tuple[str, ...] = ()
    outage: bool = False
    # Hosts that another operator has locked.
    locked: tuple[str, ...] = ()
    # The host that has the archive of the release that is packed; the controller has it not.
    archive_on: str = ""
    # The management command that fails.
    fails: str = "none"
    # The hosts that --limit selects.
    limit: tuple[str, ...] = HOSTS
    variables: Tree = field(default_factory=dict)

    def facts_of(self, host: str) -> Tree:
        found = {"current": OLD, "kit": "", "drained": False, "serves": True}
        found |= {"layers": [""], "bridged": False}
        found |= {"python": "3.11", "python_full": TARGET["python"], "machine": TARGET["machine"]}
        releases = [
            {**installed(name, deployed=1), "current": name == OLD} for name in (OLD, NEW, BAD)
        ]
        return {**found, "releases": releases, "archives": [], **self.facts.get(host, {})}


def imported(name: str) -> Tree:
    return {
        "name": name.capitalize(),
        "ansible.builtin.import_playbook": str(ROOT / "playbooks" / f"{name}.yml"),
    }


SAY = {
    "name": "Say",
    "hosts": "channels",
    "gather_facts": False,
    "tasks": [
        {
            "name": "Say | Which release it is",
            "ansible.builtin.debug": {
                "msg": "selected: {{ channels_release.id }} of {{ channels_release_time }}"
            },
        },
    ],
}
VERIFY = [play for play in read_yaml(ROOT / "playbooks" / "verify.yml") if "hosts" in play]
DELIVERY = [play for play in VERIFY if play["name"] == "Delivery"]
CASES = {
    "verify": Case(
        DELIVERY,
        facts={"app1": {"drained": True, "serves": False}},
        variables={"channels_check_sockets": [{"path": "/ws/$x'/", "close": 4001}]},
    ),
    "verify stopped": Case(DELIVERY, facts={"app1": {"serves": False}}),
    "verify nothing": Case(
        DELIVERY, facts={host: {"drained": True, "serves": False} for host in HOSTS}
    ),
    "verify unread": Case(
        VERIFY, facts={"app2": {"failed": True, "msg": "systemctl show: timed out"}}
    ),
    "verify no edge": Case(DELIVERY, variables={"cluster_edge_urls": []}),
    "bare": Case([imported("rollout")], NOTHING, NOTHING),
    "restart": Case([imported("rollout")], RIGHT, RIGHT, variables={"deploy_restart": "true"}),
    "no canary": Case(
        [imported("rollout")],
        RIGHT,
        RIGHT,
        variables={"deploy_restart": "true", "channels_canary_seconds": 0},
    ),
    "beside": Case([imported("rollout")], MODERN, MODERN),
    "another layer": Case(
        [imported("rollout")],
        MODERN,
        MODERN,
        facts={host: {"layers": ["core"]} for host in HOSTS},
        variables={"channels_layer": "fanout"},
    ),
    "another layer and bad": Case(
        [imported("rollout")],
        MODERN,
        MODERN,
        facts={host: {"layers": ["fanout"]} for host in HOSTS},
        variables={"channels_layer": "core"},
        wrong={"app2": {"channels_roll wave": "3/4 app2:8001 failed: no new process took over"}},
    ),
    "another layer on one host": Case(
        [imported("rollout")],
        MODERN,
        MODERN,
        facts={host: {"layers": ["core"]} for host in HOSTS},
        limit=("app1",),
        variables={"channels_layer": "fanout"},
    ),
    "another layer, interrupted": Case(
        [imported("rollout")],
        RIGHT,
        RIGHT,
        facts={"app1": {"layers": ["fanout"], "bridged": True}, "app2": {"layers": ["fanout"]}},
        variables={"channels_layer": "fanout"},
    ),
    "another layer without a bridge": Case(
        [imported("rollout")],
        MODERN,
        MODERN,
        facts={host: {"layers": ["pubsub"]} for host in HOSTS},
        variables={"channels_layer": "fanout"},
    ),
    "beside and bad": Case(
        [imported("rollout")],
        MODERN,
        MODERN,
        wrong={"app2": {"channels_roll wave": "3/4 app2:8001 failed: no new process took over"}},
    ),
    "beside and not proved": Case(
        [imported("rollout")],
        MODERN,
        MODERN,
        wrong={"app1": {"channels_proof": "wave 2/4, 1 workers failed: not proved"}},
    ),
    "interrupted in the drain": Case(
        [imported("rollout")],
        {**RIGHT, WEB: {**RIGHT[WEB], "retired": [99]}},
        RIGHT,
    ),
    "not drained": Case(
        [imported("rollout")],
        MODERN,
        MODERN,
        wrong={"app1": {"channels_roll drained": "app1:8001 is not drained"}},
    ),
    "wider": Case([imported("rollout")], {**RIGHT, WEB: unit(active=False)}, RIGHT),
    "drained": Case([imported("rollout")], NOTHING, facts={"app1": {"drained": True}}),
    "sick": Case([imported("rollout")], {**SICK, WEB: RUNS[WEB]}, SICK),
    "bad": Case(
        [imported("rollout")],
        wrong={
            "app1": {
                "channels_roll wave": "1/6 app1:8001 failed: messages are not delivered",
                "channels_roll": "the former one does not start",
            },
        },
    ),
    "bad and wider": Case(
        [imported("rollout")],
        {**RUNS, WEB: unit(active=False)},
        # After the canary, when the new units have been started.
        wrong={"app2": {"channels_roll wave": "2/5 app2:8001 failed: not delivered"}},
    ),
    "silent before": Case([imported("rollout")], SICK, SICK, silent=("channel layer: refused",)),
    "silent and ready": Case([imported("rollout")], silent=("database: refused",)),
    "silent in the roll": Case(
        [imported("rollout")],
        silent=("channel layer: refused",),
        wrong={"app1": {"channels_roll wave": "1/6 app1:8001 is not ready"}},
    ),
    "outage in the roll": Case(
        [imported("rollout")],
        outage=True,
        wrong={"app1": {"channels_roll wave": "1/6 app1:8001 is not ready"}},
    ),
    "sick and bad": Case(
        [imported("rollout")],
        SICK,
        SICK,
        wrong={"app1": {"channels_roll wave": "1/6 app1:8001 is not ready"}},
    ),
    "put back": Case(
        [imported("rollout")],
        {**RUNS, CELERY: unit(active=False)},
        {**NOTHING},
        facts={"app2": {"drained": True}},
        wrong={"app1": {"channels_roll wave": "1/2 app1:8001 is not ready"}},
    ),
    "mended": Case(
        [imported("select_release"), SAY],
        facts={host: {"kit": VERSION, "releases": [installed(OLD, deployed=1)]} for host in HOSTS},
        variables={"deploy_release": "running"},
    ),
    "first start": Case(
        [imported("rollout")],
        NOTHING,
        NOTHING,
        facts={host: {"current": "", "serves": False, "releases": []} for host in HOSTS},
    ),
    "failed first start": Case(
        [imported("rollout")],
        NOTHING,
        NOTHING,
        facts={host: {"current": "", "serves": False, "releases": []} for host in HOSTS},
        wrong={"app2": {"channels_units started": "app2:8001 failed: exited with status 1"}},
    ),
    "first start not proved": Case(
        [imported("rollout")],
        NOTHING,
        NOTHING,
        facts={host: {"current": "", "serves": False, "releases": []} for host in HOSTS},
        fails="releases/",
    ),
    "migration": Case([imported("rollout")], fails="migrate"),
    "drain": Case([imported("drain")], variables={"drain_host": "app2"}),
    "drain once": Case(
        [imported("drain")],
        # app2 has the beat; it is drained when it is asked.
        facts={
            "app1": {"unit_files": [BEAT], "enabled": []},
            "app2": {"unit_files": [BEAT], "enabled": [], "drained": True},
        },
        variables={"drain_host": "app2", "channels_processes": {"beat": {"celery": "beat"}}},
    ),
    "once": Case(
        [imported("rollout")],
        {**NOTHING, BEAT: unit(active=False)},
        {**NOTHING, BEAT: unit(active=False)},
        facts={"app2": {"unit_files": [BEAT], "enabled": [BEAT]}},
        variables={"channels_processes": {"beat": {"celery": "beat"}}},
    ),
    "rolled back": Case(
        [imported("finish")],
        # app1 was on it; app2 was away, and is on an older one.
        facts={
            "app1": {"current": BAD, "releases": [installed(BAD, recorded=200)]},
            "app2": {"current": OLD, "releases": [installed(OLD, recorded=100)]},
        },
        variables={"deploy_operation": "rollback"},
    ),
    "failed": Case([imported("release_lock")], variables={"deploy_result": "failed"}),
    "selected": Case(
        [imported("select_release"), SAY],
        facts={"app1": {"current": BAD, "serves": False}},
        variables={"deploy_release": "running"},
    ),
    "away": Case(
        [imported("select_release"), SAY],
        facts={
            "app1": {"current": OLD, "releases": [installed(OLD, recorded=100)]},
            "app2": {"releases": [installed(OLD, recorded=100), installed("packed", recorded=200)]},
        },
        variables={"deploy_release": "running"},
    ),
    "left out": Case(
        [imported("select_release"), SAY],
        facts={
            "app1": {"current": OLD, "releases": [installed(OLD, recorded=100)]},
            "app2": {"releases": [installed(OLD, recorded=100), installed("packed", recorded=200)]},
        },
        variables={"deploy_release": "running"},
        limit=("app1",),
    ),
    "left out and older": Case(
        [imported("select_release"), SAY],
        facts={
            "app1": {"kit": VERSION, "releases": [installed("packed", recorded=200)]},
            "app2": {"kit": "0.0.1", "releases": [installed(OLD, recorded=100)]},
        },
        variables={"deploy_release": "running"},
        limit=("app1",),
    ),
    "left out and broken": Case(
        [imported("select_release"), SAY],
        facts={
            "app1": {"releases": [installed("packed", recorded=200)]},
            "app2": {"failed": True, "msg": "no Python"},
        },
        variables={"deploy_release": "running"},
        limit=("app1",),
    ),
    "nobody knows": Case(
        [imported("select_release"), SAY],
        facts={host: {"releases": []} for host in HOSTS},
        variables={"deploy_release": "running"},
    ),
    "new machine": Case(
        [imported("select_release"), SAY],
        facts={
            "app1": {"current": "", "serves": False, "releases": []},
            "app2": {
                "current": OLD,
                "releases": [installed("packed", recorded=100), installed(OLD, recorded=200)],
                "archives": ["packed"],
            },
        },
        archive_on="app2",
        variables={"deploy_release": "previous"},
    ),
    "no archive": Case(
        [imported("select_release"), SAY],
        variables={"deploy_release": "ffffffffffff"},
    ),
    "another server": Case(
        [imported("select_release"), SAY],
        facts={"app1": {"serves": False}},
        variables={"deploy_release": "running", "channels_server": "daphne"},
    ),
    "recorded": Case(
        [imported("rollout")],
        RIGHT,
        RIGHT,
        facts={"app2": {"releases": [installed(NEW, recorded=300)]}},
        variables={"channels_release_time": 300},
    ),
    "none to go back to": Case(
        [imported("select_release"), SAY],
        facts={host: {"current": "packed", "releases": []} for host in HOSTS},
        variables={"deploy_release": "previous"},
    ),
    "another kit": Case(
        [imported("select_release"), SAY],
        facts={"app1": {"serves": False}, "app2": {"kit": "0.1.0"}},
        variables={"deploy_release": "running"},
    ),
    "locked": Case([imported("lock"), SAY], locked=("app2",)),
    "not locked": Case([imported("lock"), SAY]),
    "another host": Case([imported("drain")], variables={"drain_host": "app1,lb1"}),
    "no host": Case([imported("undrain")], variables={"drain_host": ""}),
}


@dataclass(frozen=True)
class Done:
    """What a case came to."""

    run: Run
    record: list[str]
    # The release that runs on app2 where one is selected.
    packed: str

    def of(self, *names: str) -> list[str]:
        """What was done by the name of it."""
        return [line for line in self.record if line.startswith(names)]


# What would touch a host.
OWN_PLUGINS = (
    "channels_lock",
    "channels_proof",
    "channels_release",
    "channels_release_info",
    "channels_roll",
    "channels_servers",
    "channels_units",
    "host_checks",
    "record_copy",
    "record_systemd",
)


def link_roles(directory: Path) -> None:
    """The roles of the house; their units are of one line, and no file is written."""
    for role in ROLE_NAMES:
        for part in ("templates", "tasks"):
            (directory / role / part).mkdir(parents=True)
        for path in (ROLES / role).iterdir():
            if path.name not in ("tasks", "templates", "vars"):
                (directory / role / path.name).symlink_to(path)
        for file in (ROLES / role).glob("vars/*"):
            (directory / role / "vars").mkdir(exist_ok=True)
            text = LOOKUP.sub("('unit of ' ~ channels_release.id)", file.read_text())
            (directory / role / "vars" / file.name).write_text(text)
        for template in (ROLES / role).glob("templates/*"):
            text = template.read_text() if template.name == "result.j2" else UNIT
            (directory / role / "templates" / template.name).write_text(text)
        for file in (ROLES / role).glob("tasks/*"):
            text = file.read_text().replace("ansible.builtin.copy:", "record_copy:")
            text = text.replace("ansible.builtin.systemd_service:", "record_systemd:")
            (directory / role / "tasks" / file.name).write_text(text)
    # The packages of these releases are nobody's. test_examine examines real ones.
    (directory / "channels" / "tasks" / "examine.yml").write_text("---\n[]\n")


def write_plugins(directory: Path) -> None:
    directory.mkdir()
    for name in OWN_PLUGINS:
        (directory / f"{name}.py").write_text(ACTION)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    """Every case; four runs at a time."""
    directory = tmp_path_factory.mktemp("rollout")
    link_roles(directory / "roles")
    write_plugins(directory / "plugins")
    # Where the role looks for it.
    (directory / "kit" / "channels_kit").mkdir(parents=True)
    (directory / "kit" / "VERSION").write_text(f"{VERSION}\n")
    programs = directory / "bin"
    programs.mkdir()
    for name in ("channels-manage", "channels-prove"):
        (programs / name).write_text(PROGRAM)
        (programs / name).chmod(0o755)
    write(directory / "application", {**django_project(), "requirements.txt": "uvicorn\n"})
    (directory / "uv.lock").write_text(KIT_LOCK)
    uv = fake_uv(programs)
    old = pack(directory, uv)
    done, waiting = {}, list(CASES.items())
    while waiting:
        batch, waiting = waiting[:4], waiting[4:]
        started = {name: begin(directory, name, case, programs, old) for name, case in batch}
        runs = {name: finish(process) for name, process in started.items()}
        for name, run in runs.items():
            record = directory / name / "record"
            lines = record.read_text().splitlines() if record.exists() else []
            done[name] = Done(run, lines, old)
    return done


def pack(directory: Path, uv: Path) -> str:
    """Pack a release of an empty application, which runs on app2 where one is selected."""
    result = subprocess.run(
        [
            *(sys.executable, ROLES / "channels" / "files" / "build_release.py"),
            *(f"--application={directory / 'application'}", f"--output={directory / 'releases'}"),
            f"--kit={directory / 'kit'}",
            *(f"--uv={uv}", f"--lock={directory / 'uv.lock'}"),
            f"--targets={json.dumps([TARGET])}",
            f"--exclude={','.join(defaults('channels')['channels_source_excludes'])}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    release: str = json.loads(result.stdout)["id"]
    return release


def begin(directory: Path, name: str, case: Case, programs: Path, old: str) -> Any:
    home = directory / name
    facts = json.loads(
        json.dumps({host: case.facts_of(host) for host in HOSTS}).replace("packed", old)
    )
    if SAY in case.plays and not case.archive_on:
        facts["app2"]["current"] = old
    archives = directory / "releases"
    if case.archive_on:
        archives = home / "controller"
        there = home / case.archive_on / "archives"
        there.mkdir(parents=True)
        shutil.copy(directory / "releases" / f"{old}.tar.gz", there)
    archive = str(directory / "releases" / f"{old}.tar.gz")
    new: Tree = {"id": NEW, "archive": archive, "environment": "e", "requirements": "", "kit": "k"}
    new |= {"application": "config.asgi:application", "settings_module": "config.settings"}
    new |= {"root": ".", "server": "uvicorn", "static": True, "celery": None}
    # What plays before those of the case have set.
    selected = {"channels_release": new, "channels_release_time": 900}
    before = {host: {"_channels_host": facts[host], **selected} for host in case.limit}
    for host in HOSTS:
        before.setdefault(host, {})
        before[host]["_channels_lock"] = {"owner": {"who": "ada@desk"}}
    if "lock" in name:
        before = {host: {"channels_release": new} for host in HOSTS}
    inventory = {
        "all": {
            "hosts": {
                **{host: {**before[host], "cluster_home": str(home / host)} for host in HOSTS},
                "lb1": {},
            },
            "vars": {
                **GOOD,
                "cluster_address": "127.0.0.1",
                "ansible_connection": "local",
                "ansible_python_interpreter": "{{ ansible_playbook_python }}",
                "channels_celery_application": "config",
                "channels_processes": {"celery": {"celery": "worker"}},
                "channels_archive_directory": str(archives),
                "channels_source": str(directory / "application"),
            },
        },
        "channels": {"hosts": dict.fromkeys(HOSTS)},
        "nginx": {"hosts": {"lb1": {}}},
    }
    known = {
        host: {
            "units": units,
            "wrong": case.wrong.get(host, {}),
            "facts": facts[host],
            "locked": host in case.locked,
            "silent": case.silent,
            "outage": case.outage,
        }
        for host, units in (("app1", case.app1), ("app2", case.app2))
    }
    return start(
        home,
        inventory,
        case.plays,
        "--extra-vars",
        json.dumps(case.variables),
        f"--limit={','.join([*case.limit, 'lb1', 'localhost'])}",
        ANSIBLE_ROLES_PATH=str(directory / "roles"),
        ANSIBLE_ACTION_PLUGINS=f"{directory / 'plugins'}:{ROOT / 'plugins' / 'action'}",
        PATH=f"{programs}:{sys.exec_prefix}/bin:/usr/bin:/bin",
        RECORD=str(home / "record"),
        FAILS=case.fails,
        KNOWN=json.dumps({**known, "lb1": {}}),
        ANSIBLE_STRATEGY_PLUGINS=str(ROOT / "plugins" / "mitogen"),
    )


EVERY = ("app1:8001", "app1:8002", "app2:8001", "app2:8002")
UNITS_SAID = "web@8001 web@8002 process-celery"
PROOF = " ".join(f"--worker={worker}=http://127.0.0.1:{worker[-4:]}" for worker in EVERY)


def proofs(done: Done) -> list[str]:
    """The workers of every proof, in their order."""
    return [" ".join(re.findall(r"--worker=(\S+?)=", line)) for line in done.of("channels-prove")]


def switched(done: Done) -> dict[str, str]:
    """The release that was made the current one, by host."""
    found = [line.split() for line in done.of("channels_release") if " current " in line]
    return {words[1]: words[3] for words in found}


def test_where_nothing_runs_all_start_at_once_and_are_proved(cases: dict[str, Done]) -> None:
    done = cases["bare"]
    assert done.run.code == 0, done.run.output
    assert done.record[2] == f"channels-manage --release {NEW} migrate --no-input"
    assert set(done.of("channels_units")) == {
        f"channels_units {host} {state} {UNITS_SAID}"
        for host in HOSTS
        for state in ("gathered", "started")
    }
    assert done.of("channels_roll") == []
    # Of the workers that this run has started, a moment ago and in another play.
    assert proofs(done) == [" ".join(EVERY)]
    assert done.record[-1].startswith("channels-prove")


ALL = f"proving {' '.join(EVERY)}"


def rolled(done: Done) -> list[str]:
    """What was done in the waves and after them, without what was looked at."""
    return [
        line
        for line in done.of("channels_roll", "channels_proof", "channels_units")
        if " gathered " not in line
    ]


def test_workers_are_rolled_in_waves_and_each_is_proved(cases: dict[str, Done]) -> None:
    """From and to what it touched; every pair once, at the end."""
    done = cases["restart"]
    assert done.run.code == 0, done.run.output
    assert rolled(done) == [
        f"channels_roll app1 restarted web@8001 1/4 {ALL} from and to app1:8001",
        "channels_roll app1 restarted web@8002 process-celery 2/4",
        f"channels_proof app1 {ALL} from and to app1:8002 after 3.5 s",
        "channels_roll app2 restarted web@8001 process-celery 3/4",
        f"channels_proof app1 {ALL} from and to app2:8001 after 3.5 s",
        "channels_roll app2 restarted web@8002 4/4",
        f"channels_proof app1 {ALL} from and to app2:8002 after 3.5 s",
        *sorted(f"channels_units {host} watched process-celery" for host in HOSTS),
        f"channels_proof app1 {ALL} after 0 s",
        *sorted(f"channels_roll {host} drained web@8001 web@8002" for host in HOSTS),
    ]
    # The long one was made beside the canary.
    assert proofs(done) == []
    assert switched(done) == dict.fromkeys(HOSTS, NEW)


def test_new_processes_start_beside_the_former_ones_and_these_drain_last(
    cases: dict[str, Done],
) -> None:
    done = cases["beside"]
    assert done.run.code == 0, done.run.output
    waves = [line for line in done.of("channels_roll") if "/4" in line]
    assert [line.split()[2] for line in waves] == ["reloaded"] * 4
    recorded = [done.record.index(line) for line in done.record if " recorded " in line]
    drained = [done.record.index(line) for line in done.of("channels_roll") if " drained " in line]
    assert len(drained) == len(HOSTS)
    assert max(recorded) < min(drained), "what is interrupted in the drain is deployed"


OPEN = f"channels-manage --release {NEW} --python -m channels_kit.layer.bridge open"
CLOSE = "channels-manage --python -m channels_kit.layer.bridge closed"


def test_workers_with_two_layers_hear_each_other_until_the_last_has_drained(
    cases: dict[str, Done],
) -> None:
    done = cases["another layer"]
    assert done.run.code == 0, done.run.output
    noted, opened, closed = map(
        done.record.index, ("record_copy app1 Ansible managed: opened by ada@desk", OPEN, CLOSE)
    )
    rolls = [number for number, line in enumerate(done.record) if line.startswith("channels_roll")]
    assert noted < opened < rolls[0] < rolls[-1] < closed
    assert " drained " in done.record[rolls[-1]]
    assert done.record.count(OPEN) == done.record.count(CLOSE) == 1


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("beside", []),
        ("another layer and bad", [OPEN]),
        ("another layer on one host", [OPEN]),
        ("another layer, interrupted", [CLOSE]),
        ("another layer without a bridge", []),
    ],
)
def test_the_bridge_is_open_while_there_are_two_layers(
    cases: dict[str, Done], name: str, commands: list[str]
) -> None:
    assert [line for line in cases[name].record if "layer.bridge" in line] == commands


@pytest.mark.parametrize("name", ["beside and bad", "beside and not proved"])
def test_after_a_wave_that_failed_the_former_processes_get_their_ports_back(
    cases: dict[str, Done], name: str
) -> None:
    done = cases[name]
    assert done.run.code != 0
    touched = {"beside and bad": ["app1", "app2"], "beside and not proved": ["app1"]}[name]
    failed = [line for line in done.of("channels_roll") if "/4" in line][-1]
    after = done.record[done.record.index(failed) + 1 :]
    assert sorted(line for line in after if line.startswith("channels_roll ")) == sorted(
        line
        for host in touched
        for line in (
            f"channels_roll {host} resumed web@8001 web@8002",
            f"channels_roll {host} process-celery",
        )
    )
    # systemd would start the new release if a process ended. The roll has not reached app2.
    assert [line for line in after if line.startswith("record_systemd")] == [
        f"record_systemd {host}" for host in HOSTS
    ]
    assert not [line for line in after if " drained " in line], "of before the roll, nobody"
    assert {f"channels_release {host} current {OLD}" for host in HOSTS} <= set(after)
    assert len([line for line in after if " bad " in line]) == len(HOSTS)


def test_the_next_run_drains_what_an_interrupted_one_has_left(cases: dict[str, Done]) -> None:
    done = cases["interrupted in the drain"]
    assert done.run.code == 0, done.run.output
    assert rolled(done) == ["channels_roll app1 drained web@8001"]


def test_a_process_that_does_not_drain_is_reported_and_nothing_put_back(
    cases: dict[str, Done],
) -> None:
    done = cases["not drained"]
    assert done.run.code != 0
    assert "app1:8001 is not drained" in done.run.output
    assert "channels_roll app2 drained web@8001 web@8002" in done.record
    assert len([line for line in done.record if " recorded " in line]) == len(HOSTS)
    assert switched(done) == dict.fromkeys(HOSTS, NEW)


def test_without_a_canary_the_long_proof_is_made_at_the_end(cases: dict[str, Done]) -> None:
    done = cases["no canary"]
    assert done.run.code == 0, done.run.output
    assert done.of("channels-prove") == [f"channels-prove releases/{NEW} {PROOF}"]
    assert "--hold" not in done.record[-1]


def test_a_worker_that_is_new_is_started_and_proved_and_no_other_touched(
    cases: dict[str, Done],
) -> None:
    done = cases["wider"]
    assert done.run.code == 0, done.run.output
    assert [line for line in done.of("channels_units") if " started " in line] == [
        "channels_units app1 started web@8001"
    ]
    assert done.of("channels_roll") == []
    assert proofs(done) == [" ".join(EVERY)]


def test_a_host_that_is_drained_gets_the_release_and_starts_nothing(
    cases: dict[str, Done],
) -> None:
    done = cases["drained"]
    assert done.run.code == 0, done.run.output
    assert not [line for line in done.of("channels_units") if " started " in line]
    assert switched(done) == dict.fromkeys(HOSTS, NEW)
    assert done.of("channels_roll")[:2] == [
        "channels_roll app2 restarted web@8001 1/2 proving app2:8001 app2:8002"
        " from and to app2:8001",
        "channels_roll app2 restarted web@8002 process-celery 2/2",
    ]


def test_a_worker_that_was_not_ready_is_proved_when_the_roll_has_come_to_it(
    cases: dict[str, Done],
) -> None:
    """Else no release could be brought that mends workers: the first proof would be of all."""
    done = cases["sick"]
    assert done.run.code == 0, done.run.output
    assert [line for line in rolled(done) if "from and to" in line] == [
        "channels_roll app1 restarted web@8001 1/4 proving app1:8001 from and to app1:8001",
        *[
            f"channels_proof app1 proving {' '.join(EVERY[:last])} from and to {EVERY[last - 1]}"
            " after 3.5 s"
            for last in (2, 3, 4)
        ],
    ]


def test_after_a_gate_has_failed_every_host_is_put_back(cases: dict[str, Done]) -> None:
    """Even where the first one cannot be; and none is touched anew."""
    done = cases["bad"]
    assert done.run.code != 0
    failed = done.record.index(
        f"channels_roll app1 restarted web@8001 1/4 {ALL} from and to app1:8001"
    )
    restored = done.record[failed + 1 :]
    assert sorted(line for line in restored if line.startswith("record_copy")) == [
        f"record_copy {host} unit of {OLD}" for host in HOSTS
    ]
    assert sorted(line for line in restored if " current " in line) == [
        f"channels_release {host} current {OLD}" for host in HOSTS
    ]
    # app2 was not touched, and still runs what it ran.
    assert [line for line in restored if line.startswith("channels_roll")] == [
        f"channels_roll app1 {UNITS_SAID}"
    ]
    assert restored[-2:] == [
        f"channels_release app2 bad {NEW}",  # nothing more is done on app1
        f"channels-prove releases/{NEW} {PROOF}",
    ]


def test_an_outage_before_the_roll_stops_it_before_anything_is_touched(
    cases: dict[str, Done],
) -> None:
    done = cases["silent before"]
    assert done.run.code != 0
    said = " ".join(done.run.output.split())
    for words in (
        "channel layer: refused",
        "app1:8001: answers 503",
        "No worker was touched and no release was marked as bad.",
    ):
        assert words in said, words
    assert {line.split()[0] for line in done.record} == {"channels_units", "channels_servers"}
    assert done.of("channels_units") != []
    assert {line.split()[2] for line in done.of("channels_units")} == {"gathered"}


def test_a_server_that_no_worker_misses_is_not_asked_for(cases: dict[str, Done]) -> None:
    done = cases["silent and ready"]
    assert done.run.code == 0, done.run.output
    assert done.of("channels_servers") == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("silent in the roll", "channel layer: refused"),
        ("outage in the roll", "app2:8001 was ready before the roll: answers 503"),
        ("sick and bad", "No unit was ready before the roll."),
    ],
)
def test_a_release_is_not_blamed_for_an_outage(cases: dict[str, Done], name: str, why: str) -> None:
    done = cases[name]
    assert done.run.code != 0
    assert f"channels_roll app1 {UNITS_SAID}" in done.record, "put back all the same"
    assert not [line for line in done.record if " bad " in line]
    last = done.run.output.rpartition("TASK [")[2]
    assert "The release is not the cause, and was not marked as bad:" in last
    assert why in last
    assert "Put back: app1, app2." in last


def test_a_host_on_which_nothing_runs_is_put_back_too(cases: dict[str, Done]) -> None:
    """Else it is said to be, and is current on the release that has failed."""
    done = cases["put back"]
    assert done.run.code != 0
    assert switched(done) == dict.fromkeys(HOSTS, OLD)
    assert f"record_copy app2 unit of {OLD}" in done.record


def test_after_a_migration_that_failed_no_host_is_touched(cases: dict[str, Done]) -> None:
    done = cases["migration"]
    assert done.run.code != 0
    assert sorted(done.record) == [
        f"channels-manage --release {NEW} migrate --no-input",
        *[f"channels_units {host} gathered {UNITS_SAID}" for host in HOSTS],
    ]


def test_what_a_failed_roll_has_started_is_stopped(cases: dict[str, Done]) -> None:
    done = cases["bad and wider"]
    assert done.run.code != 0
    assert "channels_roll app1 removed web@8001" in done.record
    assert not [line for line in done.record if line.startswith("channels_roll app2 removed")]
    assert proofs(done) == ["app1:8002 app2:8001 app2:8002"]


def test_the_last_words_are_why_it_failed_and_what_was_put_back(cases: dict[str, Done]) -> None:
    last = cases["bad"].run.output.rpartition("TASK [")[2]
    assert last.startswith("channels : Result | Report what failed")
    for words in (
        "1/6 app1:8001 failed: messages are not delivered",
        "Not put back: app1: the former one does not start",
        "Put back: app2.",
        "Delivery verified. Proved: wires (16 of 16 pairs).",
        "Fix the cause and retry.",
    ):
        assert words in last, words


def test_a_rollback_marks_what_it_has_left_and_ends_with_the_lock(cases: dict[str, Done]) -> None:
    done = cases["rolled back"]
    assert done.run.code == 0, done.run.output
    assert done.record[0] == f"channels_release app1 bad {BAD}"
    assert sorted(done.record[1:3]) == [f"channels_release {host} pruned" for host in HOSTS]
    assert sorted(done.record[3:]) == [f"channels_lock {host} absent ok" for host in HOSTS]


def test_a_failure_ends_with_the_lock_alone(cases: dict[str, Done]) -> None:
    done = cases["failed"]
    assert done.run.code == 0, done.run.output
    assert sorted(done.record) == [f"channels_lock {host} absent failed" for host in HOSTS]


def test_where_another_operator_has_locked_one_host_none_stays_locked(
    cases: dict[str, Done],
) -> None:
    done = cases["locked"]
    assert done.run.code != 0
    assert "Locked by ann." in done.run.output
    assert "selected" not in done.run.output
    assert sorted(done.record) == [
        "channels_lock app1 absent refused",
        *[f"channels_lock {host} present" for host in HOSTS],
    ]
    free = cases["not locked"]
    assert "selected" in free.run.output, free.run.output
    assert sorted(free.record) == [f"channels_lock {host} present" for host in HOSTS]


def test_the_release_that_runs_is_not_that_of_a_host_on_which_nothing_does(
    cases: dict[str, Done],
) -> None:
    """As after a deploy that has failed while the first host was drained."""
    done = cases["selected"]
    assert done.run.code == 0, done.run.output
    assert f"selected: {done.packed}" in done.run.output
    # And it stands in the lock, for the audit log.
    noted = [f"channels_lock {host} present {done.packed}" for host in HOSTS]
    assert sorted(done.record) == noted


def test_a_rollback_without_a_former_release_changes_nothing(cases: dict[str, Done]) -> None:
    done = cases["none to go back to"]
    assert done.run.code != 0
    assert "There is no release to roll back to" in done.run.output
    assert done.record == []


def test_what_was_deployed_last_wins_over_a_host_that_was_away(cases: dict[str, Done]) -> None:
    """However early it stands in the inventory, and though it serves."""
    done = cases["away"]
    assert done.run.code == 0, done.run.output
    assert f"selected: {done.packed} of 200" in done.run.output
    assert f"app1 is on {OLD}" in done.run.output


def test_what_was_deployed_last_wins_although_the_hosts_that_have_it_are_left_out(
    cases: dict[str, Done],
) -> None:
    done = cases["left out"]
    assert done.run.code == 0, done.run.output
    assert f"selected: {done.packed} of 200" in done.run.output
    assert f"app1 is on {OLD}" in done.run.output
    assert "app2 is on" not in done.run.output


def test_the_kit_of_hosts_that_are_left_out_stops_no_run(cases: dict[str, Done]) -> None:
    """After make upgrade WITHOUT=app2, the others can be operated."""
    done = cases["left out and older"]
    assert done.run.code == 0, done.run.output
    assert f"selected: {done.packed} of 200" in done.run.output


def test_a_host_that_is_left_out_because_it_is_broken_stops_no_run(cases: dict[str, Done]) -> None:
    done = cases["left out and broken"]
    assert done.run.code == 0, done.run.output
    assert f"selected: {done.packed} of 200" in done.run.output


def test_where_no_host_knows_what_was_deployed_last_nothing_is_done(cases: dict[str, Done]) -> None:
    done = cases["nobody knows"]
    assert done.run.code != 0
    said = " ".join(done.run.output.split())
    assert f"app1: {OLD}, app2: {done.packed}" in said
    assert "make deploy" in said
    assert done.record == []


def test_a_rollback_finds_its_release_and_the_archive_on_any_host(cases: dict[str, Done]) -> None:
    """The first one may be a new machine."""
    done = cases["new machine"]
    assert done.run.code == 0, done.run.output
    assert f"selected: {done.packed}" in done.run.output


def test_a_release_whose_archive_no_host_has_is_refused(cases: dict[str, Done]) -> None:
    done = cases["no archive"]
    assert done.run.code != 0
    said = " ".join(done.run.output.split())
    assert "No app host that answers has release ffffffffffff. Nothing changed." in said
    assert done.record == []


def test_a_release_without_the_server_of_the_inventory_is_not_rolled(
    cases: dict[str, Done],
) -> None:
    done = cases["another server"]
    assert done.run.code != 0
    said = " ".join(done.run.output.split())
    assert "was packed without daphne (channels_server). Nothing changed." in said
    assert "Run: make deploy" in said
    assert done.record == []


def test_what_every_host_runs_is_recorded_with_one_time(cases: dict[str, Done]) -> None:
    for name in ("restart", "bare"):
        recorded = [line for line in cases[name].record if " recorded " in line]
        assert sorted(recorded) == [f"channels_release {h} recorded {NEW} 900" for h in HOSTS]
    # By those that are not on record.
    recorded = [line for line in cases["recorded"].record if " recorded " in line]
    assert recorded == [f"channels_release app1 recorded {NEW} 300"]
    for name in ("bad", "migration", "bad and wider"):
        assert not [line for line in cases[name].record if " recorded " in line], name


def test_another_version_of_the_kit_is_brought_by_an_upgrade_alone(cases: dict[str, Done]) -> None:
    done = cases["another kit"]
    assert done.run.code != 0
    # However YAML folds it.
    said = " ".join(done.run.output.split())
    assert "The cluster runs version 0.1.0 of the kit; this checkout has version 0.2.0." in said
    assert "Nothing changed. Run: make upgrade" in said


def test_a_proof_is_made_where_workers_run_and_says_who_is_drained(
    cases: dict[str, Done],
) -> None:
    done = cases["verify"]
    assert done.run.code == 0, done.run.output
    # The matrix, and then the edge.
    assert proofs(done) == ["app2:8001 app2:8002"] * 2
    said = " ".join(done.run.output.split())
    assert "Delivery verified. Proved: wires (16 of 16 pairs). Drained: app1." in said
    matrix, edge = done.of("channels-prove")
    assert matrix.startswith("channels-prove current --json=- --hold=10 --edge=http://")
    assert edge.startswith("channels-prove current edge --json=- --idle=0 --edge=http://")
    # What the inventory names now, though no host was told.
    (checks,) = set(done.of("checks"))
    assert json.loads(checks.removeprefix("checks ")) == {
        "pages": ["/"],
        "sockets": [{"path": "/ws/$x'/", "close": 4001}],
        "site": "http://chat.example.org",
    }
    # One that is not drained is to run.
    stopped = cases["verify stopped"]
    assert proofs(stopped) == [" ".join(EVERY)] * 2
    assert "Drained" not in stopped.run.output


def test_of_a_host_that_was_not_read_the_report_says_which_task_failed_and_why(
    cases: dict[str, Done],
) -> None:
    done = cases["verify unread"]
    assert done.run.code != 0
    said = " ".join(done.run.output.split())
    why = "State | Read the releases of the host: systemctl show: timed out"
    assert f"unreadable app2 host reading: not read (Ansible): {why}." in said
    assert "cannot be reached" not in said
    # Whether it is drained is not known: its workers are asked, as those of the others.
    assert proofs(done) == [" ".join(EVERY)] * 2


def test_without_an_edge_nothing_is_verified(cases: dict[str, Done]) -> None:
    done = cases["verify no edge"]
    assert done.run.code != 0
    said = " ".join(done.run.output.split())
    assert "There is no edge: the group nginx or the variable cluster_edge_urls is empty." in said
    assert "Nothing was verified." in said
    assert done.record == []


def test_where_no_worker_runs_nothing_is_verified(cases: dict[str, Done]) -> None:
    done = cases["verify nothing"]
    assert done.run.code != 0
    said = " ".join(done.run.output.split())
    assert "No worker runs. Nothing was verified. Drained: app1, app2." in said
    assert done.record == []


def test_a_first_start_is_proved_before_it_is_recorded(cases: dict[str, Done]) -> None:
    done = cases["first start"]
    assert done.run.code == 0, done.run.output
    (proof,) = (done.record.index(line) for line in done.of("channels-prove"))
    recorded = [done.record.index(line) for line in done.record if " recorded " in line]
    assert len(recorded) == len(HOSTS)
    assert proof < min(recorded)


@pytest.mark.parametrize("name", ["failed first start", "first start not proved"])
def test_a_first_start_that_failed_is_not_recorded(cases: dict[str, Done], name: str) -> None:
    """So that the next run takes the application as it is then."""
    done = cases[name]
    assert done.run.code != 0
    assert not [line for line in done.record if " recorded " in line]


def test_after_a_first_start_that_failed_the_application_is_packed(cases: dict[str, Done]) -> None:
    done = cases["mended"]
    assert done.run.code == 0, done.run.output
    assert f"selected: {done.packed}" in done.run.output


def test_a_drain_stops_every_unit_of_its_host_at_once(cases: dict[str, Done]) -> None:
    """Else who leaves a worker comes to the next one of the host, and leaves again."""
    done = cases["drain"]
    assert done.run.code == 0, done.run.output
    taken, released = sorted(done.record[:2]), sorted(done.record[-2:])
    assert taken == [f"channels_lock {host} present" for host in HOSTS]
    assert released == [f"channels_lock {host} absent ok" for host in HOSTS]
    assert done.record[2:-2] == [
        "record_copy app2 Ansible managed: drained by ada@desk",
        f"channels_roll app2 stopped {UNITS_SAID}",
    ]


def test_what_runs_once_moves_to_another_host_when_its_own_is_drained(
    cases: dict[str, Done],
) -> None:
    """It has stopped before it is started again: there are never two."""
    done = cases["drain once"]
    assert done.run.code == 0, done.run.output
    assert done.record[2:-2] == [
        "record_copy app2 Ansible managed: drained by ada@desk",
        "channels_roll app2 stopped web@8001 web@8002 process-beat",
        "channels_roll app2 removed process-beat",
        f"record_systemd app1 started {BEAT} True",
    ]


def test_what_runs_once_stays_where_it_is(cases: dict[str, Done]) -> None:
    done = cases["once"]
    assert done.run.code == 0, done.run.output
    started = [line for line in done.of("channels_units") if " started " in line]
    assert sorted(started) == [
        "channels_units app1 started web@8001 web@8002",
        "channels_units app2 started web@8001 web@8002 process-beat",
    ]


@pytest.mark.parametrize(("name", "said"), [("another host", "app1,lb1"), ("no host", "")])
def test_what_is_no_app_host_is_neither_drained_nor_passed_over(
    cases: dict[str, Done], name: str, said: str
) -> None:
    done = cases[name]
    assert done.run.code != 0
    assert f"HOST='{said}' is not an app host of this run. App hosts: app1 app2" in done.run.output
    assert done.record == []
