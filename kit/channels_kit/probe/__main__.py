"""`python -m channels_kit.probe`: prove that messages arrive, from the command line."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from channels_kit.probe.address import Site, UsageError, check_base
from channels_kit.probe.checks import Checks
from channels_kit.probe.edge import MAX_IDLE, examine_application, examine_edges, summed_up
from channels_kit.probe.edge import as_json as edge_as_json
from channels_kit.probe.matrix import Target, prove
from channels_kit.probe.progress import progress_on
from channels_kit.probe.report import as_json, render_text
from channels_kit.probe.verbs import add_report_arguments, run_verb

TOKEN_VARIABLE = "CHANNELS_KIT_PROBE_TOKEN"  # noqa: S105 - a variable's name
CHECKS_VARIABLE = "CHANNELS_KIT_PROBE_CHECKS"

HOLD = 10.0
"""Seconds of silence: channels_redis waits 5 s for a message, and so does redis 8 for an answer."""

EPILOG = f"""\
The token comes from the environment ({TOKEN_VARIABLE}) or from --token-file. It is
never an argument, because every user of the machine can read arguments.
Pages and sockets also come from the environment ({CHECKS_VARIABLE}), as JSON:
{{"site": URL, "pages": [PATH, ...], "sockets": [SOCKET, ...]}}.
Exit code: 0 proved, 1 not proved, 2 wrong usage.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code; argparse itself ends with 2 on wrong usage."""
    return run_verb(build_parser(), arguments)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m channels_kit.probe")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    matrix = verbs.add_parser(
        "matrix",
        help="prove wires, pages and sockets on every worker",
        description="Open WebSockets to every worker, send from each, account for every delivery."
        " Ask every worker for pages of the application, and open its sockets.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_matrix_arguments(matrix)
    matrix.set_defaults(run=run_matrix)
    add_report_arguments(matrix)
    edge = verbs.add_parser(
        "edge",
        help="look at what an edge has to take, keep and refuse",
        description="Open a WebSocket through every edge, keep idle ones open, and check that"
        " what has to be refused is refused.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_edge_arguments(edge)
    edge.set_defaults(run=run_edge)
    add_report_arguments(edge)
    return parser


def run_matrix(options: argparse.Namespace) -> tuple[bool, dict[str, object]]:
    """Prove delivery between workers; print the report and return it.

    Raises:
        UsageError: an argument makes no sense.
    """
    report = asyncio.run(
        prove(
            options.worker,
            token=read_token(options.token_file),
            edges=options.edge,
            edge_sockets=options.edge_sockets,
            rounds=options.rounds,
            timeout=options.timeout,
            origin=options.origin,
            checks=read_checks(options),
            hold=options.hold,
            release=options.release,
            rolling=options.rolling,
            touched=options.touched,
            progress=progress_on(sys.stderr),
        )
    )
    colour = options.report_to.isatty() and not os.environ.get("NO_COLOR")
    print(render_text(report, colour=colour), file=options.report_to)
    return report.ok, as_json(report)


def run_edge(options: argparse.Namespace) -> tuple[bool, dict[str, object]]:
    """Look at every edge; print what is not as expected, and return all of it.

    Raises:
        UsageError: an argument makes no sense.
    """
    if not options.edge:
        raise UsageError("nothing to look at: name an edge")
    if not 0 <= options.idle <= MAX_IDLE:
        raise UsageError(f"--idle must be 0 to {MAX_IDLE:g} seconds")
    checks = read_checks(options)
    if options.without_probe:
        if not checks.sockets:
            raise UsageError("nothing to look at: name a socket of the application")
        look = examine_application(options.edge, checks, seconds=options.timeout, idle=options.idle)
    else:
        look = examine_edges(
            options.edge,
            {target.worker: target.url for target in options.worker},
            token=read_token(options.token_file),
            checks=checks,
            seconds=options.timeout,
            idle=options.idle,
        )
    found = asyncio.run(look)
    print("\n".join(summed_up(found)), file=options.report_to)
    ok = all(each.status != "failed" for each in found)
    return ok, {"ok": ok, "behaviour": edge_as_json(found)}


def add_edge_arguments(edge: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of `edge`."""
    edge.add_argument(
        "--idle",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="hold silent sockets through every edge (default: 0, none)",
    )
    edge.add_argument(
        "--without-probe",
        action="store_true",
        help="the servers have no probe: look at the application's own sockets alone",
    )
    _add_places(edge)
    # Those that channels-prove gives to every verb: releases take no part here.
    edge.add_argument("--release", default="", help=argparse.SUPPRESS)
    edge.add_argument("--rolling", action="store_true", help=argparse.SUPPRESS)


