"""Write the inventory of a new cluster: three facts of its application, hosts, secrets.

Used by ``make new ENV=prod SOURCE=... DOMAIN=...``. Says what it found in the source. Secrets are
generated, and go into a file that only you can read, or into an encrypted one; none is printed.
"""

from __future__ import annotations

import argparse
import importlib
import ipaddress
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

from commands import ROOT, end_on_signals, ignore_signals, interrupted
from provisioning.terraform import NAME, NAME_ALLOWED

INVENTORIES = ROOT / "inventories"
EXAMPLE = INVENTORIES / "production"
PACKING = ROOT / "roles" / "channels" / "files"
VAULT_PASSWORD = "ANSIBLE_VAULT_PASSWORD_FILE"  # noqa: S105 - a name

DOMAIN = re.compile(r"(?=.{1,253}\Z)([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.?)+|[0-9.]+")
HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]*(=[0-9A-Fa-f.:]+)?")
REMOTE = re.compile(r"[a-z+]+://|[^/]+@[^/]+:")
# As the preflight has it.
REPOSITORY = re.compile(r"(https|ssh|file)://([^:@/\s]+@)?[^@\s]+|[\w.-]+@[\w.-]+:[^:\s]+")
SUFFIXES = (".whl", ".tar.gz", ".zip")
"""The names of files that can be a source: a wheel, a source distribution."""

SKIPPED = {".git", ".venv", "venv", "node_modules", "__pycache__"}


def stop(*lines: str) -> NoReturn:
    """End with what is wrong, before anything was written."""
    sys.exit("\n".join([*lines, "Nothing changed."]))


def hosts_of(given: str) -> dict[str, str]:
    """Return the addresses of hosts by name; the example's without any.

    Args:
        given: names or addresses, or NAME=ADDRESS, with commas between.
    """
    words = [word for word in re.split(r"[,\s]+", given) if word]
    for word in words:
        if not HOST.fullmatch(word):
            stop(
                f"HOSTS has {word!r}; allowed: names or addresses, or NAME=ADDRESS, separated by"
                " commas."
            )
    pairs = [word.partition("=") for word in words]
    hosts = {name: address or name for name, _, address in pairs}
    if len(hosts) < len(words):
        stop(f"HOSTS is {given!r}: it names a host twice; allowed: each host once.")
    for _, equals, address in pairs:
        if equals and not is_address(address):
            stop(f"HOSTS has the address {address!r}; allowed: an IPv4 or IPv6 address.")
    return hosts


def is_address(word: str) -> bool:
    """Return whether a word is an IP address."""
    try:
        ipaddress.ip_address(word)
    except ValueError:
        return False
    return True


def inventory_of(hosts: dict[str, str]) -> str:
    """Return hosts.yml: one host for all, or the first one for all but the application."""
    names = list(hosts)
    first, apps = names[0], names[1:] or names
    wanted = {"nginx": [first], "channels": apps, "postgres": [first], "redis": [first]}
    lines = ["---", "# Each group has the name of the role that its hosts get."]
    said: set[str] = set()
    for group, members in wanted.items():
        lines += [f"{group}:", "  hosts:"]
        for name in members:
            lines.append(f'    "{name}":')
            if name not in said:
                lines.append(f'      cluster_address: "{hosts[name]}"')
                said.add(name)
    return "\n".join(lines) + "\n"


def files_of(source: Path) -> Iterator[str]:
    """Yield the files of a source, as paths below it."""
    for parent, directories, names in os.walk(source):
        directories[:] = sorted(name for name in directories if name not in SKIPPED)
        yield from (str(Path(parent, name).relative_to(source)) for name in sorted(names))


def found_in(source: Path) -> dict[str, str]:
    """Return what is found in a directory, in words by subject."""
    files = list(files_of(source))
    if not {"manage.py", "asgi.py"}.intersection(Path(name).name for name in files):
        stop(
            f"SOURCE is {str(source)!r}, which has no manage.py and no asgi.py; allowed: the"
            " directory of a Django project."
        )
    sys.path.insert(0, str(PACKING))
    try:
        # What a deploy uses: both find the same.
        project: Any = importlib.import_module("packing.project")
        locks: Any = importlib.import_module("packing.locks")
        failed: Any = importlib.import_module("packing").PackError
    finally:
        sys.path.remove(str(PACKING))
    builds = any(Path(name).name == "package.json" for name in files)
    try:
        told = project.discover(source, files)
        found = {
            "manage.py": f"in {told.root}" if told.root != "." else "at the top",
            "settings": told.settings_module,
            "ASGI callable": told.application,
            "Celery": f"{told.celery}: see channels_processes" if told.celery else "none",
        }
    except failed as error:
        # It names the variable to set: the inventory is needed for that.
        told, found = None, {"to set": str(error)}
    try:
        file = locks.find(source, told.root if told else ".")
        found["packages"] = os.path.relpath(file, source)
    except failed as error:
        if told:
            found["packages"] = f"not found. {error}"
    return {**found, "a build": "package.json: see channels_build" if builds else "none"}


def secret_names() -> list[str]:
    """Return the secrets that every cluster needs: those of the example, without the sample's."""
    text = (EXAMPLE / "group_vars" / "all" / "vault.yml.example").read_text()
    return [
        name for name in re.findall(r"^(\w+):\s*$", text, re.MULTILINE) if "sample_" not in name
    ]


