"""Certificates for the tests: those that openssl makes, and contexts that trust them."""

import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .house import own_module_utils

own_module_utils()

from ansible.module_utils import edge_certificates as edge_certificates  # noqa: E402

Store = edge_certificates.Store
Pair = tuple[str, str]


def make(*names: str) -> Pair:
    """A self-signed certificate for names, and its key."""
    pair: Pair = edge_certificates.make_self_signed(names)
    return pair


def trusting(
    certificate: str, alpn: Sequence[str] = ("http/1.1",), version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """A client that trusts a certificate and nothing else."""
    context = ssl.create_default_context(cadata=certificate)
    context.set_alpn_protocols(list(alpn))
    if version:
        context.minimum_version = context.maximum_version = version
    return context


def authority(directory: Path) -> Path:
    """Make a certificate authority of one server on 127.0.0.1; the file that names it."""
    certificate, key = make("127.0.0.1", "localhost")
    for name, content in {"cert.pem": certificate, "key.pem": key}.items():
        (directory / name).write_text(content)
    return directory / "cert.pem"


def openssl(*arguments: str) -> str:
    """What openssl prints."""
    command = ["openssl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
