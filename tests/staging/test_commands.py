"""How the programs of scripts/ end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"PYTHONPATH": str(ROOT / "scripts"), "PATH": os.environ["PATH"]}

INTERRUPTED_TWICE = """
import os, signal, sys
import commands

commands.end_on_signals()
try:
    try:
        print("began", flush=True)
        sys.stdin.readline()
    finally:
        # What ends first, as somebody presses Ctrl-C again.
        os.kill(os.getpid(), signal.SIGINT)
        print("ended", flush=True)
except KeyboardInterrupt:
    os.kill(os.getpid(), signal.SIGINT)
    status = commands.interrupted("Interrupted. Nothing changed.")
    os.kill(os.getpid(), signal.SIGINT)
    sys.exit(status)
"""

NOTES = """
import os, signal, sys
import commands

try:
    with commands.interruptible():
        with commands.noted_signals(lambda number, _frame: os.write(1, b"noted\\n")):
            print("began", flush=True)
            sys.stdin.readline()
        raise KeyboardInterrupt
except KeyboardInterrupt:
    os.kill(os.getpid(), signal.SIGINT)
    sys.exit(commands.interrupted("Interrupted. Nothing changed."))
"""

HELD = """
import sys
import commands

commands.PATIENCE = 1
commands.end_on_signals()
try:
    commands.run(["sh", "-c", f"setsid sh -c 'echo $$ >{sys.argv[1]}; exec sleep 300' & sleep 300"])
except KeyboardInterrupt:
    sys.exit(commands.interrupted("Interrupted. Nothing changed."))
"""

COMPLETES = """
import os, signal, sys
import commands

commands.end_on_signals()
print("began", flush=True)
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGHUP)
with commands.noted_signals(lambda number, _frame: print("noted", flush=True)):
    os.kill(os.getpid(), signal.SIGHUP)
os.kill(os.getpid(), signal.SIGHUP)
print("complete")
"""


@contextmanager
def begun(program: str, *before: str) -> Iterator[subprocess.Popen[str]]:
    """Start a program, and wait until it has begun."""
    with subprocess.Popen(
        [*before, sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        yield process


@pytest.mark.parametrize(("program", "said"), [(INTERRUPTED_TWICE, "ended\n"), (NOTES, "noted\n")])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_further_interrupts_do_not_change_how_an_interrupted_program_ends(
    program: str, said: str, number: int
) -> None:
    with begun(program) as process:
        process.send_signal(number)
        output, errors = process.communicate("\n")
    assert (process.returncode, output, errors) == (130, said, "Interrupted. Nothing changed.\n")


def test_a_terminal_that_closes_does_not_end_a_program_under_nohup() -> None:
    with begun(COMPLETES, "nohup") as process:
        output, _ = process.communicate("\n")
    assert (process.returncode, output) == (0, "complete\n")


def test_nobody_waits_for_an_output_that_another_session_holds(tmp_path: Path) -> None:
    file = tmp_path / "process"
    with subprocess.Popen([sys.executable, "-c", HELD, file], env=ENVIRONMENT) as process:
        while not (file.exists() and file.read_text().endswith("\n")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(60) == 130
        finally:
            os.kill(int(file.read_text()), signal.SIGKILL)
            process.kill()