def add_matrix_arguments(matrix: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of `matrix`."""
    _add_places(matrix)
    matrix.add_argument(
        "--touched",
        action="append",
        default=[],
        metavar="NAME",
        help="prove only what this worker sends to all and what all send to it; repeat for each"
        " worker that a step of a roll has touched (default: every pair)",
    )
    matrix.add_argument(
        "--edge-sockets",
        type=int,
        metavar="N",
        help="sockets through each edge (default: two for each worker, at least 4)",
    )
    matrix.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    matrix.add_argument(
        "--hold",
        type=float,
        default=HOLD,
        metavar="SECONDS",
        help="how long sockets must stay open, and the proof's are silent (default: 10; 0: sockets"
        " only have to open)",
    )
    matrix.add_argument(
        "--release", default="", metavar="ID", help="release that every worker must run"
    )
    matrix.add_argument(
        "--rolling",
        action="store_true",
        help="workers of other releases take part in the wires only",
    )


def _add_places(verb: argparse.ArgumentParser) -> None:
    """Give a parser the arguments that all verbs have: where to look, and as whom."""
    verb.add_argument(
        "--worker",
        action="append",
        default=[],
        type=_target,
        metavar="NAME=URL",
        help="name and URL of a worker; repeat for each worker",
    )
    verb.add_argument(
        "--edge",
        action="append",
        default=[],
        type=_base,
        metavar="URL",
        help="URL of an edge; repeat for each edge",
    )
    verb.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="for opening the sockets, and for each round (default: 10)",
    )
    verb.add_argument(
        "--page",
        action="append",
        default=[],
        metavar="PATH",
        help="page that must be answered with a status below 500; repeat for each page",
    )
    verb.add_argument(
        "--socket",
        action="append",
        default=[],
        metavar="PATH|JSON",
        help="socket of the application that must open; as JSON also with close, status,"
        " subprotocol and headers; repeat for each socket",
    )
    verb.add_argument(
        "--site",
        type=_base,
        metavar="URL",
        help="scheme and name that people use, such as https://chat.example.org (default: those of"
        " each URL)",
    )
    verb.add_argument(
        "--token-file",
        metavar="FILE",
        help="file with the token, - for standard input; several tokens, one per line, are tried in"
        " order",
    )


def read_token(file: str | None) -> str:
    """Return the probe's token from `file`, from standard input for `-`, or the environment.

    Raises:
        UsageError: there is no token.
    """
    try:
        if file == "-":
            source, token = "standard input", sys.stdin.read()
        elif file is not None:
            source, token = file, Path(file).read_text()
        else:
            source, token = TOKEN_VARIABLE, os.environ.get(TOKEN_VARIABLE, "")
    except OSError as error:
        raise UsageError(f"--token-file: {error}") from error
    if not token.strip():
        raise UsageError(f"no token in {source}; use the {TOKEN_VARIABLE} of the workers")
    return " ".join(token.split())


def read_checks(options: argparse.Namespace) -> Checks:
    """Return the checks of the arguments; without any, those of the environment.

    Raises:
        UsageError: one of them makes no sense.
    """
    if options.page or options.socket:
        sockets = [_socket(text) for text in options.socket]
        return Checks.of(options.page, sockets, options.site)
    try:
        checks = Checks.from_json(os.environ.get(CHECKS_VARIABLE) or "{}")
    except UsageError as error:
        raise UsageError(f"{CHECKS_VARIABLE}: {error}") from error
    return replace(checks, site=Site.of(options.site)) if options.site else checks


def _socket(text: str) -> object:
    """Return what an argument names: a path, or JSON; what is neither is refused later."""
    with suppress(ValueError):
        return json.loads(text)
    return text


def _target(text: str) -> Target:
    worker, separator, url = text.partition("=")
    if not worker or not separator:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not NAME=URL, such as app1:8001=http://10.0.0.1:8001"
        )
    return Target(worker, _base(url))


def _base(text: str) -> str:
    try:
        return check_base(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
