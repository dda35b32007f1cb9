"""``python -m channels_kit.examine``: see the package."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

from channels_kit.examine import report
from channels_kit.examine.examiner import Examiner
from channels_kit.examine.finding import Subject


def main() -> int:
    """Examine what standard input describes; the last line is the answer."""
    parser = argparse.ArgumentParser(description="Name every obstacle to a deploy at once.")
    parser.add_argument("--root", type=Path, required=True, help="a copy of the project")
    arguments = parser.parse_args()
    start = time.monotonic()
    try:
        subject = Subject.read(json.load(sys.stdin))
    except ValueError as error:
        # Not the input itself: it has secrets.
        print(f"standard input cannot be read: {type(error).__name__}", file=sys.stderr)
        return 2
    found = Examiner(arguments.root, subject).examine()
    answer = {
        "obstacles": [dataclasses.asdict(each) for each in found if each.obstacle],
        "advice": [dataclasses.asdict(each) for each in found if not each.obstacle],
        "message": report.message(found),
        "further": report.advice(found),
        "seconds": round(time.monotonic() - start, 2),
    }
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
