"""The filters about channels_processes, by calls alone: units, their files, and who has what."""

import re
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from plugins.filter import processes
from plugins.test.processes import processes as are_allowed

from .formats import parse_unit

Tree = dict[str, Any]
TEMPLATE = (
    "[Unit]\nDescription=@DESCRIPTION@\n[Service]\nEnvironment=CHANNELS_KIT_WORKER=@LABEL@\n"
    "ExecStart=@COMMAND@\n@LINES@\n"
)
RELEASE = "/srv/channels/releases/0123456789ab"
SEVERAL: Tree = {
    "celery": {"celery": "worker", "queues": ["celery", "mail"], "concurrency": 4},
    "beat": {"celery": "beat"},
    "mail": {"runworker": ["mail", "-a.b"], "instances": 2},
    "outbox": {"manage": "send --subject 'two words' 100%"},
    "bot": {"command": ["python", "-m", "bot", "$HOME", "%i", 'a "b"'], "once": True},
}


def service(name: str, process: Tree, celery: str = "config") -> Tree:
    """The section of a process' unit."""
    files = processes.process_files(TEMPLATE, {name: process}, "app1", RELEASE, celery)
    (content,) = files.values()
    found: Tree = parse_unit(content)["Service"]
    return found


def test_every_process_has_a_unit_and_several_have_numbers() -> None:
    units = processes.process_units(SEVERAL, "app1", {}, "6379", 6380)
    assert [(unit["name"], unit["label"]) for unit in units] == [
        ("channels-process-celery.service", "app1:celery"),
        ("channels-process-beat.service", "app1:beat"),
        ("channels-process-mail@1.service", "app1:mail@1"),
        ("channels-process-mail@2.service", "app1:mail@2"),
        ("channels-process-outbox.service", "app1:outbox"),
        ("channels-process-bot.service", "app1:bot"),
    ]


@pytest.mark.parametrize(
    ("process", "ports"),
    [
        ({"celery": "worker"}, [6380, 6379]),
        # It connects when it has something to send.
        ({"celery": "beat"}, []),
        ({"runworker": ["mail"]}, [6379]),
        ({"manage": "x"}, []),
        ({"command": ["python"], "connected_to": [5672]}, [5672]),
        ({"celery": "worker", "connected_to": []}, []),
    ],
)
def test_a_process_is_ready_by_its_connections_where_they_are_known(
    process: Tree, ports: list[int]
) -> None:
    (unit,) = processes.process_units({"x": process}, "app1", {}, 6379, 6380)
    assert unit["connected_to"] == ports


def test_a_process_of_another_host_is_no_unit_here() -> None:
    units = processes.process_units(SEVERAL, "app1", {"beat": "app2", "bot": "app1"}, 6379, 6380)
    names = [unit["name"] for unit in units]
    assert "channels-process-beat.service" not in names
    assert "channels-process-bot.service" in names
    nobody = processes.process_units(SEVERAL, "app1", {"beat": "", "bot": ""}, 6379, 6380)
    assert {unit["label"] for unit in nobody}.isdisjoint({"app1:beat", "app1:bot"})


def test_a_unit_file_runs_the_command_of_its_process() -> None:
    files = processes.process_files(TEMPLATE, SEVERAL, "app1", RELEASE, "config")
    assert sorted(files) == [
        *("channels-process-beat.service", "channels-process-bot.service"),
        *("channels-process-celery.service", "channels-process-mail@.service"),
        "channels-process-outbox.service",
    ]
    # Each instance has a name of its own, in messages and for Celery.
    assert "CHANNELS_KIT_WORKER=app1:mail@%i" in files["channels-process-mail@.service"]
    assert not any(re.search(r"@[A-Z]+@", content) for content in files.values())


@pytest.mark.parametrize(
    ("process", "command"),
    [
        (
            {"celery": "worker", "queues": ["celery", "mail"], "concurrency": 4},
            "-m celery --app config worker --concurrency=4 --loglevel=INFO --without-gossip"
            " --without-mingle --queues=celery,mail --hostname=x@app1",
        ),
        (
            {"celery": "worker", "instances": 3, "arguments": ["--pool=solo"]},
            "-m celery --app config worker --concurrency=2 --loglevel=INFO --without-gossip"
            " --without-mingle --pool=solo --hostname=x-%i@app1",
        ),
        (
            {"celery": "beat", "arguments": ["--scheduler=a:B"]},
            "-m celery --app config beat --loglevel=INFO"
            " --schedule=/var/lib/channels-beat/x/schedule --scheduler=a:B",
        ),
        ({"runworker": ["a!b", "-x"]}, 'manage.py runworker -- "a!b" -x'),
        ({"manage": "send 'two words' 100% $x"}, 'manage.py send "two words" 100%% $$x'),
        ({"command": ["python", 'a "b"', "c\\d", "", ";"]}, r'"a \"b\"" "c\\d" "" ";"'),
    ],
)
def test_a_command_line_is_what_systemd_reads(process: Tree, command: str) -> None:
    assert service("x", process)["ExecStart"] == [f"{RELEASE}/python {command}"]


def test_a_program_of_the_host_is_run_by_its_path() -> None:
    assert service("x", {"command": ["/usr/bin/env", "true"]})["ExecStart"] == ["/usr/bin/env true"]


def test_a_worker_of_celery_ends_its_tasks_and_a_beat_keeps_its_times() -> None:
    assert service("celery", {"celery": "worker"})["KillMode"] == ["mixed"]
    assert service("beat", {"celery": "beat"})["StateDirectory"] == ["channels-beat/beat"]


