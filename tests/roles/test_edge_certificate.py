"""The certificate of an edge: what the preflight takes, and what the module puts in place."""

import datetime
import runpy
import ssl
from pathlib import Path
from typing import Any

import pytest

from .certificates import Pair, edge_certificates, make, openssl
from .house import ROOT, Tree, run_module

NAME = "chat.example.org"
VALUES = runpy.run_path(str(ROOT / "plugins" / "test" / "values.py"))
certificate, certificate_key = VALUES["certificate"], VALUES["certificate_key"]
names = runpy.run_path(str(ROOT / "plugins" / "filter" / "cluster.py"))["certificate_names"]


@pytest.fixture(scope="module")
def pair() -> Pair:
    return make(NAME)


@pytest.fixture
def files(tmp_path: Path, pair: Pair) -> tuple[Path, Path]:
    """A certificate and its key, as people have them on the controller."""
    (tmp_path / "chat.pem").write_text(pair[0])
    key = tmp_path / "chat.key"
    key.touch(mode=0o600)
    key.write_text(pair[1])
    return tmp_path / "chat.pem", key


# What the preflight takes


def test_a_pair_is_taken_as_text_and_as_files(pair: Pair, files: tuple[Path, Path]) -> None:
    assert certificate(pair[0])
    assert certificate_key(pair[1], pair[0])
    assert certificate(str(files[0]))
    assert certificate_key(str(files[1]), str(files[0]))
    assert certificate_key(pair[1], str(files[0]))


def test_a_key_of_another_certificate_is_refused(pair: Pair) -> None:
    assert not certificate_key(make(NAME)[1], pair[0])


def test_a_key_that_others_can_read_is_refused(pair: Pair, files: tuple[Path, Path]) -> None:
    files[1].chmod(0o640)
    assert not certificate_key(str(files[1]), pair[0])


def test_a_key_with_a_passphrase_is_refused(pair: Pair, files: tuple[Path, Path]) -> None:
    arguments = ("pkcs8", "-topk8", "-passout", "pass:secret", "-in", str(files[1]))
    encrypted = openssl(*arguments)
    assert "ENCRYPTED" in encrypted
    assert not certificate_key(encrypted, pair[0])


def test_a_file_of_ansible_vault_is_taken(pair: Pair, files: tuple[Path, Path]) -> None:
    files[1].chmod(0o644)
    files[1].write_text("$ANSIBLE_VAULT;1.1;AES256\n3030\n")
    assert certificate_key(str(files[1]), pair[0])


def test_a_certificate_that_has_expired_is_refused(pair: Pair) -> None:
    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Later":
            return cls(9999, 1, 1, tzinfo=tz)

    taken = certificate.__globals__
    assert certificate(pair[0])
    before, taken["datetime"] = taken["datetime"], type("module", (), {"datetime": Later})
    taken["datetime"].UTC = datetime.UTC
    try:
        assert not certificate(pair[0])
    finally:
        taken["datetime"] = before


@pytest.mark.parametrize("value", ["", "chat.pem", "/nowhere/chat.pem", "/", None, 5, "a\0b"])
def test_what_is_no_certificate_is_refused(value: Any) -> None:
    assert not certificate(value)
    assert not certificate_key(value, value)


def test_certificates_are_for_host_names() -> None:
    given = ["Chat.example.org", "10.0.0.1", "2001:db8::1", "[2001:db8::2]", "localhost"]
    assert names([*given, ".example.net", "chat.example.org"]) == [
        "chat.example.org",
        "example.net",
        "*.example.net",
    ]


# The module


def put(tmp_path: Path, *, check: bool = False, **options: Any) -> Tree:
    given: Tree = {
        "names": [NAME, "10.0.0.1", "[2001:db8::1]"],
        "directory": str(tmp_path / "tls"),
        "configuration": str(tmp_path / "nginx.conf"),
        **options,
    }
    return run_module("edge_certificate", given, check)


def stored(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "tls").glob("*")}


