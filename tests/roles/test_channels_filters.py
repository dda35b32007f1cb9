"""The filters about units, by calls alone; tests/roles/test_rollout.py runs them in the plays."""

import hashlib
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from plugins.filter import channels

Tree = dict[str, Any]
WORKERS = [
    {"name": f"{host}:{port}", "host": host, "port": port, "url": f"http://{host}:{port}"}
    for host in ("app1", "app2")
    for port in (8001, 8002)
]
WEB1, WEB2 = "channels-web@8001.service", "channels-web@8002.service"
WEB_FILE = "/etc/systemd/system/channels-web@.service"
CONTENTS = {WEB_FILE: "[Unit]"}


def found(**more: Any) -> Tree:
    told = {"active": True, "outdated": False, "ready": True, "revision": "old-1", "process": 7}
    return {
        **told,
        "path": WEB_FILE,
        "content": "[Unit]",
        "nofile_stale": False,
        **more,
    }


def test_a_host_runs_a_unit_for_each_worker() -> None:
    assert channels.units(WORKERS[:2]) == [
        {"name": WEB1, "label": "app1:8001", "url": "http://app1:8001"},
        {"name": WEB2, "label": "app1:8002", "url": "http://app1:8002"},
    ]


def test_a_revision_names_the_release_and_what_the_unit_holds() -> None:
    revisions = channels.revisions({"channels-web@.service": "[Unit]\n"}, "0123")
    digest = hashlib.sha256(b"[Unit]\n").hexdigest()
    assert revisions == {"channels-web@.service": f"0123-{digest[:8]}"}


def test_a_unit_file_is_written_with_its_revision() -> None:
    files = {"channels-web@.service": "Environment=REVISION=@REVISION@\n"}
    assert channels.unit_contents(files, {"channels-web@.service": "0123-ab"}) == {
        "/etc/systemd/system/channels-web@.service": "Environment=REVISION=0123-ab\n"
    }


def test_every_unit_gets_the_revision_of_its_unit_file() -> None:
    files = {"channels-web@.service": "w", "channels-process-celery.service": "c"}
    units = [{"name": WEB1}, {"name": "channels-process-celery.service"}]
    assert channels.with_revisions(units, files) == [
        {"name": WEB1, "revision": "w"},
        {"name": "channels-process-celery.service", "revision": "c"},
    ]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (WEB1, "channels-web@.service"),
        ("channels-process-mail@2.service", "channels-process-mail@.service"),
        ("channels-process-celery.service", "channels-process-celery.service"),
    ],
)
def test_an_instance_has_the_file_of_its_template(name: str, file: str) -> None:
    assert channels.unit_file(name) == file


def test_a_unit_file_that_is_not_wanted_is_left_over_and_an_instance_is_no_file() -> None:
    found = ["channels-web@.service", "channels-web@8001.service", "channels-celery.service"]
    wanted = ["channels-web@.service"]
    assert channels.left_unit_files(found, wanted) == ["channels-celery.service"]


def test_units_run_or_do_not() -> None:
    looked = {WEB1: found(), WEB2: found(active=False)}
    assert channels.running(looked) == [WEB1]
    assert channels.absent(looked) == [WEB2]


def test_what_runs_with_another_revision_is_rolled() -> None:
    wanted = [{"name": WEB1}, {"name": WEB2}, {"name": "channels-web@8003.service"}]
    looked = {WEB1: found(), WEB2: found(outdated=True, process=9)}
    assert channels.outdated(wanted, looked, CONTENTS) == [{"name": WEB2, "replaced_process": 9}]


@pytest.mark.parametrize(
    "more", [{"nofile_stale": True}, {"content": "[Unit]\nby hand"}, {"content": None}]
)
def test_what_would_start_otherwise_now_is_rolled_if_it_runs(more: Tree) -> None:
    wanted = [{"name": WEB1}, {"name": WEB2}]
    looked = {WEB1: found(**more), WEB2: found(**more, active=False)}
    assert channels.outdated(wanted, looked, CONTENTS) == [{"name": WEB1, "replaced_process": 7}]