def test_celery_without_an_application_is_refused_by_name() -> None:
    with pytest.raises(AnsibleFilterError, match="no Celery application was found in the release"):
        service("celery", {"celery": "worker"}, celery="")
    assert service("mail", {"runworker": ["mail"]}, celery="")


# Who has what runs once


def hold(*told: Tree, **given: Tree) -> dict[str, str]:
    """Who has the beat, after what hosts have told."""
    given = given or {name: {"beat": {"celery": "beat"}} for name in ("app1", "app2", "app3")}
    hostvars = {name: {"channels_processes": each} for name, each in given.items()}
    return processes.holders(list(given), hostvars, told)


def told(host: str, *enabled: str, drained: bool = False) -> Tree:
    names = [f"channels-process-{name}.service" for name in enabled]
    return {"host": host, "enabled": names, "drained": drained}


def test_what_runs_once_begins_on_the_first_host() -> None:
    assert hold(told("app1"), told("app2"), told("app3")) == {"beat": "app1"}


def test_the_first_host_that_is_not_drained_has_it() -> None:
    assert hold(told("app1", drained=True), told("app2")) == {"beat": "app2"}
    every = [told(name, drained=True) for name in ("app1", "app2", "app3")]
    assert hold(*every) == {"beat": ""}


def test_the_host_that_has_it_keeps_it_when_another_one_comes_back() -> None:
    assert hold(told("app1"), told("app2", "beat"), told("app3")) == {"beat": "app2"}


def test_a_drained_host_does_not_keep_it() -> None:
    assert hold(told("app1", "beat", drained=True), told("app2")) == {"beat": "app2"}


def test_a_host_that_does_not_answer_may_have_it() -> None:
    """Better none for some time than two."""
    assert hold(told("app2"), told("app3")) == {"beat": "app1"}
    assert hold(told("app3", "beat")) == {"beat": "app3"}


def test_a_process_is_on_hosts_that_the_inventory_gives_it() -> None:
    beat = {"beat": {"celery": "beat"}}
    assert hold(told("app1"), told("app2"), app1={}, app2=beat) == {"beat": "app2"}
    assert hold(told("app1"), app1={"mail": {"runworker": ["mail"]}}) == {}


def test_every_process_has_its_connections_and_each_child_of_celery() -> None:
    hostvars: Tree = {
        "app1": {"channels_processes": SEVERAL},
        "app2": {"channels_processes": SEVERAL},
        "app3": {},
    }
    # On two hosts: 4 children, 2 of mail, 1 of outbox; and once: beat and bot.
    assert processes.process_count(list(hostvars), hostvars) == 2 * (4 + 2 + 1) + 2


def test_a_process_that_is_refused_is_not_counted() -> None:
    """The preflight counts before it refuses, and names the process alone."""
    wrong = {"a": "celery", "b": {"manage": "x", "instances": "many"}, "c": {"manage": "x"}}
    assert processes.process_count(["app1"], {"app1": {"channels_processes": wrong}}) == 1
    assert processes.process_count(["app1"], {"app1": {"channels_processes": "x"}}) == 0


def test_a_broker_is_needed_where_celery_is() -> None:
    assert processes.uses_celery(SEVERAL)
    assert not processes.uses_celery({"mail": SEVERAL["mail"]})


# What is allowed


@pytest.mark.parametrize("name", SEVERAL)
def test_processes_are_allowed(name: str) -> None:
    assert are_allowed({name: SEVERAL[name]}, "app1")


@pytest.mark.parametrize(
    "process",
    [
        *({}, None, "celery", {"celery": "flower"}, {"celery": True}),
        *({"celery": "worker", "manage": "x"}, {"celery": "worker", "concurrency": 0}),
        *({"celery": "worker", "concurrency": True}, {"celery": "worker", "queues": []}),
        *({"celery": "worker", "queues": ["a,b"]}, {"celery": "worker", "queues": "mail"}),
        *({"celery": "beat", "instances": 2}, {"celery": "beat", "once": False}),
        *({"celery": "beat", "queues": ["mail"]}, {"celery": "worker", "concurency": 2}),
        *({"runworker": []}, {"runworker": "mail"}, {"runworker": ["mail", "mail"]}),
        *({"runworker": ["a b"]}, {"runworker": ["x" * 100]}, {"runworker": ["ä"]}),
        *({"manage": ""}, {"manage": "'a"}, {"manage": "--help"}, {"manage": "a\nb"}),
        *({"manage": ["a"]}, {"manage": "a", "once": "yes"}, {"manage": "a", "instances": 65}),
        *({"command": []}, {"command": ["bot"]}, {"command": "python -m bot"}),
        *({"command": ["python", 1]}, {"command": ["/a/../b"], "connected_to": [0]}),
    ],
)
def test_what_cannot_be_run_is_not_allowed(process: Any) -> None:
    assert not are_allowed({"x": process}, "app1")


def test_a_name_is_one_of_a_unit_and_not_too_long_with_its_host() -> None:
    process = {"manage": "x"}
    for name in ("Mail", "1a", "a b", "a@b", "a" * 41, "", "-a", 5):
        assert not are_allowed({name: process}, "app1")
    assert are_allowed({"a" * 40: process}, "h" * 56)
    assert not are_allowed({"a" * 40: process}, "h" * 57)
    assert not are_allowed(["mail"], "app1")