def write_secrets(directory: Path, encrypts: bool) -> str:
    """Write generated secrets; return in words how they are kept."""
    content = "---\n" + "".join(f"{name}: {secrets.token_hex(32)}\n" for name in secret_names())
    file = directory / "vault.yml"
    if encrypts:
        # By standard input: nothing is on the disk before it is encrypted. The password file is a
        # variable of the environment.
        vault = Path(sys.executable).parent / "ansible-vault"
        subprocess.run(
            [str(vault), "encrypt", "--output", str(file), "-"],
            input=content,
            check=True,
            text=True,
            capture_output=True,
        )
        file.chmod(0o600)
        return "encrypted"
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(content)
    # Not before it is encrypted.
    (directory / ".gitignore").write_text(
        "# Remove this file when vault.yml is encrypted.\nvault.yml\n"
    )
    return "not encrypted, and ignored by Git"


def variables_of(source: str, domain: str) -> str:
    """Return group_vars/all/cluster.yml: the three facts."""
    facts = {"cluster_server_names": [domain], "channels_source": source}
    return (
        "---\n"
        "# The SSH user becomes root; see docs/onboarding.md for others.\n"
        "ansible_become: true\n\n"
        "# The domain, and where the source is. More lines for your application:\n"
        "# docs/recipes.md.\n" + yaml.safe_dump(facts, sort_keys=False)
    )


def source_of(given: str) -> str:
    """Return the source as the inventory has it: a URL, or an absolute path."""
    if REMOTE.match(given):
        if not REPOSITORY.fullmatch(given):
            # Without the value: it may hold a password.
            stop(
                "SOURCE is a URL that cannot be used; allowed: https://, ssh:// or file://,"
                " without a password, or user@host:path. For a token:"
                " docs/recipes.md#private-git-repository."
            )
        return given
    path = Path(given).expanduser().resolve()
    if not path.is_dir() and not (path.is_file() and path.name.endswith(SUFFIXES)):
        wrong = "is none of these" if path.exists() else "does not exist"
        stop(
            f"SOURCE is {given!r}; allowed: a directory, a wheel or an sdist, or a Git URL."
            f" {path} {wrong}."
        )
    return str(path)


def main() -> None:
    """Write what the command line names."""
    parser = argparse.ArgumentParser(description="Write the inventory of a new cluster.")
    parser.add_argument("environment")
    parser.add_argument("source")
    parser.add_argument("domain")
    parser.add_argument("--hosts", default="", help="names or addresses, with commas between")
    parser.add_argument("--inventories", type=Path, default=INVENTORIES)
    arguments = parser.parse_args()
    name, domain = arguments.environment, arguments.domain
    if not NAME.fullmatch(name):
        stop(f"ENV is {name!r}; allowed: {NAME_ALLOWED}.")
    if not arguments.source or not domain:
        stop("usage: make new ENV=prod SOURCE=/path/or/git-url DOMAIN=chat.example.org [HOSTS=...]")
    if not DOMAIN.fullmatch(domain):
        stop(
            f"DOMAIN is {domain!r}; allowed: a name without scheme and port, such as"
            " chat.example.org."
        )
    target = arguments.inventories / name
    if target.exists():
        stop(f"The inventory {target} exists. Choose another ENV, or change its files.")
    source = source_of(arguments.source)
    found = found_in(Path(source)) if Path(source).is_dir() else {}
    hosts = hosts_of(arguments.hosts)
    arguments.inventories.mkdir(parents=True, exist_ok=True)
    # Under another name first: no half of an inventory is left behind.
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=arguments.inventories) as temporary:
        made = Path(temporary) / name
        variables = made / "group_vars" / "all"
        variables.mkdir(parents=True)
        if hosts:
            (made / "hosts.yml").write_text(inventory_of(hosts))
        else:
            shutil.copy(EXAMPLE / "hosts.yml", made / "hosts.yml")
        (variables / "cluster.yml").write_text(variables_of(source, domain))
        try:
            kept = write_secrets(variables, bool(os.environ.get(VAULT_PASSWORD)))
        except subprocess.CalledProcessError as error:
            stop(f"ansible-vault exited with status {error.returncode}.", error.stderr.rstrip())
        # From here on, the inventory is there.
        ignore_signals()
        made.rename(target)
    report(target, source, found, kept, hosts)


def report(
    target: Path, source: str, found: dict[str, str], kept: str, given: dict[str, str]
) -> None:
    """Say what was written, what was found, and what comes next."""
    name = target.name
    print(f"Wrote {target}:")
    hosts = "your hosts" if given else "example hosts: set your own"
    print(f"  hosts.yml                    {hosts}")
    print("  group_vars/all/cluster.yml   the domain and the source")
    print(f"  group_vars/all/vault.yml     generated secrets, {kept}")
    if found:
        print("Found in the source:")
        for subject, value in found.items():
            print(f"  {subject + ':':<16}{value}")
    else:
        print("The source is not a directory. What it is made of is found when it is packed.")
    if REMOTE.match(source):
        print("Its default branch is deployed. For another one, add channels_source_ref.")
    if kept != "encrypted":
        vault = target / "group_vars" / "all" / "vault.yml"
        print(f"Encrypt the secrets: .venv/bin/ansible-vault encrypt {vault}")
        print(
            f"  Then write the password into a file, and set its path: export {VAULT_PASSWORD}=..."
        )
    if names := [name for name, address in given.items() if name != address]:
        print(f"SSH connects to {', '.join(names)} by these names. If they do not resolve, set")
        print("  ansible_host beside each cluster_address in hosts.yml.")
    print("Lines for your application go into cluster.yml: docs/recipes.md")
    if not given:
        print("To rent machines, go on with docs/terraform.md. With hosts of yours:")
    first = "" if given else f"set your hosts in {target / 'hosts.yml'}, then "
    print(f"Next: {first}make check ENV={name}, then make converge ENV={name}")


if __name__ == "__main__":
    end_on_signals()
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(interrupted("\nInterrupted. Nothing changed."))
