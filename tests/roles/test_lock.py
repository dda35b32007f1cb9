"""The action channels_lock: who holds the lock, and when it is taken over."""

import os
import socket
import subprocess

from plugins.action.channels_lock import has_ended, refusal, run_of


def test_a_run_whose_process_is_gone_has_ended() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        run = run_of(process.pid)
        assert not has_ended(run)
        process.kill()
    assert has_ended(run)
    assert not has_ended(run_of(os.getpid()))


def test_a_process_of_the_same_number_is_another_run() -> None:
    assert has_ended(f"{socket.gethostname()}:{os.getpid()}:1")


def test_of_another_controller_nothing_is_known() -> None:
    assert not has_ended("elsewhere:1:1")


def test_what_is_no_run_of_this_version_has_not_ended() -> None:
    for run in ("", "7-1", "7-1700000000", ":::"):
        assert not has_ended(run)


def test_a_refusal_says_who_since_when_what_and_what_to_do() -> None:
    holder = {"who": "ann@laptop", "what": "deploy v2", "seconds": 725}
    assert refusal(holder) == (
        "Locked by ann@laptop for 12 min (deploy v2). Nothing changed. If abandoned: make unlock"
    )
    assert refusal({"seconds": 3}).startswith("Locked by somebody for 3 s. Nothing changed.")