def test_a_unit_file_that_no_role_writes_does_not_roll_again_and_again() -> None:
    own = found(path="/etc/systemd/system/channels-web@8001.service", content="[Unit]\nby hand")
    assert channels.outdated([{"name": WEB1}], {WEB1: own}, CONTENTS) == []


def test_a_restart_rolls_everything_that_runs() -> None:
    wanted = [{"name": WEB1}, {"name": WEB2}]
    looked = {WEB1: found(), WEB2: found(active=False)}
    assert channels.outdated(wanted, looked, CONTENTS, restart=True) == [
        {"name": WEB1, "replaced_process": 7}
    ]


def test_what_ran_before_is_what_is_put_back() -> None:
    wanted = [{"name": WEB1, "revision": "new"}, {"name": WEB2, "revision": "new"}]
    looked = {WEB1: found(), WEB2: found(revision="", content="")}
    assert channels.former_units(wanted, looked) == [{"name": WEB1, "revision": "old-1"}]
    assert channels.former_files({**looked, "a": found()}) == [
        {"path": WEB_FILE, "content": "[Unit]"}
    ]


def test_nothing_is_put_back_where_nothing_was_looked_at() -> None:
    assert channels.former_units([{"name": WEB1}], {}) == []
    assert channels.former_files({}) == []


def test_a_surplus_worker_is_asked_by_its_port_and_others_are_not_asked() -> None:
    surplus = [
        *("channels-web@8003.service", "channels-process-mail@2.service"),
        *("channels-celery.service", "channels-process-celery.service"),
    ]
    assert channels.surplus_units(
        [{"name": name} for name in surplus], "app1", "[2001:db8::1]"
    ) == [
        {"name": surplus[0], "label": "app1:8003", "url": "http://[2001:db8::1]:8003"},
        {"name": surplus[1], "label": "app1:mail@2"},
        {"name": surplus[2], "label": "app1:celery"},
        {"name": surplus[3], "label": "app1:celery"},
    ]


# The proof


def proved(number: int = 0, failed: bool = False, **hostvars: Tree) -> list[str]:
    known = {"app1": {}, "app2": {}, **hostvars}
    waves = [{"workers": ["app1:8001"]}, {"workers": ["app1:8002", "app2:8001"]}]
    workers = channels.proved_workers(WORKERS, known, waves, number, failed)
    return [worker["name"] for worker in workers]


def looked(**more: Any) -> Tree:
    return {"_channels_look": {"units": {WEB1: found(**more), WEB2: found(**more)}}}


def test_workers_that_were_ready_before_are_proved() -> None:
    every = [worker["name"] for worker in WORKERS]
    assert proved(app1=looked(), app2=looked()) == every
    assert proved(app1=looked(), app2=looked(ready=False)) == every[:2]


def test_what_was_not_ready_is_proved_from_its_wave_on() -> None:
    """The new release may be what mends it."""
    assert proved(0) == ["app1:8001"]
    assert proved(1) == ["app1:8001", "app1:8002", "app2:8001"]
    assert proved(1, failed=True) == []
    sick = looked(ready=False)
    assert proved(0, app1=sick, app2=looked()) == ["app1:8001", "app2:8001", "app2:8002"]


def test_workers_that_were_just_started_are_proved_and_not_after_a_failure() -> None:
    started = {**looked(active=False, ready=False), "_channels_start": {"changed": True}}
    assert proved(app1=started) == ["app1:8001", "app1:8002"]
    assert proved(app1=started, failed=True) == []
    skipped = {**started, "_channels_start": {"skipped": True}}
    assert proved(app1=skipped) == ["app1:8001"]


def test_every_filter_is_known_by_the_name_of_the_role() -> None:
    filters = channels.FilterModule().filters()
    assert filters
    assert all(name.startswith("channels_") for name in filters)


def failed_on(host: str, now: Tree, silent: tuple[str, ...] = (), **before: Any) -> Tree:
    """The variables of a host, as after a roll that has failed."""
    return {
        host: {
            "_channels_look": {"units": {WEB1: found(**before)}},
            "_channels_restored": {"units": {WEB1: now}},
            "_channels_servers": {"silent": list(silent)},
        }
    }


