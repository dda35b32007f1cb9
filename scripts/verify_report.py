"""Show a report of `make verify` as text and as a page.

The page is one HTML file beside the report. It needs nothing else: open it in a browser, send it,
print it. The reports of earlier runs in the same directory are its history.

usage: scripts/verify_report.py .verify/ENV/20261128T211500Z.json
       scripts/verify_report.py .verify/ENV        the newest report in it

The last line is the path of the page. Exit status: 0, also for a report of a failed run; 2 if there
is no report that can be read, or the page cannot be written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from verification import history, page, text
from verification.report import ReportError, read


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description="Show a report of make verify.")
    parser.add_argument("report", type=Path, help="the file, or the directory of its reports")
    options = parser.parse_args(arguments)
    try:
        file = newest(options.report)
        report = read(file)
    except ReportError as error:
        print(f"The report cannot be shown. {error}", file=sys.stderr)
        return 2
    for line in text.summary(report):
        print(line)
    shown = file.with_suffix(".html")
    try:
        runs = [*history.earlier(file), history.run_of(file.stem, report, page=True)]
        history.write(shown, page.render(report, runs))
    except OSError as error:
        print(f"The page was not written. {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    print(shown)
    return 0


def newest(path: Path) -> Path:
    """Return the report that is meant: a file, or the newest one of a directory.

    Raises:
        ReportError: there is none.
    """
    if not path.is_dir():
        return path
    reports = history.reports(path)
    if not reports:
        raise ReportError(f"{path} contains no reports. Run make verify first")
    return reports[-1]


if __name__ == "__main__":
    sys.exit(main())
