"""`python -m channels_kit.probe`: prove that messages arrive, from the command line."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from channels_kit.probe.address import UsageError, check_base
from channels_kit.probe.matrix import Target, prove
from channels_kit.probe.progress import progress_on
from channels_kit.probe.report import as_json, render_text
from channels_kit.probe.verbs import add_report_arguments, run_verb

TOKEN_VARIABLE = "CHANNELS_KIT_PROBE_TOKEN"  # noqa: S105 - a variable's name

EPILOG = f"""\
The token comes from the environment ({TOKEN_VARIABLE}) or from --token-file. It is
never an argument, because every user of the machine can read arguments.
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
        help="prove that messages from every worker arrive on every worker",
        description="Open WebSockets to every worker, send from each, account for every delivery.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_matrix_arguments(matrix)
    matrix.set_defaults(run=run_matrix)
    add_report_arguments(matrix)
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
            edge=options.edge,
            edge_sockets=options.edge_sockets,
            rounds=options.rounds,
            timeout=options.timeout,
            origin=options.origin,
            progress=progress_on(sys.stderr),
        )
    )
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print(render_text(report, colour=colour))  # noqa: T201 - what the program is for
    return report.ok, as_json(report)


def add_matrix_arguments(matrix: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of `matrix`."""
    matrix.add_argument(
        "--worker",
        action="append",
        default=[],
        type=_target,
        metavar="NAME=URL",
        help="name and URL of a worker; repeat for each worker",
    )
    matrix.add_argument("--edge", type=_base, metavar="URL", help="URL of the edge")
    matrix.add_argument(
        "--edge-sockets",
        type=int,
        metavar="N",
        help="sockets through the edge (default: two for each worker, at least 4)",
    )
    matrix.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    matrix.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="for opening the sockets, and for each round (default: 10)",
    )
    matrix.add_argument(
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
