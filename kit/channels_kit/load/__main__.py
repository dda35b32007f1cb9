"""`python -m channels_kit.load`: clients of an application under disturbance, and their plot."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from channels_kit.load import command
from channels_kit.load.plot import Timeline, draw
from channels_kit.probe.address import UsageError
from channels_kit.probe.verbs import add_report_arguments, run_verb


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    return run_verb(build_parser(), arguments)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m channels_kit.load")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    run = verbs.add_parser(
        "run",
        help="clients of the application talk, whatever happens to it",
        description="Talk in the application's rooms as its clients do; account for every message.",
        epilog=command.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(run)
    add_report_arguments(run)
    run.set_defaults(run=command.run)
    plot = verbs.add_parser(
        "plot",
        help="draw the timeline of a run",
        description="Draw what `run --timeline` wrote: the open sockets of each worker.",
    )
    plot.add_argument("timeline", type=Path, metavar="TIMELINE.json")
    plot.add_argument(
        "--output", type=Path, required=True, metavar="FILE.svg", help="write the picture there"
    )
    plot.set_defaults(run=run_plot)
    return parser


def run_plot(options: argparse.Namespace) -> tuple[bool, dict[str, object]]:
    """Draw a timeline.

    Raises:
        UsageError: there is none, or the picture cannot be written.
    """
    picture = draw(Timeline.read(options.timeline))
    try:
        options.output.write_text(picture)
    except OSError as error:
        raise UsageError(f"--output: {error}") from error
    return True, {}


if __name__ == "__main__":
    sys.exit(main())