def test_a_given_pair_is_put_in_place_once(tmp_path: Path, pair: Pair) -> None:
    given: Tree = {"certificate": pair[0], "key": pair[1]}
    predicted = put(tmp_path, check=True, **given)
    assert (predicted["changed"], (tmp_path / "tls").exists()) == (True, False)
    first = put(tmp_path, **given)
    assert (first["changed"], first["id"], first["source"]) == (True, predicted["id"], "files")
    # Without the last line's end, as a lookup has it.
    again = put(tmp_path, certificate=pair[0].strip(), key=pair[1].strip())
    assert (again["changed"], again["id"]) == (False, first["id"])
    place = tmp_path / "tls" / first["id"]
    assert sorted(path.name for path in place.iterdir()) == [
        "certificate.pem",
        "key.pem",
        "ticket.key",
    ]
    assert (place / "key.pem").stat().st_mode & 0o777 == 0o600
    assert pair[1].splitlines()[1] not in str(first)


def test_what_is_not_whole_is_put_in_place_again(tmp_path: Path, pair: Pair) -> None:
    given: Tree = {"certificate": pair[0], "key": pair[1]}
    place = tmp_path / "tls" / put(tmp_path, **given)["id"]
    (place / "ticket.key").unlink()
    assert put(tmp_path, **given)["changed"]
    assert (place / "ticket.key").stat().st_size == 80
    assert not put(tmp_path, **given)["changed"]


def test_there_is_a_self_signed_one_until_certbot_has_another(tmp_path: Path, pair: Pair) -> None:
    lineage = tmp_path / "live"
    assert put(tmp_path, check=True, lineage=str(lineage))["id"] == "0" * 12
    first = put(tmp_path, lineage=str(lineage))
    assert (first["source"], first["changed"]) == ("self-signed", True)
    found = (tmp_path / "tls" / first["id"] / "certificate.pem").read_text()
    assert set(edge_certificates.describe(found).names) == {NAME, "10.0.0.1", "2001:db8::1"}
    assert put(tmp_path, lineage=str(lineage))["changed"] is False
    # Other names, another certificate.
    other = put(tmp_path, lineage=str(lineage), names=["other.example"])
    assert (other["changed"], other["id"] != first["id"]) == (True, True)

    lineage.mkdir()
    (lineage / "fullchain.pem").write_text(pair[0])
    (lineage / "privkey.pem").write_text(pair[1])
    obtained = put(tmp_path, lineage=str(lineage))
    assert (obtained["source"], obtained["changed"]) == ("acme", True)


def test_the_pair_that_nginx_runs_with_is_kept(tmp_path: Path) -> None:
    pairs = [make(NAME) for _ in range(3)]
    ids = []
    for own, key in pairs:
        ids.append(put(tmp_path, certificate=own, key=key)["id"])
        (tmp_path / "nginx.conf").write_text(f"ssl_certificate {tmp_path}/tls/{ids[0]}/a.pem;")
    assert stored(tmp_path) == {ids[0], ids[2]}


def test_what_is_no_certificate_changes_nothing(tmp_path: Path) -> None:
    answer = put(tmp_path, certificate="no certificate", key="no key")
    assert answer["failed"]
    assert "openssl cannot read the certificate" in answer["msg"]
    assert not (tmp_path / "tls").exists()


# What a client sees


def test_a_client_says_why_it_refuses(tmp_path: Path) -> None:
    """The module of the verification, against what no client takes."""
    module = runpy.run_path(str(ROOT / "plugins" / "modules" / "edge_certificate_info.py"))
    found = module["look"]("127.0.0.1", 1, [NAME], 1.0, ssl.create_default_context())
    assert found.problems == [f"{NAME}: no TLS at 127.0.0.1 port 1: [Errno 111] Connection refused"]
    end = 1000 * 86400.0
    late = module["Found"](ends={"Sep 27 00:00:00 1972 GMT": end})
    assert list(module["expiring"](late, 14, end - 14 * 86400)) == []
    assert list(module["expiring"](late, 14, end - 13 * 86400)) == [
        "the certificate expires in 13 days, on Sep 27 00:00:00 1972 GMT; at least 14 are required"
    ]
