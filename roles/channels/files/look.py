"""Tell, as JSON, what an app host has: read by roles/channels/tasks/look.yml.

usage: look.py HOME DRAINED_FILE LOCK_FILE

On a bare host, too: nothing of the kit has to be there.
"""

import json
import platform
import subprocess
import sys
from pathlib import Path


def content(path: Path) -> str:
    """Return what stands in a file; nothing where there is none."""
    return path.read_text().strip() if path.is_file() else ""


def main() -> None:
    """Print it."""
    home, drained_file, lock_file = map(Path, sys.argv[1:])
    current = home / "current"
    units = ["systemctl", "is-active", "--quiet", "channels-web@*"]
    told = {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "machine": platform.machine(),
        # The release that starts when the host does, and the kit it carries.
        "current": current.resolve().name if current.is_symlink() else "",
        "kit": content(current / "kit.txt"),
        "serves": subprocess.run(units, check=False).returncode == 0,
        "drained": drained_file.exists(),
        "releases": [path.name for path in home.glob("releases/[0-9a-f]*")],
        "environments": [path.parent.name for path in home.glob("environments/*/complete")],
        # Who is at it, where somebody is.
        "lock": json.loads(content(lock_file) or "{}"),
    }
    print(json.dumps(told))


main()
