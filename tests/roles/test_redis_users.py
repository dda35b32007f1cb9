"""The module redis_users, against a real Redis: in memory and in the file, whatever was left."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from .redis_server import ADMINISTRATOR, RULES, SECRET, Instance

NEW = "another-password-of-the-application"


def digest(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    made = Instance(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def running(instance: Instance) -> Instance:
    instance.bring_users()
    instance.start()
    return instance


def test_without_a_server_the_file_is_written_and_redis_reads_it(instance: Instance) -> None:
    first, second = instance.bring_users(), instance.bring_users()
    assert (first["changed"], first["running"]) == (True, False)
    assert second["changed"] is False
    assert instance.acl.read_text().splitlines() == [
        "user default off ~* &* +@all",
        f"user administrator on #{digest(ADMINISTRATOR)} ~* &* +@all",
        f"user channels on #{digest(SECRET)} {RULES}",
    ]
    assert oct(instance.acl.stat().st_mode)[-3:] == "640"

    instance.start()
    assert instance.lets_in(SECRET)
    # What Redis has read is what was wanted, in its own words.
    assert instance.bring_users()["changed"] is False
    assert instance.bring_users(state="exact")["changed"] is False


def test_nobody_logs_in_as_default_or_without_a_password(running: Instance) -> None:
    for password in ("", "anything", ADMINISTRATOR, SECRET):
        assert "WRONGPASS" in running.cli("PING", user="default", password=password) or (
            "NOAUTH" in running.cli("PING", user="default", password=password)
        )
        if password != ADMINISTRATOR:
            assert not running.lets_in(password, user="administrator")
    assert not running.lets_in("")


def test_a_new_password_is_good_beside_the_former_one_until_it_is_revoked(
    running: Instance,
) -> None:
    added = running.bring_users(NEW)
    assert (added["changed"], added["users"]) == (True, ["channels"])
    assert running.lets_in(SECRET)
    assert running.lets_in(NEW)
    assert running.bring_users(NEW)["changed"] is False

    # A restart in between cuts nobody off.
    running.stop()
    running.start()
    assert running.lets_in(SECRET)
    assert running.bring_users(NEW)["changed"] is False

    assert running.bring_users(NEW, state="exact")["users"] == ["channels"]
    assert not running.lets_in(SECRET)
    assert running.lets_in(NEW)
    assert running.bring_users(NEW, state="exact")["changed"] is False
    assert digest(SECRET) not in running.acl.read_text()


def test_a_file_that_was_written_and_not_applied_is_applied(running: Instance) -> None:
    """As a run leaves it that ends between the two."""
    running.acl.write_text(running.acl.read_text().replace(digest(SECRET), digest(NEW)))
    assert not running.lets_in(NEW)
    assert running.bring_users(NEW)["users"] == ["channels"]
    assert running.lets_in(NEW)
    assert running.lets_in(SECRET)
    assert running.bring_users(NEW)["changed"] is False


def test_what_was_applied_and_not_written_is_written(running: Instance) -> None:
    written = running.acl.read_text()
    running.bring_users(NEW)
    running.acl.write_text(written)
    again = running.bring_users(NEW)
    assert (again["changed"], again["users"]) == (True, [])
    assert digest(NEW) in running.acl.read_text()


@pytest.mark.parametrize("place", ["memory", "file"])
def test_a_revocation_that_was_interrupted_is_completed(running: Instance, place: str) -> None:
    running.bring_users(NEW)
    if place == "memory":
        running.cli("ACL", "SETUSER", "channels", f"!{digest(SECRET)}")
    else:
        former = f"#{digest(SECRET)} "
        running.acl.write_text(running.acl.read_text().replace(former, ""))
    assert running.bring_users(NEW, state="exact")["changed"] is True
    assert not running.lets_in(SECRET)
    assert digest(SECRET) not in running.acl.read_text()
    assert running.bring_users(NEW, state="exact")["changed"] is False


@pytest.mark.parametrize(
    "drift",
    [
        ("channels", "+@admin"),
        ("channels", "-info"),
        ("channels", "resetkeys", "~a"),
        ("channels", "resetchannels"),
        ("channels", "nopass"),
        ("channels", "off"),
        ("channels", "(~b +get)"),
        ("default", "on", "nopass"),
        ("default", "-@all"),
        ("default", "nopass"),
    ],
    ids=" ".join,
)
def test_what_was_changed_by_hand_is_put_right(running: Instance, drift: tuple[str, ...]) -> None:
    assert running.cli("ACL", "SETUSER", *drift) == "OK"
    answer = running.bring_users()
    assert answer["users"] == [drift[0]]
    assert running.bring_users()["changed"] is False
    assert running.lets_in(SECRET)
    assert "NOAUTH" in running.cli("PING", user="default", password="")


def test_users_that_are_not_wanted_stay_until_passwords_are_revoked(running: Instance) -> None:
    running.cli("ACL", "SETUSER", "old", "on", ">password-of-old", "~*", "+@all")
    running.cli("ACL", "SAVE")
    running.bring_users()
    assert running.lets_in("password-of-old", user="old")
    assert "user old on" in running.acl.read_text()
    running.bring_users(state="exact")
    assert not running.lets_in("password-of-old", user="old")
    assert "user old" not in running.acl.read_text()


def test_an_administrator_without_a_password_is_repaired(instance: Instance) -> None:
    """As a pipeline left it whose first program was missing."""
    empty = digest("")
    instance.acl.write_text(
        "user default off\n"
        f"user administrator on #{empty} ~* &* +@all\n"
        f"user channels on #{digest(SECRET)} {RULES}\n"
    )
    instance.start()
    assert instance.cli("PING", password="") == "PONG"
    answer = instance.bring_users()
    assert answer["users"] == ["default", "administrator"]
    assert instance.cli("PING") == "PONG"
    assert empty not in instance.acl.read_text()
    assert empty not in instance.cli("ACL", "LIST")
    assert instance.bring_users()["changed"] is False


def test_an_instance_that_refuses_the_administrator_is_to_be_restarted(running: Instance) -> None:
    running.password_file.write_text("quite-another-administrator")
    answer = running.bring_users()
    assert (answer["changed"], answer["restart_required"]) == (True, True)
    # Until it was.
    assert running.bring_users()["restart_required"] is True
    running.stop()
    running.start()
    assert running.bring_users(state="exact")["changed"] is True
    assert running.cli("PING", password="quite-another-administrator") == "PONG"
    assert running.cli("PING") != "PONG"
    assert running.lets_in(SECRET)


@pytest.mark.parametrize("content", ["", "short", None])
def test_without_a_password_of_the_administrator_nothing_is_changed(
    running: Instance, content: str | None
) -> None:
    before = running.acl.read_text()
    running.password_file.unlink()
    if content is not None:
        running.password_file.write_text(content)
    assert "Reading the administrator's password failed" in running.bring_users(NEW)["msg"]
    assert running.acl.read_text() == before


@pytest.mark.parametrize("password", ["", None])
def test_a_user_without_a_password_is_refused(running: Instance, password: str | None) -> None:
    before = running.acl.read_text(), running.cli("ACL", "LIST")
    answer = running.bring_users(password)
    assert answer["failed"] is True
    assert "Nothing changed" in answer["msg"]
    assert (running.acl.read_text(), running.cli("ACL", "LIST")) == before


def test_rules_that_redis_refuses_change_nothing(running: Instance) -> None:
    before = running.acl.read_text(), running.cli("ACL", "LIST")
    users = running.users(NEW)
    users["users"][2]["rules"] = "~* +@nonsense"
    answer = running.bring_users(users=users["users"])
    assert "Unknown command or category name" in answer["msg"]
    assert (running.acl.read_text(), running.cli("ACL", "LIST")) == before


def test_a_dry_run_tells_and_changes_nothing(running: Instance) -> None:
    running.cli("ACL", "SETUSER", "default", "on")
    before = running.acl.read_text(), running.cli("ACL", "LIST")
    for state in ("present", "exact"):
        answer = running.bring_users(NEW, state=state, check=True)
        assert answer["users"] == ["default", "channels"]
        assert (running.acl.read_text(), running.cli("ACL", "LIST")) == before


def test_no_answer_shows_a_secret(running: Instance) -> None:
    answers = [
        running.bring_users(NEW),
        running.bring_users(NEW, state="exact"),
        running.bring_users(NEW, users=[]),
    ]
    shown = "".join(answer["output"] for answer in answers)
    for secret in (NEW, SECRET, ADMINISTRATOR):
        assert secret not in shown
        assert digest(secret) not in shown
    assert "channels:" in answers[0]["diff"]["after"]


def test_a_transaction_survives_a_restart_with_the_users_of_the_role(instance: Instance) -> None:
    """Redis replays its append-only file as the user default, whom nobody can log in as."""
    instance.settings.update(appendonly="yes", appendfsync="always")
    instance.bring_users()
    instance.start()
    script = "MULTI\nSET a 1\nSET b 1\nEXEC\nSET c 1\n"
    instance.cli(user="channels", password=SECRET, stdin=script)
    instance.stop()
    instance.start()
    found = [instance.cli("GET", key, user="channels", password=SECRET) for key in "abc"]
    assert found == ["1", "1", "1"]
