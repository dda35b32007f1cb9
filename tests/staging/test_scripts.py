"""The programs of scripts/ from outside, in a checkout of fakes of all that they call."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.roles.house import ROOT

TIMEOUT = 60
ANOTHER = (
    "Another make up or make down is running in this checkout (process {}). Nothing changed.\n"
)

# The engine answers from when dockerd has been started.
DOCKER = """#!/bin/sh
test -e "{engine}"
"""
DOCKERD = """#!{python} -I
import json, os, signal, sys, time
descriptors = {{}}
for name in os.listdir("/proc/self/fd"):
    try:
        descriptors[name] = os.readlink("/proc/self/fd/" + name)
    except FileNotFoundError:
        pass  # the listing itself
found = {{
    "process": os.getpid(),
    "descriptors": descriptors,
    "directory": os.getcwd(),
    "niceness": os.nice(0),
    "umask": os.umask(0),
    "environment": dict(os.environ),
    "leads its session": os.getsid(0) == os.getpid(),
    "SIGINT": signal.getsignal(signal.SIGINT) is not signal.SIG_IGN,
}}
print("the engine's own log", flush=True)
with open("{engine}.new", "w") as file:
    json.dump(found, file)
os.rename("{engine}.new", "{engine}")
time.sleep({timeout})
"""
SUDO = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
exec "$@"
"""
UV = """#!/bin/sh
[ "$1" != --version ] || echo "uv 1.2.3"
"""
# Notes that it runs, and goes on when it is let.
BLOCKS = """#!/bin/sh
# Before the note: whoever has read it may interrupt.
trap 'echo "{name} interrupted" >> "{calls}"; rm -f "{blocked}"; exit 99' INT
echo "{name} $*" >> "{calls}"
while [ -e "{blocked}" ]; do sleep 0.02; done
"""
# As a run of playbooks/verify.yml ends.
VERIFIES = """
for argument; do
    case $argument in
    *'"verify_result_file": '*)
        result=${argument##*'"verify_result_file": "'}
        printf 'verified\\nreport.json\\nVerified.\\n' > "${result%%'"'*}"
        ;;
    esac
done
"""
CLUSTER = """
import pathlib, sys
with open("{calls}", "a") as file:
    print("cluster", sys.argv[-1] if "ssh" not in sys.argv else "ssh", file=file)
options = [a for a in sys.argv if a.startswith("--inventory=")]
if sys.argv[-1] == "url":
    print("http://127.0.0.1:8080/")
if options:
    generated = pathlib.Path(options[0].split("=", 1)[1], "generated.yml")
    if "up" in sys.argv:
        generated.write_text('''{generated}''')
"""
GENERATED = """
all:
  hosts:
    app2: {staging_container: channels-kit-0a1b2c-rehearsal-app2}
  vars: {staging_edge_port: 8099, sample_users: {alice: a-password}}
"""
LOAD = """
import os, signal, time
signal.signal(signal.SIGINT, lambda *_: os._exit(0))
print("5 of 5 connected", flush=True)
with open("{calls}", "a") as file:
    print("load", os.getpid(), file=file)
deadline = time.monotonic() + {timeout}
while time.monotonic() < deadline:
    print("5 of 5 connected", flush=True)
    time.sleep(0.02)
"""


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Wait until a condition holds, and return what it came to."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {TIMEOUT} s")


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


