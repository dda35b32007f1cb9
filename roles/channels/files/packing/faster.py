"""Packages that make others faster, and that nothing requires.

Uvicorn takes uvloop and httptools where they are installed, redis-py takes hiredis. All three are
in C, so a host can have them only as wheels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from packing import PackError
from packing.elsewhere import without_wheel
from packing.packages import Package, parse
from packing.uv import Target, Uv

# Each by what it makes faster. redis-py itself names the versions of hiredis that it can use; one
# before 5 is left as it is.
FASTER = {
    "uvicorn": {"uvloop": "uvloop>=0.18", "httptools": "httptools>=0.6.3"},
    "redis": {"hiredis": "redis[hiredis]>=5"},
}


def additions(
    uv: Uv,
    packages: Sequence[Package],
    directory: Path,
    targets: Sequence[Target],
    options: Sequence[str],
    preferred: Path,
) -> list[Package]:
    """Return what makes packages faster and is not among them.

    One that does not go with their versions, or has no wheel for a host, is left out.

    Args:
        uv: resolves them.
        packages: of the application, and its server.
        directory: of the application, whose settings of uv hold.
        targets: the hosts.
        options: of uv: the versions of the packages as constraints.
        preferred: a list of versions that are taken where they fit.
    """
    names = {package.name for package in packages}
    wanted = {
        name: requirement
        for faster, others in FASTER.items()
        if faster in names
        for name, requirement in others.items()
        if name not in names
    }
    found = []
    for name, requirement in wanted.items():
        # Of a version without a wheel, an older one may have it.
        try:
            told = uv.compile(
                directory,
                ["-"],
                targets,
                *options,
                *("--only-binary", name),
                text=f"{requirement}\n",
                preferred=preferred,
            )
            new = [each for each in parse(told, directory) if each.name == name]
            if not any(without_wheel(uv, new, directory, target) for target in targets):
                found += new
        except PackError:
            continue
    return found