def test_units_that_run_and_are_not_ready_are_named_with_the_reason() -> None:
    hostvars = {
        **failed_on("app1", {}, ready=False, reason="answers 503"),
        **failed_on("app2", {}, active=False, ready=False, reason=""),
        **failed_on("app3", {}),
        "app4": {},
    }
    assert channels.not_ready(list(hostvars), hostvars) == ["app1:8001: answers 503"]


@pytest.mark.parametrize(
    ("hostvars", "causes"),
    [
        (failed_on("app1", found()), []),
        (failed_on("app1", found(), ("layer: refused",)), ["app1: no answer from layer: refused"]),
        (
            failed_on("app1", found(ready=False, reason="answers 503")),
            ["app1:8001 was ready before the roll: answers 503"],
        ),
        # Restarted by the roll, or by itself: no witness.
        (failed_on("app1", found(ready=False, process=8)), []),
        (
            failed_on("app1", found(ready=False), ready=False),
            ["No unit was ready before the roll."],
        ),
        ({**failed_on("app1", found(ready=False), ready=False), **failed_on("app2", found())}, []),
        (
            {**failed_on("app1", found()), "app2": {"_channels_servers": {"unreachable": True}}},
            ["app2: the host cannot be reached"],
        ),
        # A host that was idle, and one that was left out.
        ({"app1": {"_channels_restored": {"skipped": True}}, "app2": {}}, []),
    ],
)
def test_what_is_no_fault_of_the_release(hostvars: Tree, causes: list[str]) -> None:
    assert channels.causes(list(hostvars), hostvars) == causes


def test_what_is_not_as_before_is_named() -> None:
    worker = {
        "name": WEB1,
        "label": "app1:8001",
        "revision": "old-1",
        "url": "http://10.0.0.1:8001",
    }
    former = [worker]
    before = {WEB1: found()}

    def differing(lenient: bool = False, **now: Any) -> list[str]:
        return channels.not_as_before(
            former, before, {WEB1: found(up_to_date=True, **now)}, lenient
        )

    assert differing() == []
    assert differing(ready=False, reason="answers 503") == ["app1:8001 is not ready: answers 503"]
    assert differing(True, ready=False, reason="answers 503") == []
    gone = {WEB1: found(up_to_date=False, active=False, revision="")}
    assert channels.not_as_before(former, before, gone, True) == ["app1:8001 does not run"]
    other = {WEB1: found(up_to_date=False, revision="new-1")}
    assert channels.not_as_before(former, before, other, True) == ["app1:8001 runs new-1"]
    # In an outage, a background process that has exited is systemd's to start again.
    background = [{key: value for key, value in worker.items() if key != "url"}]
    assert channels.not_as_before(background, before, gone, True) == []
    assert channels.not_as_before(background, before, gone) == ["app1:8001 does not run"]
    assert channels.not_as_before(background, before, other, True) == ["app1:8001 runs new-1"]


def test_workers_that_a_roll_proves_are_counted_without_background_units() -> None:
    rolled = [
        {"name": WEB1, "url": "http://app1:8001"},
        {"name": "channels-process-celery.service"},
    ]
    hostvars = {"app1": {"_channels_rolled_units": rolled}, "app2": {}}
    assert channels.rolled_workers(["app1", "app2"], hostvars) == 1
    hostvars = {"app1": {"_channels_rolled_units": rolled[1:]}}
    assert channels.rolled_workers(["app1"], hostvars) == 0


@pytest.mark.parametrize(
    "noise", ["", "sitecustomize: loaded\n", '{"not": "the answer"}\n', "[1]\n"]
)
def test_an_answer_is_told_from_what_else_a_program_prints(noise: str) -> None:
    assert channels.answer(f'{noise}{{"id": "0123456789ab"}}\n') == {"id": "0123456789ab"}
    assert channels.answer('{"id": "0123456789ab"}\nbye\n[2]\n') == {"id": "0123456789ab"}


@pytest.mark.parametrize("output", ["", "sitecustomize: loaded\n", "[1]\n", '{"id": \n'])
def test_a_program_without_an_answer_is_an_error(output: str) -> None:
    with pytest.raises(AnsibleFilterError, match="printed no JSON object"):
        channels.answer(output)
