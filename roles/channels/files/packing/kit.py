"""Bring the packages that the kit itself needs, apart from the application's."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import tomllib
from pathlib import Path

from packaging.utils import parse_wheel_filename

from packing import PackError
from packing.uv import Uv

NEEDED = ("prometheus-client", "websockets")
# What an installer notes about an installation is not of the package.
NOTES = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", ".lock")


def site_packages(uv: Uv, lock: Path, cache: Path) -> Path:
    """Return a directory of the packages, as pure Python: the same for every host.

    Args:
        uv: installs them.
        lock: the kit's uv.lock.
        cache: the directory that keeps it.

    Raises:
        PackError: the lock has no wheel in pure Python.
    """
    pins = _pins(lock)
    key = hashlib.sha256(json.dumps(pins).encode()).hexdigest()[:20]
    kept = cache / "kit" / key
    if kept.is_dir():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as temporary:
        target = Path(temporary, "packages")
        uv.run(
            lock.parent,
            *("pip", "install", "--quiet", f"--target={target}", "--no-deps", "--link-mode=copy"),
            *("--require-hashes", "--only-binary=:all:", "--python-version=3.11"),
            *("--requirement=-",),
            text="".join(pins),
        )
        shutil.rmtree(target / "bin", ignore_errors=True)
        for file in [path for path in target.rglob("*") if path.name in NOTES]:
            file.unlink()
        for file in target.rglob("*.so"):
            raise PackError(f"{file.name} of {lock} is not pure Python")
        try:
            target.rename(kept)
        except OSError:  # another process was faster
            if not kept.is_dir():
                raise
    os.utime(kept)
    return kept


def _pins(lock: Path) -> list[str]:
    """Return each package with the hash of its wheel in pure Python, and of no other."""
    found = []
    for package in tomllib.loads(lock.read_text())["package"]:
        if package["name"] not in NEEDED:
            continue
        pure = [wheel for wheel in package.get("wheels", ()) if _is_pure(wheel)]
        if not pure:
            raise PackError(f"{lock} has no wheel of {package['name']} in pure Python")
        found.append(f"{package['name']}=={package['version']} --hash={pure[0]['hash']}\n")
    return sorted(found)


def _is_pure(wheel: dict[str, str]) -> bool:
    tags = parse_wheel_filename(wheel["url"].rsplit("/", 1)[-1])[3]
    return any(tag.platform == "any" and tag.abi == "none" for tag in tags)