class Checkout:
    """A checkout with the scripts as they are, and fakes of Ansible, the engine and the hosts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "checkout"
        self.programs = directory / "bin"
        self.engine = directory / "engine.json"
        self.calls_file = directory / "calls"
        self.blocked = directory / "blocked"
        self.lock = self.directory / ".staging" / "staging.lock"
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "scripts", self.directory / "scripts", ignore=ignore)
        shutil.copytree(
            ROOT / "inventories" / "staging",
            self.directory / "inventories" / "staging",
            ignore=shutil.ignore_patterns("generated.yml"),
        )
        # As make up leaves it.
        self.write("inventories/staging/generated.yml", "{}")
        self.write("uv.lock", 'name = "uv"\nversion = "1.2.3"\n')
        self.write("pyproject.toml", "")
        self.write("kit/pyproject.toml", "")
        self.write("app/chat/urls.py", "")
        self.write("app/channels_kit/__init__.py", "")
        self.write("app/channels_kit/load/__init__.py", "")
        self.write(
            "app/channels_kit/load/__main__.py", LOAD.format(calls=self.calls_file, timeout=TIMEOUT)
        )
        self.write(
            "scripts/staging/cluster.py", CLUSTER.format(calls=self.calls_file, generated=GENERATED)
        )
        self.program(self.directory / ".venv/bin/uv", UV)
        self.program(
            self.directory / ".venv/bin/python", f'#!/bin/sh\nexec {sys.executable} "$@"\n'
        )
        playbook = {"name": "ansible", "calls": self.calls_file, "blocked": self.blocked}
        self.program(
            self.directory / "scripts/ansible-playbook", BLOCKS.format(**playbook) + VERIFIES
        )
        self.program(self.programs / "docker", DOCKER.format(engine=self.engine))
        dockerd = {"python": sys.executable, "engine": self.engine, "timeout": TIMEOUT}
        self.program(self.programs / "dockerd", DOCKERD.format(**dockerd))
        self.program(self.programs / "sudo", SUDO)

    def write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    @staticmethod
    def program(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "HOME": os.environ.get("HOME", "/"),
            # No service manager runs, and the engine's log is none of this machine's.
            "SYSTEMD_DIRECTORY": str(self.directory / "none"),
            "DOCKERD_LOG": str(self.directory.parent / "dockerd.log"),
        }

    def start(self, *command: str, **environment: str) -> "subprocess.Popen[str]":
        """Start a program as a terminal does: what it starts gets Ctrl-C with it."""
        return subprocess.Popen(
            command,
            cwd=self.directory,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        # Into a file: a pipe would be waited for until a daemon that has inherited it ends.
        with (self.directory.parent / "output").open("w+") as output:
            result = subprocess.run(
                command,
                cwd=self.directory,
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=TIMEOUT,
            )
            output.seek(0)
            return subprocess.CompletedProcess(command, result.returncode, output.read())

    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []

    def wait_for(self, call: str) -> str:
        """Wait until something was called; return what was noted."""

        def noted() -> str:
            return next((line for line in self.calls() if line.startswith(call)), "")

        found: str = eventually(noted, call)
        return found


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    made = Checkout(tmp_path)
    yield made
    made.blocked.unlink(missing_ok=True)
    if made.engine.exists() and (found := json.loads(made.engine.read_text())):
        with contextlib.suppress(ProcessLookupError):
            os.kill(found["process"], signal.SIGKILL)


@pytest.fixture
def running_engine(checkout: Checkout) -> None:
    """It was here before, and is nobody's to end."""
    checkout.engine.write_text("{}")


