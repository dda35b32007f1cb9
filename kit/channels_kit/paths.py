"""Where the wrapper answers: the server and the probe read the same lines."""

import re

TOUCHED = "touched"
"""In the query of a probe socket's path: it also belongs to those that a proof is about.

In a frame: the round goes to those alone.
"""

PREFIX = "/-/"
"""Every path below it belongs to the wrapper; all others belong to the application."""

LIVE = "/-/live"
READY = "/-/ready"
METRICS = "/-/metrics"

PROBE_HEADER = "x-channels-kit-probe"
"""The header in which the proof shows its token where it opens a socket of the application."""

_NAME = "[A-Za-z0-9._:-]{1,100}"
_PROBE = re.compile(rf"/-/probe/(?P<run>{_NAME})/(?P<endpoint>{_NAME})/")


def probe_path(run: str, endpoint: str) -> str:
    """Return the path of the probe socket `endpoint` of the run `run`."""
    return f"/-/probe/{run}/{endpoint}/"


def parse_probe_path(path: str) -> tuple[str, str] | None:
    """Return run and endpoint of a probe socket's path; None where `path` is not one."""
    match = _PROBE.fullmatch(path)
    return (match["run"], match["endpoint"]) if match else None
