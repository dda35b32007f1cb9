"""`python -m channels_kit.load run`, from its arguments to its exit code."""

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

from channels_kit.load.adapter import load_adapter
from channels_kit.load.limits import Limits
from channels_kit.load.outcome import Outcome
from channels_kit.load.plan import Plan
from channels_kit.load.report import as_json, render_text, timeline_as_json
from channels_kit.load.run import run_load
from channels_kit.probe.address import UsageError
from channels_kit.probe.progress import progress_on
from channels_kit.probe.report import write_json

DESCRIPTION = """\
Connect many clients to an application, send messages, and account for every one:
each client must receive every message of its room once and in order, even if the
application is disturbed meanwhile. Clients reconnect, resume and resend by themselves.
"""

EPILOG = """\
example, started in the directory of the application:
  python -m channels_kit.load run --url https://chat.example --room lobby \\
      --adapter chat.load_adapter:RoomAdapter --credentials users.json \\
      --clients 200 --rate 20 --duration 120 --json load.json

Passwords come from a file or standard input, as a JSON object {"name": "password", ...}.
They are never arguments, because every user of the machine can read arguments.

Ctrl-C or SIGTERM stops the sending; the grace period and the report follow. A second
signal also ends the grace period.

exit status: 0 proved, 1 not proved, 2 wrong usage
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of `run`."""
    target = parser.add_argument_group("target")
    target.add_argument(
        "--url",
        action="append",
        required=True,
        help="URL of the edge or of a worker, such as https://chat.example; repeatable: clients use"
        " the next one when they reconnect",
    )
    target.add_argument(
        "--room",
        action="append",
        required=True,
        metavar="NAME",
        help="a room; repeatable: the clients are spread over the rooms",
    )
    target.add_argument(
        "--adapter",
        required=True,
        metavar="MODULE:CLASS",
        help="class for the application's protocol, such as chat.load_adapter:RoomAdapter",
    )
    target.add_argument(
        "--credentials",
        required=True,
        metavar="FILE",
        help="file with users and passwords, - for standard input",
    )
    load = parser.add_argument_group("load")
    load.add_argument("--clients", type=int, default=200, metavar="N", help="default: 200")
    for name, default, metavar, text in (
        ("rate", Plan.rate, "NUMBER", "messages per second, of all clients together"),
        ("duration", Plan.duration, "SECONDS", "time of sending; 0 to only connect and report"),
        (
            "grace",
            Plan.grace,
            "SECONDS",
            "maximum wait for clients to connect and for outstanding deliveries",
        ),
        ("connect-rate", Plan.connect_rate, "NUMBER", "maximum handshakes per second"),
    ):
        load.add_argument(
            f"--{name}",
            type=float,
            default=default,
            metavar=metavar,
            help=f"{text} (default: {default:g})",
        )
    load.add_argument(
        "--reconnect-rate",
        type=float,
        metavar="NUMBER",
        help="maximum handshakes per second after a loss; inf for no limit (default: they count"
        " towards --connect-rate)",
    )
    limits = parser.add_argument_group("limits", "The run fails if a limit is breached.")
    limits.add_argument(
        "--expect-codes",
        action="extend",
        type=_codes,
        default=[],
        metavar="CODE[,CODE]",
        help="allowed close codes of open connections, such as 1012",
    )
    limits.add_argument(
        "--max-recovery-p99",
        type=float,
        metavar="SECONDS",
        help="maximum time of 99 of 100 recoveries, from the loss of a connection until the"
        " client has caught up",
    )
    limits.add_argument(
        "--max-reconnect-rate",
        type=float,
        metavar="NUMBER",
        help="maximum reconnect attempts within one second",
    )
    parser.add_argument(
        "--timeline",
        type=Path,
        metavar="FILE",
        help="write the socket events of each second as JSON, for `plot`",
    )


def run(options: argparse.Namespace) -> tuple[bool, dict[str, object]]:
    """Run the load; print its report and return it.

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
        grace=options.grace,
        connect_rate=options.connect_rate,
        reconnect_rate=options.reconnect_rate,
        origin=options.origin,
        limits=Limits(
            codes=frozenset(options.expect_codes),
            recovery_p99=options.max_recovery_p99,
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
            f"{text!r} is not a list of close codes, such as 1012 or 1001,1012"
        ) from None


async def _run_until_a_signal(plan: Plan) -> Outcome:
    stop, end = asyncio.Event(), asyncio.Event()

    def interrupt() -> None:
        (end if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, interrupt)
    return await run_load(plan, stop=stop, end=end, progress=progress_on(sys.stderr))