def interrupt(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Press Ctrl-C, and return how the program ended and what it said."""
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=TIMEOUT)
    return process.returncode, output


# What outlives a command


def test_an_engine_that_was_started_by_make_up_holds_nothing_of_it(checkout: Checkout) -> None:
    own = {"HTTPS_PROXY": "http://user:word@proxy.example:3128", "SSL_CERT_FILE": "/a/bundle.crt"}
    first = checkout.run("nice", "-n", "3", "scripts/up", SECRET="of the terminal", **own)
    assert first.returncode == 0, first.stdout
    found = json.loads(checkout.engine.read_text())
    log = checkout.environment["DOCKERD_LOG"]
    assert found["descriptors"] == {"0": "/dev/null", "1": log, "2": log}
    assert found["directory"] == "/"
    # Not that of the command, nor that of the tests.
    assert found["niceness"] == 0
    assert found["umask"] == 0o022
    assert found["leads its session"]
    assert found["SIGINT"], "ignored, as what a shell puts into the background"
    kept = {name: value for name, value in found["environment"].items() if name in own}
    assert kept == own
    assert set(found["environment"]) - set(own) <= {"PATH", "HOME", "LANG", "LC_CTYPE", "PWD"}
    assert str(checkout.programs) not in found["environment"]["HOME"]
    assert Path(log).read_text() == "the engine's own log\n"

    for again in ("scripts/up", "scripts/down", "scripts/up"):
        result = checkout.run(again)
        assert result.returncode == 0, f"{again}: {result.stdout}"
    assert alive(found["process"])


# One command at a time


@pytest.mark.usefixtures("running_engine")
@pytest.mark.parametrize("second", ["scripts/up", "scripts/down"])
def test_make_up_keeps_others_out_and_its_lock_in_place(checkout: Checkout, second: str) -> None:
    checkout.blocked.touch()
    first = checkout.start("scripts/up")
    checkout.wait_for("ansible -i")
    before, calls = checkout.lock.stat().st_ino, checkout.calls()
    result = checkout.run(second)
    assert result.returncode == 1
    assert ANOTHER.format(first.pid) in result.stdout
    assert checkout.calls() == calls
    assert checkout.lock.stat().st_ino == before
    checkout.blocked.unlink()
    output, _ = first.communicate(timeout=TIMEOUT)
    assert first.returncode == 0, output
    assert checkout.run("scripts/down").returncode == 0
    assert checkout.calls()[-1] == "cluster down"
    assert checkout.lock.stat().st_ino == before


@pytest.mark.usefixtures("running_engine")
def test_the_lock_lasts_as_long_as_what_a_killed_make_up_has_started(checkout: Checkout) -> None:
    checkout.blocked.touch()
    first = checkout.start("scripts/up")
    checkout.wait_for("ansible -i")
    first.kill()
    first.wait()
    assert checkout.run("scripts/down").returncode == 1
    checkout.blocked.unlink()
    eventually(lambda: checkout.run("scripts/down").returncode == 0, "the lock is free")
    first.communicate()


# Ctrl-C


@pytest.mark.usefixtures("running_engine")
def test_make_up_says_what_to_do_after_ctrl_c(checkout: Checkout) -> None:
    checkout.blocked.touch()
    process = checkout.start("scripts/up")
    checkout.wait_for("ansible -i")
    code, output = interrupt(process)
    assert code == 130
    assert output.endswith("Interrupted. To continue: make up. To remove the cluster: make down.\n")
    assert "ansible interrupted" in checkout.calls()
    assert checkout.run("scripts/up").returncode == 0


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name
)
@pytest.mark.parametrize("step", ["ansible -i", "load"])
def test_an_interrupted_rehearsal_removes_all_that_it_has_started(
    checkout: Checkout, number: signal.Signals, step: str
) -> None:
    if step == "ansible -i":
        checkout.blocked.touch()
    process = checkout.start(sys.executable, "scripts/rehearse.py", "setting")
    noted = checkout.wait_for(step)
    if number is signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130, output
    assert "Interrupted. make rehearse starts again from the beginning." in output
    assert "Traceback" not in output
    assert checkout.calls()[-1] == "cluster down"
    if step == "load":
        assert not alive(int(noted.split()[1]))
    else:
        assert "ansible interrupted" in checkout.calls()
    assert not (checkout.directory / ".rehearsal" / "credentials.json").exists()


def test_the_clients_of_a_killed_rehearsal_end(checkout: Checkout) -> None:
    process = checkout.start(sys.executable, "scripts/rehearse.py", "reboot")
    clients = int(checkout.wait_for("load").split()[1])
    process.kill()
    process.wait()
    eventually(lambda: not alive(clients), "the clients have ended")
    process.communicate()


def test_one_rehearsal_at_a_time(checkout: Checkout) -> None:
    checkout.blocked.touch()
    first = checkout.start(sys.executable, "scripts/rehearse.py")
    checkout.wait_for("ansible -i")
    second = checkout.run(sys.executable, "scripts/rehearse.py")
    assert second.returncode == 1
    assert "Another make rehearse is running in this checkout" in second.stdout
    assert interrupt(first)[0] == 130


# make test

# Tests with real clocks run before all hosts.
CLOCKS = " tests/kit tests/chat"
PASSES = f"""#!/bin/sh
case "$*" in *"{CLOCKS}") exit {{clocks}} ;; esac
"""
# Notes that it runs, and ends when all others have run.
MEETS = """
echo "{name} $*" >> "{calls}"
met() {{
    for other in pytest "molecule.*default" "molecule.*operations"; do
        grep -q "^$other" "{calls}" || return 1
    done
}}
for _ in $(seq 500); do
    if met; then break; fi
    sleep 0.02
