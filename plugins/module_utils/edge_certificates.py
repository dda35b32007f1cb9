#!/usr/bin/python3
"""The certificate that an edge serves: kept under the hash of its content, put in place as a whole.

Each certificate has a directory of its own, whose content never changes::

    /etc/nginx/tls/0f3a…/certificate.pem   the certificate and its chain
                         key.pem           its private key
                         ticket.key            encrypts session tickets

nginx.conf names the directory, and so does the name of the configuration that nginx reports. So a
new certificate is a new configuration: it is validated before it goes live, and a run or a hook can
see whether it is in effect.

This file is also a program, which certbot calls with a renewed certificate. It uses the standard
library alone.

usage: edge_certificates.py deploy [--lineage DIRECTORY] [--configuration FILE]
"""

from __future__ import annotations

import argparse
import calendar
import contextlib
import hashlib
import ipaddress
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CONFIGURATION = "/etc/nginx/nginx.conf"
DIRECTORY = "/etc/nginx/tls"
RELOAD = ("systemctl", "try-reload-or-restart", "nginx.service")

CERTIFICATE, KEY = "certificate.pem", "key.pem"
TICKET = "ticket.key"
SELF_SIGNED = "self-signed"

TICKET_BYTES = 80
"""What nginx takes as a key of AES-256."""

SELF_SIGNED_DAYS = 3650
PATIENCE = 30.0
"""Seconds that nginx gets to run with a new configuration."""

_ID = r"[0-9a-f]{12}"
_LOCAL = re.compile(r"listen (127\.0\.0\.1:[0-9]+);")


class CertificateError(Exception):
    """Why a certificate is not in place, for the operator."""


