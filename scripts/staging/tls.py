"""The certificate authority of a staging cluster, and the certificate of its edges."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY, AUTHORITY_KEY = "ca.pem", "ca.key"
CERTIFICATE, KEY = "edge.pem", "edge.key"
AUTHORITY_DAYS, DAYS = 3650, 365
LEAST_DAYS = 60
"""Days that a certificate must have left, else there is a new one: `make verify` wants fewer."""

Key = ec.EllipticCurvePrivateKey


def certify(directory: Path, name: str, names: Sequence[str]) -> bool:
    """Make an authority and a certificate in a directory, where they are missing.

    Args:
        directory: where both and their keys are.
        name: of the authority, for whoever finds it in a browser.
        names: host names and addresses that the certificate is for.

    Returns:
        Whether the certificate is new.
    """
    authority, authority_key = _authority(directory, name)
    found = _read(directory / CERTIFICATE)
    if found and (directory / KEY).exists() and _is_good(found, authority, names):
        return False
    key = ec.generate_private_key(ec.SECP256R1())
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.SubjectAlternativeName([_general(each) for each in names]), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
    ]
    certificate = _sign(names[0], key, authority.subject, authority_key, DAYS, extensions)
    _write(directory / KEY, _pem_of_key(key))
    _write(directory / CERTIFICATE, certificate.public_bytes(Encoding.PEM), 0o644)
    return True


def _authority(directory: Path, name: str) -> tuple[x509.Certificate, Key]:
    found = _read(directory / AUTHORITY)
    if found and (directory / AUTHORITY_KEY).exists():
        key = load_pem_private_key((directory / AUTHORITY_KEY).read_bytes(), password=None)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return found, key
    key = ec.generate_private_key(ec.SECP256R1())
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_usage_of_an_authority(), True),
    ]
    certificate = _sign(name, key, _subject(name), key, AUTHORITY_DAYS, extensions)
    _write(directory / AUTHORITY_KEY, _pem_of_key(key))
    _write(directory / AUTHORITY, certificate.public_bytes(Encoding.PEM), 0o644)
    return certificate, key


def _sign(
    name: str,
    key: Key,
    issuer: x509.Name,
    issuer_key: Key,
    days: int,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_subject(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # The clocks of hosts may differ.
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, hashes.SHA256())


def _usage_of_an_authority() -> x509.KeyUsage:
    signs = {"key_cert_sign", "crl_sign", "digital_signature"}
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    usage = dict.fromkeys((*signs, *others, "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(**usage | dict.fromkeys(signs, True))


def _is_good(
    certificate: x509.Certificate, authority: x509.Certificate, names: Sequence[str]
) -> bool:
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return (
        left > datetime.timedelta(days=LEAST_DAYS)
        and certificate.issuer == authority.subject
        and set(alternatives.value) == {_general(name) for name in names}
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem_of_key(key: Key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read(path: Path) -> x509.Certificate | None:
    return x509.load_pem_x509_certificate(path.read_bytes()) if path.exists() else None


def _write(path: Path, content: bytes, mode: int = 0o600) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.touch(mode=mode)
    temporary.write_bytes(content)
    temporary.replace(path)