done
met || exit 9
echo "{name} ends"
exit {status}
"""
ROLES = "2/6 Lint, tests of Terraform, roles and scripts"


@pytest.fixture
def tests_of(checkout: Checkout) -> Checkout:
    """A checkout whose linters and tests are fakes; those of pytest and Molecule are to be made."""
    bin_ = checkout.directory / ".venv" / "bin"
    for name in ("ruff", "mypy", "yamllint", "ansible-lint", "node", "python"):
        checkout.program(bin_ / name, "#!/bin/sh\n")
    checkout.program(checkout.directory / ".venv-checkov/bin/checkov", "#!/bin/sh\n")
    for name in ("bootstrap", "staging/make-image", "terraform"):
        checkout.program(checkout.directory / "scripts" / name, "#!/bin/sh\n")
    checkout.program(checkout.directory / "scripts/with-services", "#!/bin/sh\n")
    return checkout


@pytest.mark.parametrize(("clocks", "roles", "hosts"), [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_make_test_runs_its_parts_at_once_and_fails_with_each(
    tests_of: Checkout, clocks: int, roles: int, hosts: int
) -> None:
    for name, status in {"pytest": roles, "molecule": hosts}.items():
        told = {"name": name, "status": status, "calls": tests_of.calls_file}
        program = PASSES.format(clocks=clocks) + MEETS.format(**told)
        tests_of.program(tests_of.directory / ".venv/bin" / name, program)
    result = tests_of.run("scripts/test", "all")
    assert result.returncode == max(clocks, roles, hosts), result.stdout
    assert ("Passed in" in result.stdout) is (not result.returncode)
    scenarios = () if clocks else ("default", "operations")
    assert {call for call in tests_of.calls() if call.startswith("molecule ")} == {
        f"molecule test --scenario-name {name}" for name in scenarios
    }
    # What ran beside is told of as a whole, behind what it ran beside.
    lines = result.stdout.splitlines()
    assert lines.count(f"== {ROLES}") == 1
    block = lines[lines.index(f"== {ROLES}") :]
    # Whatever fails, the others go on to their ends. They begin after the tests with clocks.
    if not clocks:
        assert lines.index("molecule ends") < lines.index(f"== {ROLES}")
        assert block[1] == "pytest ends"
        said = "FAILED after" if roles else "done in"
        assert any(line.startswith(f"== {ROLES}: {said}") for line in block)


def test_make_test_ends_both_kinds_of_tests_on_ctrl_c(tests_of: Checkout) -> None:
    for name in ("pytest", "molecule"):
        blocked = tests_of.directory / f"blocked-{name}"
        blocked.touch()
        told = {"name": name, "calls": tests_of.calls_file, "blocked": blocked}
        program = PASSES.format(clocks=0) + BLOCKS.format(**told)
        tests_of.program(tests_of.directory / ".venv/bin" / name, program)
    process = tests_of.start("scripts/test", "all")
    for name in ("pytest", "molecule"):
        tests_of.wait_for(name)
    code, output = interrupt(process)
    assert code == 130
    assert output.endswith("The next make test also removes them.\n")
    assert {"pytest interrupted", "molecule interrupted"} <= set(tests_of.calls())


# Packages

# As apt-get: fails where another one works.
APT_GET = """#!/bin/sh
mkdir "{lock}" || {{ echo "Could not get lock" >&2; exit 100; }}
sleep 0.3
rmdir "{lock}"
"""


def test_two_installs_of_packages_wait_for_each_other(checkout: Checkout) -> None:
    """make test builds tools and the image of its hosts at the same time."""
    lock = checkout.directory / "lock"
    checkout.program(checkout.programs / "apt-get", APT_GET.format(lock=lock))
    install = '. scripts/lib.sh; install_packages "what is needed" a-package'
    both = f"({install}) & first=$!; ({install}) || exit; wait $first"
    result = checkout.run("bash", "-c", both)
    assert result.returncode == 0, result.stdout


# Whose host it is


def test_a_rehearsal_stops_its_own_host_alone(checkout: Checkout) -> None:
    """Whatever else the engine runs: another checkout's rehearsal has an app2, too."""
    calls = checkout.calls_file
    checkout.program(
        checkout.programs / "docker",
        f'#!/bin/sh\necho "docker $*" >> "{calls}"\n[ "$1" != ps ] ||'
        " printf 'channels-kit-ffffff-rehearsal-app2\\nchannels-kit-0a1b2c-rehearsal-app2\\n'\n",
    )
    result = checkout.run(sys.executable, "scripts/rehearse.py", "reboot")
    assert "docker stop --time 120 channels-kit-0a1b2c-rehearsal-app2" in checkout.calls(), (
        result.stdout
    )
    assert not [call for call in checkout.calls() if "ffffff" in call]


