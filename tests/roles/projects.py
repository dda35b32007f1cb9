"""Small Django projects that tests make, and what they are packed with."""

import hashlib
import os
import subprocess
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

MANAGE = """\
import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{settings}")

from django.core.management import execute_from_command_line

execute_from_command_line(sys.argv)
"""
SETTINGS = """\
ASGI_APPLICATION = "{package}.asgi.application"
INSTALLED_APPS = ["django.contrib.staticfiles", "shop"]
"""
ASGI = """\
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{settings}")
application = object()
"""
# The kit's lock, as much of it as is read.
KIT_LOCK = "version = 1\n" + "".join(
    f"""
[[package]]
name = "{name}"
version = "1.0"
wheels = [
    {{ url = "https://index.test/{file}-1.0-cp311-cp311-win32.whl", hash = "sha256:{"0" * 64}" }},
    {{ url = "https://index.test/{file}-1.0-py3-none-any.whl", hash = "sha256:{"1" * 64}" }},
]
"""
    for name, file in (("prometheus-client", "prometheus_client"), ("websockets", "websockets"))
)
# Answers as uv does, without an index: each list has the packages of fake_uv.
FAKE_UV = """\
#!/bin/sh
echo "$*" >> "$0.asked"
case "$*" in
*pylock.toml*) cat "$0.lock" ;;
"pip install"*)
    for argument; do
        case $argument in
        --target=*)
            mkdir -p "${argument#--target=}/websockets"
            echo "kit = 1" > "${argument#--target=}/websockets/__init__.py" ;;
        esac
    done ;;
"python find"*) command -v python3 ;;
*)
    cat "$0.exported"
    for argument; do
        case $argument in
        --output-file=*) cp "$0.exported" "${argument#--output-file=}" ;;
        esac
    done ;;
esac
"""


def write(top: Path, files: Mapping[str, str]) -> Path:
    """Write files below a directory."""
    for name, text in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return top


def django_project(package: str = "config", below: str = "") -> dict[str, str]:
    """The files of a Django project, as startproject makes them, and an application in it."""
    settings = f"{package}.settings"
    files = {
        "manage.py": MANAGE.format(settings=settings),
        f"{package}/__init__.py": "",
        f"{package}/settings.py": SETTINGS.format(package=package),
        f"{package}/asgi.py": ASGI.format(settings=settings),
        "shop/__init__.py": "",
        "shop/models.py": "models = 1\n",
    }
    return {f"{below}{name}": text for name, text in files.items()}


def fake_uv(directory: Path, packages: Sequence[str] = ("django==5.2", "uvicorn==0.52.1")) -> Path:
    """A uv whose every list has these packages."""
    uv = directory / "uv"
    uv.write_text(FAKE_UV)
    uv.chmod(0o755)
    exported = "".join(f"{each} \\\n    --hash=sha256:{'2' * 64}\n" for each in packages)
    uv.with_name("uv.exported").write_text(exported)
    entries = ""
    for name, version in (package.split("==") for package in packages):
        file = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        entries += f'[[packages]]\nname = "{name}"\nversion = "{version}"\n'
        entries += f'wheels = [{{ name = "{file}" }}]\n'
    uv.with_name("uv.lock").write_text(entries)
    return uv


def wheel(
    index: Path,
    name: str,
    version: str,
    requires: Sequence[str] = (),
    tag: str = "py3-none-any",
    requires_python: str = "",
) -> str:
    """Write a wheel into a directory that is an index; return its hash."""
    index.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    file = index / f"{module}-{version}-{tag}.whl"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Python: {requires_python}\n" if requires_python else ""
    metadata += "".join(f"Requires-Dist: {each}\n" for each in requires)
    info = f"{module}-{version}.dist-info"
    contents = {
        f"{module}/__init__.py": f"version = {version!r}\n",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{path},,\n" for path in [*contents, f"{info}/RECORD"])
    with zipfile.ZipFile(file, "w") as opened:
        for path, text in {**contents, f"{info}/RECORD": record}.items():
            opened.writestr(zipfile.ZipInfo(path), text)
    return f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


def git(directory: Path, *arguments: str) -> str:
    """Run git with nobody's configuration but what is said here."""
    nobody = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    author = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    allowed = ("-c", "protocol.file.allow=always")
    result = subprocess.run(
        ["git", *author, *allowed, "-C", str(directory), *arguments],
        env={**os.environ, **nobody},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip()
