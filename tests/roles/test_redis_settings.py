"""The module redis_settings, against a real Redis: what is in effect, in Redis' own words."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .redis_server import ADMINISTRATOR, Instance


@pytest.fixture
def running() -> Iterator[Instance]:
    # Redis enters it as its own user.
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    made = Instance(directory)
    made.bring_users()
    made.start()
    yield made
    made.stop()
    shutil.rmtree(directory)


def value(instance: Instance, name: str) -> str:
    lines = instance.cli("CONFIG", "GET", name).splitlines()
    return lines[1] if len(lines) > 1 else ""


def test_an_instance_that_has_what_it_shall_is_left_alone(running: Instance) -> None:
    answer = running.bring_settings()
    assert (answer["changed"], answer["running"], answer["restart_required"]) == (
        False,
        True,
        False,
    )
    assert answer["not_compared"] == []


@pytest.mark.parametrize(
    ("name", "written", "in_effect"),
    [
        ("maxmemory", "64mb", str(64 * 1024**2)),
        ("maxmemory-policy", "noeviction", "noeviction"),
        ("tcp-keepalive", "60", "60"),
        ("maxclients", "90", "90"),
        ("appendonly", "YES", "yes"),
        ("save", "3600 1 300 100", "3600 1 300 100"),
        ("client-output-buffer-limit", "pubsub 64mb 8mb 30", None),
        ("notify-keyspace-events", "KEA", "AKE"),
        ("slowlog-log-slower-than", "5000", "5000"),
    ],
)
def test_what_can_be_set_is_set_without_a_restart(
    running: Instance, name: str, written: str, in_effect: str | None
) -> None:
    """And is the same afterwards, however Redis writes it."""
    before = value(running, name)
    running.settings[name] = written
    predicted = running.bring_settings(check=True)
    assert value(running, name) == before
    answer = running.bring_settings()
    assert predicted["set"] == answer["set"] == ([] if before == in_effect else [name])
    assert in_effect in (None, value(running, name))
    assert answer["restart_required"] is False
    assert running.bring_settings()["changed"] is False


def test_a_setting_that_is_wanted_no_longer_has_its_default_again(running: Instance) -> None:
    running.settings["hz"] = "50"
    running.bring_settings()
    del running.settings["hz"]
    assert running.bring_settings()["set"] == ["hz"]
    assert value(running, "hz") == "10"


def test_what_was_set_by_hand_is_put_right(running: Instance) -> None:
    running.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    answer = running.bring_settings()
    assert answer["set"] == ["maxmemory-policy"]
    assert answer["diff"]["before"] == "maxmemory-policy allkeys-lru\n"
    assert value(running, "maxmemory-policy") == "noeviction"


@pytest.mark.parametrize(
    ("name", "written"),
    [("databases", "20"), ("dir", "/"), ("aclfile", "/nowhere.acl"), ("appenddirname", "a.aof")],
)
def test_what_cannot_be_set_takes_a_restart(running: Instance, name: str, written: str) -> None:
    running.settings[name] = written
    for _ in range(2):  # until it was restarted
        answer = running.bring_settings()
        assert answer["restart_required"] is True
        (reason,) = answer["reasons"]
        assert reason.startswith(f"{name}: ERR CONFIG SET failed")


def test_after_the_restart_nothing_is_left_to_do(running: Instance) -> None:
    running.settings["databases"] = "20"
    running.stop()
    running.start()
    assert running.bring_settings()["changed"] is False


def test_an_instance_that_is_not_there_is_no_change(running: Instance) -> None:
    running.stop()
    answer = running.bring_settings()
    assert (answer["changed"], answer["running"]) == (False, False)


def test_what_redis_lowers_by_itself_is_no_difference_until_it_may_open_more(
    running: Instance,
) -> None:
    """With a limit of files that is too low it has fewer clients than it was told."""
    running.settings["maxclients"] = "1000000"
    running.stop()
    running.start()
    lowered = int(value(running, "maxclients"))
    assert lowered < 1000000
    assert running.bring_settings()["changed"] is False
    running.cli("CONFIG", "SET", "maxclients", str(lowered - 1))
    assert running.bring_settings()["set"] == ["maxclients"]


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files are: other tests have a scratch server at the same time."""
    with tempfile.TemporaryDirectory() as directory:
        # The scratch server is not root.
        Path(directory).chmod(0o755)
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield Path(directory)


@pytest.mark.parametrize(
    ("name", "written", "words"),
    [
        ("maxmemory", "plenty", "'maxmemory plenty' argument must be a memory value"),
        ("nonsense", "1", "'nonsense 1' Bad directive or wrong number of arguments"),
        ("maxmemory-policy", "often", "argument(s) must be one of the following"),
        ("loadmodule", "/nowhere.so", "Can't load module from /nowhere.so"),
        ("dir", "/nowhere", "'dir /nowhere' No such file or directory"),
    ],
)
@pytest.mark.parametrize("check", [False, True], ids=["run", "dry run"])
def test_what_redis_refuses_is_refused_in_its_words(
    running: Instance,
    scratch: Path,
    name: str,
    written: str,
    words: str,
    check: bool,
) -> None:
    running.settings["tcp-keepalive"] = "77"
    running.settings[name] = written
    answer = running.bring_settings(check=check)
    assert answer["failed"] is True
    assert words in answer["msg"]
    assert "nothing changed" in answer["msg"]
    assert value(running, "tcp-keepalive") == "300"
    assert list(scratch.iterdir()) == []


def test_directives_that_redis_does_not_tell_are_named(running: Instance) -> None:
    running.settings["rename-command"] = "DEBUG ''"
    answer = running.bring_settings()
    assert (answer["changed"], answer["not_compared"]) == (False, ["rename-command"])


def test_an_instance_that_refuses_the_administrator_takes_a_restart(running: Instance) -> None:
    running.password_file.write_text("quite-another-administrator")
    answer = running.bring_settings()
    assert answer["restart_required"] is True
    assert "refuses the user administrator" in answer["reasons"][0]


def test_no_answer_shows_a_secret(running: Instance) -> None:
    secret = "password-of-the-primary"
    running.settings["tls-key-file-pass"] = secret
    answer = running.bring_settings()
    assert answer["set"] == ["tls-key-file-pass"]
    assert secret not in answer["output"]
    assert ADMINISTRATOR not in answer["output"]
