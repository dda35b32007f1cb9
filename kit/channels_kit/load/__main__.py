"""`python -m channels_kit.load`: load with accounting, and a plot of its timeline."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from channels_kit.load import command
from channels_kit.probe.address import UsageError
from channels_kit.probe.verbs import add_report_arguments, run_verb


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    return run_verb(build_parser(), arguments)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m channels_kit.load",
        description="Put load on an application and account for every message.",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    run = verbs.add_parser(
        "run",
        help="connect clients, send messages, account for every delivery",
        usage="%(prog)s --url URL --room NAME --adapter MODULE:CLASS --credentials FILE [options]",
        description=command.DESCRIPTION,
        epilog=command.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(run)
    add_report_arguments(run)
    run.set_defaults(run=command.run)
    plot = verbs.add_parser(
        "plot",
        help="draw the timeline of a run",
        description="Draw the open sockets of each worker over time, from the file that"
        " `run --timeline` wrote.",
    )
    plot.add_argument("timeline", type=Path, metavar="TIMELINE.json")
    plot.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="the picture; the suffix chooses the format, .svg or .png",
    )
    plot.set_defaults(run=run_plot)
    return parser


def run_plot(options: argparse.Namespace) -> tuple[bool, dict[str, object]]:
    """Draw a timeline.

    Raises:
        UsageError: there is none, or the picture cannot be written.
    """
    # Here, because a run must not pay for importing matplotlib.
    from channels_kit.load import plot

    if options.output.suffix not in plot.FORMATS:
        raise UsageError(f"--output: {options.output} must end in {' or '.join(plot.FORMATS)}")
    timeline = plot.Timeline.read(options.timeline)
    try:
        plot.save(timeline, options.output)
    except OSError as error:
        raise UsageError(f"--output: {error}") from error
    return True, {}


if __name__ == "__main__":
    sys.exit(main())
