"""What the command lines of the kit's programs share: verbs that report, and exit codes."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from channels_kit.probe.address import UsageError
from channels_kit.probe.report import write_json

EXIT_PROVED = 0
EXIT_NOT_PROVED = 1
EXIT_USAGE = 2


def add_report_arguments(verb: argparse.ArgumentParser) -> None:
    """Give a verb that opens WebSockets the arguments that all of them have."""
    verb.add_argument("--origin", help="the Origin header (default: that of the URL)")
    verb.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the complete report as JSON; - for standard output, and the text goes to"
        " standard error",
    )


def run_verb(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Run the verb on the command line; return its exit code.

    Each verb sets ``run``: it prints a report for people, and returns whether it is proved and a
    report for programs, which ``--json`` writes. argparse itself ends with 2 on wrong usage.
    """
    options = parser.parse_args(arguments)
    file: Path | None = getattr(options, "json", None)
    to_output = file == Path("-")
    # Where the text for people goes.
    options.report_to = sys.stderr if to_output else sys.stdout
    if file is not None and not file.parent.is_dir():
        parser.error(f"--json: there is no directory {file.parent}")
    try:
        proved, content = options.run(options)
    except UsageError as error:
        parser.error(str(error))
    if to_output:
        print(json.dumps(content))  # noqa: T201 - what was asked for
    elif file is not None:
        try:
            write_json(content, file)
        except OSError as error:
            parser.error(f"--json: {error}")
    return EXIT_PROVED if proved else EXIT_NOT_PROVED