def test_verify_in_the_background_returns_at_once_and_leaves_its_verdict(
    checkout: Checkout,
) -> None:
    # Ansible does not end before it is let.
    checkout.blocked.touch()
    result = checkout.run("scripts/verify", "staging", IDLE="086400", BACKGROUND="yes")
    assert result.returncode == 0, result.stdout
    directory = checkout.directory / ".verify" / "staging"
    assert str(directory / "background.log") in result.stdout
    (call,) = eventually(checkout.calls, "Ansible runs")
    assert '"verify_idle": 86400' in call
    checkout.blocked.unlink()
    log = directory / "background.log"
    eventually(lambda: "Verified." in log.read_text(), "the verdict")
    # The log of a run that is made meanwhile is another one.
    assert (directory / "background-last.log").exists()
    assert not (directory / "last.log").exists()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("IDLE", "86401", "0 to 86400"),
        ("IDLE", "soon", "0 to 86400"),
        ("IDLE", "99999999999999999999", "0 to 86400"),
        ("PARTS", "all", "reading, behaviour"),
        ("BACKGROUND", "no", "yes"),
        ("UNITS", "nowhere.yml", "a readable file"),
        # Ansible takes a directory for an inventory of all files in it.
        ("UNITS", "/etc", "docs/verify.md"),
        ("UNITS", "scripts", "or ENV itself"),
        ("UNITS", "/dev/null", "a readable file"),
    ],
)
def test_verify_refuses_what_it_does_not_know(
    checkout: Checkout, name: str, value: str, allowed: str
) -> None:
    result = checkout.run("scripts/verify", "staging", **{name: value})
    # Status 1 is a verdict: something is not as stated.
    assert result.returncode == 2
    assert value in result.stdout
    assert allowed in result.stdout
    assert "line " not in result.stdout
    assert "Nothing was verified." in result.stdout
    assert not checkout.calls_file.exists()


def test_verify_of_other_units_runs_their_playbook_with_both_inventories(
    checkout: Checkout,
) -> None:
    checkout.write("units.yml", "all: {vars: {units_nofile: 1}}\n")
    result = checkout.run("scripts/verify", "staging", UNITS="units.yml")
    assert result.returncode == 0, result.stdout
    (call,) = checkout.calls_file.read_text().splitlines()
    assert "-i inventories/staging -i units.yml playbooks/verify_units.yml" in call


@pytest.mark.parametrize("units", ["inventories/staging", "inventories/staging/../staging/"])
def test_an_inventory_may_name_its_units_itself(checkout: Checkout, units: str) -> None:
    result = checkout.run("scripts/verify", "staging", UNITS=units)
    assert result.returncode == 0, result.stdout
    (call,) = checkout.calls()
    assert "-i inventories/staging playbooks/verify_units.yml" in call