def identify(certificate: str, key: str) -> str:
    """Return the name of a pair's directory."""
    return hashlib.sha256(f"{certificate}\0{key}".encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Description:
    """What openssl reads of a certificate.

    Attributes:
        names: host names and addresses that it is for.
        not_after: the end of its validity, in openssl's words.
        expires: the same in seconds since 1970.
        issuer: who has signed it.
    """

    names: tuple[str, ...]
    not_after: str
    expires: float
    issuer: str


def describe(certificate: str) -> Description:
    """Return what a certificate in PEM says of itself.

    Raises:
        CertificateError: openssl cannot read it.
    """
    command = ["openssl", "x509", "-noout", "-issuer", "-enddate", "-ext", "subjectAltName"]
    ended = subprocess.run(command, input=certificate, capture_output=True, text=True, check=False)
    if "notAfter=" not in ended.stdout:
        raise CertificateError(f"openssl cannot read the certificate: {last_line(ended.stderr)}")
    lines = [line.strip() for line in ended.stdout.splitlines()]
    values = dict(line.split("=", 1) for line in lines if line.startswith(("issuer=", "notAfter=")))
    names = re.findall(r"(?:DNS|IP Address):([^,\s]+)", ended.stdout)
    not_after = values["notAfter"]
    moment = time.strptime(not_after.removesuffix(" GMT"), "%b %d %H:%M:%S %Y")
    return Description(
        names=tuple(canonical(name) for name in names),
        not_after=not_after,
        expires=float(calendar.timegm(moment)),
        issuer=values["issuer"].strip(),
    )


def make_self_signed(names: Sequence[str]) -> tuple[str, str]:
    """Return a certificate for names and addresses, and its key.

    Raises:
        CertificateError: openssl makes none.
    """
    alternatives = ",".join(f"{_kind(name)}:{name}" for name in names)
    with tempfile.TemporaryDirectory(prefix="certificate-") as directory:
        key = Path(directory, KEY)
        command = [
            *("openssl", "req", "-x509", "-newkey", "ec"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", str(key), "-days", str(SELF_SIGNED_DAYS)),
            *("-subj", "/CN=self-signed until there is another", "-addext"),
            f"subjectAltName={alternatives}",
        ]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise CertificateError(f"openssl made no certificate: {last_line(ended.stderr)}")
        return ended.stdout, key.read_text()


class Store:
    """The certificates of an edge.

    Args:
        directory: where they are; only root may read it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def holds(self, certificate: str, key: str) -> bool:
        """Return whether a pair is there, whole."""
        place = self.directory / identify(certificate, key)
        return (
            _read(place / CERTIFICATE) == certificate
            and _read(place / KEY) == key
            and _size(place / TICKET) == TICKET_BYTES
        )

    def put(self, certificate: str, key: str) -> str:
        """Put a pair there, with a key for tickets of its own, and return its name.

        nginx takes no ticket of another certificate.

        Args:
            certificate: the certificate and its chain, in PEM.
            key: its private key, in PEM.
        """
        name = identify(certificate, key)
        if self.holds(certificate, key):
            return name
        self.make()
        new = Path(tempfile.mkdtemp(dir=self.directory, prefix=f".{name}-"))
        try:
            for file, content in {
                CERTIFICATE: certificate.encode(),
                KEY: key.encode(),
                TICKET: secrets.token_bytes(TICKET_BYTES),
            }.items():
                _write(new / file, content)
            # What is there is not whole.
            shutil.rmtree(self.directory / name, ignore_errors=True)
            new.rename(self.directory / name)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        return name

    def make(self) -> None:
        """Make the directory, for root alone."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)

    def self_signed(self, names: Sequence[str]) -> tuple[str, str] | None:
        """Return the self-signed pair that is there, if it is for these names."""
        place = self.directory / SELF_SIGNED
        certificate, key = _read(place / CERTIFICATE), _read(place / KEY)
        if not certificate or not key:
            return None
        with contextlib.suppress(CertificateError):
            if set(describe(certificate).names) == {canonical(name) for name in names}:
                return certificate, key
        return None

    def make_self_signed(self, names: Sequence[str]) -> tuple[str, str]:
        """Make a self-signed pair for names, keep it, and return it."""
        certificate, key = make_self_signed(names)
        self.make()
        place = self.directory / SELF_SIGNED
        place.mkdir(mode=0o700, exist_ok=True)
        _write(place / KEY, key.encode())
        _write(place / CERTIFICATE, certificate.encode())
        return certificate, key

    def remove_others(self, kept: Iterable[str | None]) -> None:
        """Remove every pair but some."""
        for place in self.directory.glob("*"):
            if re.fullmatch(rf"{_ID}|\..*", place.name) and place.name not in kept:
                shutil.rmtree(place, ignore_errors=True)


class Edge:
    """nginx under a configuration that names one pair.

    Args:
        configuration: nginx.conf.
        store: the certificates.
        nginx: the program.
        reload: the command by which it reads its configuration again.
    """

    def __init__(
        self,
        configuration: Path,
        store: Store,
        nginx: str = "/usr/sbin/nginx",
        reload: Sequence[str] = RELOAD,
    ) -> None:
        self.configuration = configuration
        self.store = store
        self.nginx = nginx
        self.reload = reload

    def current(self) -> str | None:
        """Return the name of the pair in the configuration; None where it names none."""
        found = re.search(
            rf"{re.escape(str(self.store.directory))}/({_ID})/", _read(self.configuration)
        )
        return found[1] if found else None

    def switch(self, certificate: str, key: str) -> bool:
        """Have nginx serve a pair, and return whether something was changed.

        Raises:
            CertificateError: it does not; what it served before it still does.
        """
        before = self.current()
        if before is None:
            raise CertificateError(f"{self.configuration} names no certificate")
        new = self.store.put(certificate, key)
        if new != before:
            self.write(_read(self.configuration).replace(before, new))
        elif self.in_effect(new):
            return False
        ended = subprocess.run(self.reload, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise CertificateError(f"the reload of nginx failed: {last_line(ended.stderr)}")
        deadline = time.monotonic() + PATIENCE
        while not self.in_effect(new):
            if time.monotonic() > deadline:
                raise CertificateError(
                    f"nginx does not run with its new configuration after {PATIENCE:g} s;"
                    " see /var/log/nginx/error.log"
                )
            time.sleep(0.1)
        self.store.remove_others({new, before})
        return True

    def write(self, content: str) -> None:
        """Put a configuration in place that nginx accepts.

        Raises:
            CertificateError: nginx refuses it, in its words.
        """
        new = self.configuration.with_name(f".{self.configuration.name}.new")
        new.write_text(content)
        new.chmod(0o644)
        command = [self.nginx, "-t", "-q", "-c", str(new)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            new.unlink()
            raise CertificateError(f"validation failed; nothing changed. {ended.stderr.strip()}")
        new.replace(self.configuration)

    def in_effect(self, name: str) -> bool:
        """Return whether nginx reports that it runs with a pair."""
        local = _LOCAL.search(_read(self.configuration))
        if not local:
            raise CertificateError(f"{self.configuration} has no address on 127.0.0.1")
        # Never by a proxy of the environment.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://{local[1]}/generation", timeout=5) as answer:
                words: list[str] = answer.read().decode().split()
        except (urllib.error.URLError, OSError):
            return False
        return bool(words) and words[0].endswith(name)


def read_lineage(lineage: Path) -> tuple[str, str] | None:
    """Return the pair of a directory as certbot writes it; None where there is none."""
    certificate, key = _read(lineage / "fullchain.pem"), _read(lineage / "privkey.pem")
    return (certificate, key) if certificate and key else None


def last_line(text: str) -> str:
    """Return the last line of what a program said."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _kind(name: str) -> str:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "DNS"
    return "IP"


def canonical(name: str) -> str:
    """Return a name or an address as certificates have it."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def _write(path: Path, content: bytes) -> None:
    """Write a file that nobody but root ever reads."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def deploy(options: argparse.Namespace) -> str:
    """Have nginx serve a renewed certificate, and return what was done.

    Raises:
        CertificateError: it does not.
    """
    pair = read_lineage(Path(options.lineage))
    if pair is None:
        raise CertificateError(f"there is no certificate in {options.lineage}")
    edge = Edge(
        Path(options.configuration),
        Store(Path(options.directory)),
        nginx=options.nginx,
        reload=options.reload or RELOAD,
    )
    changed = edge.switch(*pair)
    until = describe(pair[0]).not_after
    return f"nginx serves the certificate that is valid until {until}" + (
        "" if changed else "; nothing to change"
    )


def main(
    arguments: Sequence[str] | None = None,
    environment: Mapping[str, str] = os.environ,
    say: Callable[[str], object] = print,
) -> int:
    """Act as the hook of certbot."""
    parser = argparse.ArgumentParser(description="Have nginx serve a renewed certificate.")
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("deploy")
    lineage = environment.get("RENEWED_LINEAGE")
    verb.add_argument("--lineage", default=lineage, required=lineage is None)
    verb.add_argument("--configuration", default=CONFIGURATION)
    verb.add_argument("--directory", default=DIRECTORY)
    verb.add_argument("--nginx", default="/usr/sbin/nginx")
    verb.add_argument("--reload", nargs=argparse.REMAINDER)
    try:
        say(deploy(parser.parse_args(arguments)))
    except CertificateError as error:
        say(f"The certificate is not in effect: {error}. The next run retries.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
