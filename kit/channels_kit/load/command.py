"""`python -m channels_kit.load run`, from its arguments to its exit code."""

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

from channels_kit.load.adapter import load_adapter
from channels_kit.load.conversation import run_load
from channels_kit.load.limits import Limits
from channels_kit.load.outcome import Outcome
from channels_kit.load.plan import Plan
from channels_kit.load.report import as_json, render_text, timeline_as_json
from channels_kit.probe.address import UsageError
from channels_kit.probe.progress import progress_on
from channels_kit.probe.report import write_json

EPILOG = """\
Passwords come from a file or from standard input, a JSON object {"name": "password", ...};
never from an argument, which every user of the machine could read.
SIGTERM or SIGINT stops the sending; what was sent is still waited for and reported.
Exit code: 0 proved, 1 not proved, 2 wrong usage.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of `run`."""
    parser.add_argument(
        "--url",
        action="append",
        required=True,
        help="the edge, or a worker; once for each. Clients go to the next when they come back",
    )
    parser.add_argument(
        "--room", action="append", required=True, metavar="NAME", help="once for each room"
    )
    parser.add_argument(
        "--adapter",
        required=True,
        metavar="MODULE:CLASS",
        help="the application's protocol, such as chat.load_adapter:RoomAdapter",
    )
    parser.add_argument(
        "--credentials",
        required=True,
        metavar="FILE",
        help="users and passwords, - for standard input",
    )
    parser.add_argument("--clients", type=int, default=200, metavar="N", help="default: 200")
    for name, default, unit in (
        ("rate", Plan.rate, "messages a second, of all clients together"),
        ("duration", Plan.duration, "seconds of sending"),
        (
            "settle",
            Plan.settle,
            "seconds to wait for clients to come in, and for what was sent, at most",
        ),
        ("connect-rate", Plan.connect_rate, "handshakes a second, at most"),
    ):
        parser.add_argument(
            f"--{name}",
            type=float,
            default=default,
            metavar="NUMBER",
            help=f"{unit} (default: {default:g})",
        )
    parser.add_argument(
        "--reconnect-rate",
        type=float,
        metavar="NUMBER",
        help="the same after a loss, or inf (default: held back by --connect-rate, with the rest)",
    )
    parser.add_argument(
        "--expect-codes",
        action="extend",
        type=_codes,
        default=[],
        metavar="CODE[,CODE]",
        help="fail where an open connection ends with another close code",
    )
    parser.add_argument(
        "--max-away-p99",
        type=float,
        metavar="SECONDS",
        help="fail where 1 of 100 absences takes longer",
    )
    parser.add_argument(
        "--max-reconnect-rate",
        type=float,
        metavar="NUMBER",
        help="fail where more attempts to come back fall into one second",
    )
    parser.add_argument(
        "--timeline",
        type=Path,
        metavar="FILE",
        help="write there what happened to the sockets each second, for `plot`",
    )


def run(options: argparse.Namespace) -> tuple[bool, dict[str, object]]:
    """Hold the conversation; print its report and return it.

    Raises:
        UsageError: an argument makes no sense.
    """
    timeline: Path | None = options.timeline
    if timeline is not None and not timeline.parent.is_dir():
        raise UsageError(f"--timeline: there is no directory {timeline.parent}")
    plan = Plan(
        urls=options.url,
        rooms=options.room,
        users=read_users(options.credentials),
        adapter=load_adapter(options.adapter),
        clients=options.clients,
        rate=options.rate,
        duration=options.duration,
        settle=options.settle,
        connect_rate=options.connect_rate,
        reconnect_rate=options.reconnect_rate,
        origin=options.origin,
        limits=Limits(
            codes=frozenset(options.expect_codes),
            away_p99=options.max_away_p99,
            reconnect_rate=options.max_reconnect_rate,
        ),
    )
    outcome = asyncio.run(_run_until_a_signal(plan))
    print(render_text(outcome))  # noqa: T201 - what the program is for
    if timeline is not None:
        try:
            write_json(timeline_as_json(outcome), timeline)
        except OSError as error:
            raise UsageError(f"--timeline: {error}") from error
    return outcome.ok, as_json(outcome)


def read_users(file: str) -> dict[str, str]:
    """Return the password of each user, from a file or from standard input for `-`.

    Raises:
        UsageError: there are none; no password is repeated.
    """
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
        users = json.loads(text)
    except OSError as error:
        raise UsageError(f"--credentials: {error}") from error
    except ValueError:
        users = None
    if (
        not isinstance(users, dict)
        or not users
        or not all(isinstance(password, str) for password in users.values())
    ):
        source = "standard input" if file == "-" else file
        raise UsageError(
            f'--credentials: {source} is not a JSON object {{"name": "password", ...}}'
        )
    return users


def _codes(text: str) -> list[int]:
    try:
        return [int(code) for code in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of close codes, such as 1012 or 1001,1012"
        ) from None


async def _run_until_a_signal(plan: Plan) -> Outcome:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return await run_load(plan, stop=stop, progress=progress_on(sys.stderr))
