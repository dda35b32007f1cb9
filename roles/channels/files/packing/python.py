"""Find a Python on this machine, or bring one that the hosts do not have and pack it for them."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from packing import PackError
from packing.archive import pack_directory
from packing.uv import Uv


def archive_name(version: str, machine: str) -> str:
    """Return what the archive of a Python is called.

    Args:
        version: the full version, such as 3.13.5.
        machine: such as x86_64.
    """
    return f"python-{version}-{machine}"


def bring(uv: Uv, version: str, machine: str, output: Path) -> str:
    """Bring a Python for hosts, unless its archive is there; return its full version.

    Args:
        uv: brings it.
        version: such as 3.13 or 3.13.5.
        machine: the hosts' architecture, such as x86_64.
        output: where the archive is written.

    Raises:
        PackError: uv cannot bring it.
    """
    if (output / f"{archive_name(version, machine)}.tar.gz").is_file():
        return version
    key = f"cpython-{version}-linux-{machine}-gnu"
    directory = output.resolve() / "pythons"
    directory.mkdir(parents=True, exist_ok=True)
    found = _installed(directory, version, machine)
    if not found:
        try:
            uv.run(
                directory,
                *(
                    "python",
                    "install",
                    "--no-bin",
                    "--no-config",
                    f"--install-dir={directory}",
                    key,
                ),
                downloads=True,
            )
        except PackError as error:
            raise PackError(
                f"uv cannot install Python {version} for {machine} (channels_python). To use a"
                f" mirror, set UV_PYTHON_INSTALL_MIRROR on the controller.\n{error}"
            ) from error
        found = _installed(directory, version, machine)
    if not found:
        raise PackError(f"uv did not install {key} (channels_python)")
    full = found.name.split("-")[1]
    archive = output / f"{archive_name(full, machine)}.tar.gz"
    if not archive.is_file():
        pack_directory(found, archive, 6, lambda path: "__pycache__" not in path.parts)
    os.utime(archive)
    return full


def interpreter(version: str, brought: Path) -> str:
    """Return a Python on this machine; empty if there is none.

    Args:
        version: such as 3.11.
        brought: the directory that has what ``bring`` has installed.
    """
    home = Path.home()
    kept = {
        "UV_PYTHON_INSTALL_DIR": (home / ".local/share/uv/python", f"cpython-{version}.*"),
        "PYENV_ROOT": (home / ".pyenv", f"versions/{version}.*"),
    }
    names = [sys.executable, f"python{version}", f"/usr/bin/python{version}", "/usr/bin/python3"]
    for variable, (usual, pattern) in kept.items():
        directory = Path(os.environ.get(variable) or usual)
        names += sorted(map(str, directory.glob(f"{pattern}/bin/python{version}")))
    installed = _installed(brought, version, platform.machine())
    names += [str(installed / "bin" / f"python{version}")] if installed else []
    # Not the one of a virtual environment: its packages would hide what the application lacks.
    code = "import sys; print('%d.%d' % sys.version_info[:2], sys._base_executable)"
    for name in names:
        try:
            told = subprocess.run(
                [name, "-I", "-c", code], check=True, capture_output=True, text=True, timeout=30
            )
        except (OSError, subprocess.SubprocessError):
            continue
        found, _, path = told.stdout.strip().partition(" ")
        if found == version:
            return path
    return ""


def _installed(directory: Path, version: str, machine: str) -> Path | None:
    """Return the newest Python of a version that is there."""
    wanted = re.compile(rf"cpython-{re.escape(version)}(\.\d+)*-linux-{machine}-gnu")
    found = [
        path
        for path in (directory.iterdir() if directory.is_dir() else ())
        if wanted.fullmatch(path.name) and not path.is_symlink()
    ]
    return max(
        found, key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)], default=None
    )