def test_reports_of_another_inventory_are_not_those_of_one_with_the_same_name(
    checkout: Checkout,
) -> None:
    names = ("my ops/hosts.yml", "old/hosts.yml")
    for name in names:
        checkout.write(name, "all: {}\n")
        result = checkout.run("scripts/verify", name)
        assert result.returncode == 0, result.stdout
    variables = [
        json.loads(re.search(r'\{"verify_environment".*?\}', call)[0])  # type: ignore[index]
        for call in checkout.calls()
    ]
    directories = [each["verify_directory"] for each in variables]
    assert len(set(directories)) == len(names)
    assert all(Path(directory).is_dir() for directory in directories)
    assert directories[0].endswith("-my ops-hosts.yml")


# What a plan and a calibration leave


def members(session: int) -> list[int]:
    """The processes of a session that run, besides its first one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # The name, in parentheses, may hold anything; state, parent, group and session follow.
            state, _, _, own = path.read_text().rpartition(")")[2].split()[:4]
            if int(own) == session and state != "Z" and int(path.parent.name) != session:
                found.append(int(path.parent.name))
    return found


@pytest.fixture
def planning(checkout: Checkout) -> Checkout:
    """A checkout whose plan and calibration run, with an Ansible that says what a test writes."""
    shutil.copytree(ROOT / "plugins", checkout.directory / "plugins")
    shutil.copytree(ROOT / "roles/cluster", checkout.directory / "roles/cluster")
    return checkout


@pytest.mark.parametrize("program", ["plan", "calibrate"])
def test_ctrl_c_while_the_inventory_is_read_ends_ansible_and_shows_no_traceback(
    planning: Checkout, program: str
) -> None:
    planning.blocked.touch()
    process = planning.start(sys.executable, f"scripts/{program}.py", "--", "staging")
    planning.wait_for("ansible ")
    code, output = interrupt(process)
    assert code == 130
    assert "ansible interrupted" in planning.calls()
    assert "Interrupted." in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda n: n.name
)
def test_whatever_ends_a_calibration_ends_its_program_on_the_hosts(
    planning: Checkout, number: signal.Signals
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as worker:
        worker.settimeout(TIMEOUT)
        port = worker.getsockname()[1]
        here = {
            "host": "app1",
            "connection": "local",
            "user": "root",
            "become": False,
            "names": ["chat.example.org"],
            "edge_tls": False,
            "sockets": [],
            "users": {},
            "server": "uvicorn",
            "sockets_per_worker": 5000,
            "figures": {},
            "edges": [],
            "workers": [
                {"name": "app1", "host": "app1", "port": port, "url": f"http://127.0.0.1:{port}"}
            ],
        }
        values = {"groups": {"channels": ["app1"]}, "hosts": {"app1": here}, "errors": {}}
        planning.write("values.json", json.dumps({**values, "table": {}, "refused": []}))
        planning.program(
            planning.directory / "scripts/ansible-playbook",
            "#!/bin/sh\n"
            "for argument; do :; done\n"
            'file=${argument#*\'"values_file": "\'}\n'
            'cp values.json "${file%%\'"\'*}"\n',
        )
        process = planning.start(sys.executable, "scripts/calibrate.py", "--", "staging")
        # The program on the host asks the worker, and gets no answer.
        asking, _ = worker.accept()
        with asking:
            assert members(process.pid)
            if number == signal.SIGINT:
                os.killpg(process.pid, number)
            else:
                os.kill(process.pid, number)
            output, _ = process.communicate(timeout=TIMEOUT)
            eventually(lambda: not members(process.pid), "the program on the host ends")
            # And with it its connections.
            asking.settimeout(TIMEOUT)
            with contextlib.suppress(ConnectionError):
                while asking.recv(4096):
                    pass
    assert "Traceback" not in output
    if number != signal.SIGKILL:
        assert process.returncode == 130, output
        assert "Interrupted. The figures did not change." in output
    assert not (planning.directory / "inventories/staging/group_vars/all/calibration.yml").exists()
