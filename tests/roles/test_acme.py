"""Certificates by ACME: certbot, pebble and nginx, as the role brings them together."""

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .authority import CERTBOT, PEBBLE, Authority, free_port, running_authority
from .certificates import Pair, Store, edge_certificates, make
from .edge import EDGE_PORT, NGINX, TLS_PORT, Edge, Place, ask, conversation, running
from .house import ROOT, Tree, private, run_module
from .rendered import render
from .test_edge import TAKES, inventory

pytestmark = pytest.mark.skipif(
    not (NGINX and CERTBOT and PEBBLE),
    reason="nginx, certbot or pebble is not installed: scripts/bootstrap tests",
)

PROGRAM = ROOT / "plugins" / "module_utils" / "edge_certificates.py"
WEBROOT = private("nginx")["_nginx_acme_webroot"]
LINEAGE = private("nginx")["_nginx_acme_name"]
ADDRESSES = {"lb1": "127.0.0.2", "lb2": "127.0.0.3"}
NAME = "chat.example.org"
ELSEWHERE = "127.0.0.4"
SOCKETS = 200


def two_edges() -> Tree:
    tree = inventory(
        cluster_tls="acme",
        cluster_server_names=[NAME, "www.example.org"],
        cluster_acme_email="operations@example.org",
        cluster_edge_https_port=TLS_PORT,
        # The clients of a test all have one address.
        nginx_handshakes_per_second=1000,
    )
    tree["all"]["hosts"] = {
        host: {"cluster_address": address} for host, address in ADDRESSES.items()
    }
    tree["nginx"]["hosts"] = dict.fromkeys(ADDRESSES)
    return tree


@pytest.fixture(scope="module")
def configurations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    (cluster,) = render(tmp_path_factory.mktemp("rendered"), {"two": two_edges()}).values()
    return {host: files["/etc/nginx/nginx.conf"].content for host, files in cluster.items()}


@dataclass
class AcmeEdge:
    """An edge, and what certbot keeps on its host."""

    edge: Edge
    address: str
    home: Path
    port: int
    self_signed: str

    @property
    def hook(self) -> list[str]:
        configuration = self.edge.configuration
        where = ["-c", str(configuration), "-p", str(configuration.parent)]
        return [
            *(sys.executable, str(PROGRAM), "deploy", "--configuration", str(configuration)),
            *("--directory", str(configuration.with_name("tls")), "--nginx", str(NGINX)),
            *("--reload", str(NGINX), "-s", "reload", *where, "-e", "/dev/null"),
        ]

    @property
    def directories(self) -> dict[str, str]:
        return {
            f"{name}_directory": str(self.home / name) for name in ("configuration", "work", "log")
        }

    async def obtain(self, directory: str, check: bool = False, **options: Any) -> Tree:
        """Run the module as the role does."""
        given: Tree = {
            "name": LINEAGE,
            "domains": [NAME],
            "email": "operations@example.org",
            "server": directory,
            "webroot": str(self.home / "webroot"),
            "hook": self.hook,
            **self.directories,
            **options,
        }
        return await asyncio.to_thread(run_module, "acme_certificate", given, check)

    async def served(self) -> str:
        """The certificate that a client gets."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        _, writer = await asyncio.open_connection(
            self.address, self.edge.tls_port, ssl=context, server_hostname=NAME
        )
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return ssl.DER_cert_to_PEM_cert(found)

    async def issuer(self) -> str:
        return str(edge_certificates.describe(await self.served()).issuer)


def put(pair: Pair, tls: Path) -> str:
    name: str = Store(tls).put(*pair)
    return name


@asynccontextmanager
async def running_edges(
    configurations: dict[str, str], home: Path, port: int
) -> AsyncIterator[dict[str, AcmeEdge]]:
    async with AsyncExitStack() as stack:
        edges = {}
        for host, address in ADDRESSES.items():
            content = configurations[host].replace(WEBROOT, str(home / host / "webroot"))
            for peer in ADDRESSES.values():
                content = content.replace(f"server {peer}:{EDGE_PORT} ", f"server {peer}:{port} ")
            pair = make(NAME)
            certify = partial(put, pair)
            edge = await stack.enter_async_context(
                running(content, TAKES, certify, Place(address, port))
            )
            edges[host] = AcmeEdge(edge, address, home / host, port, pair[0])
            (home / host).mkdir()
        yield edges


@dataclass
class World:
    authority: Authority
    edges: dict[str, AcmeEdge]

    @property
    def edge(self) -> AcmeEdge:
        return self.edges["lb1"]


@pytest.fixture
async def world(
    configurations: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    port = free_port(*ADDRESSES.values(), ELSEWHERE)
    async with (
        running_authority(tmp_path, port) as authority,
        running_edges(configurations, tmp_path, port) as edges,
    ):
        for name, value in authority.trust().items():
            monkeypatch.setenv(name, value)
        authority.names.addresses[NAME] = ADDRESSES["lb1"]
        yield World(authority, edges)


async def test_a_certificate_is_obtained_once_and_served(world: World) -> None:
    edge = world.edge
    assert "self-signed" in await edge.issuer()
    predicted = await edge.obtain(world.authority.directory, check=True)
    assert (predicted["changed"], predicted["obtained"]) == (True, False)
    assert "self-signed" in await edge.issuer()

    first = await edge.obtain(world.authority.directory)
    assert first["problem"] == ""
    assert (first["changed"], first["obtained"]) == (True, True)
    assert "Pebble" in await edge.issuer()
    served = await edge.served()

    second = await edge.obtain(world.authority.directory)
    assert (second["changed"], second["reason"], second["problem"]) == (False, "", "")
    assert await edge.served() == served
    # The self-signed one and the new one; a run removes what is older.
    assert not (await edge.obtain(world.authority.directory, check=True))["changed"]


async def test_an_edge_answers_a_challenge_that_the_other_one_knows(world: World) -> None:
    """Two edges behind one name, and no disk that both have."""
    for asked in ADDRESSES.values():
        world.authority.names.addresses[NAME] = asked
        for edge in world.edges.values():
            answer = await edge.obtain(world.authority.directory, days=3650)
            assert answer["problem"] == "", (edge.address, asked)
    issued = [await edge.served() for edge in world.edges.values()]
    assert len(set(issued)) == len(world.edges), "each has its own"
    assert all(["Pebble" in await edge.issuer() for edge in world.edges.values()])


async def test_what_no_edge_knows_is_asked_of_each_once(world: World) -> None:
    path = "/.well-known/acme-challenge/nothing"
    for edge in world.edges.values():
        answer = await ask(edge.port, path, host=NAME, address=edge.address)
        assert answer.status == 404
    assert not any(edge.edge.asked for edge in world.edges.values()), "a worker was asked"


async def test_an_edge_that_is_off_does_not_keep_the_other_from_its_certificate(
    world: World,
) -> None:
    world.edges["lb2"].edge.process.terminate()
    await world.edges["lb2"].edge.process.wait()
    assert (await world.edge.obtain(world.authority.directory))["problem"] == ""
    path = "/.well-known/acme-challenge/nothing"
    answer = await ask(world.edge.port, path, host=NAME, address=world.edge.address)
    assert answer.status in {404, 502, 504}


async def test_a_renewal_closes_no_socket(world: World) -> None:
    edge = world.edge
    await edge.obtain(world.authority.directory)
    before = await edge.served()
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    async with AsyncExitStack() as stack:
        sockets = []
        for _ in range(SOCKETS):
            opened = conversation(
                edge.edge.tls_port,
                "/ws/",
                upgrade=True,
                host=NAME,
                address=edge.address,
                tls=client,
            )
            answer, reader, writer = await stack.enter_async_context(opened)
            assert answer.status == 101
            sockets.append((reader, writer))
        renewed = await asyncio.to_thread(
            subprocess.run,
            # As the timer does, but now.
            [
                *(str(CERTBOT), "renew", "--force-renewal", "--no-random-sleep-on-renew"),
                *("--config-dir", edge.directories["configuration_directory"]),
                *("--work-dir", edge.directories["work_directory"]),
                *("--logs-dir", edge.directories["log_directory"]),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert renewed.returncode == 0, renewed.stdout + renewed.stderr
        assert await edge.served() != before, "the hook has not put it in place"
        closed = 0
        for reader, writer in sockets:
            writer.write(b"still here")
            try:
                assert await reader.readexactly(10) == b"still here"
            except (asyncio.IncompleteReadError, ConnectionError):
                closed += 1
        assert closed == 0
    # A run finds nothing to do.
    assert not (await edge.obtain(world.authority.directory))["changed"]


async def test_a_certificate_authority_that_is_away_is_asked_again(world: World) -> None:
    edge = world.edge
    away = f"https://127.0.0.1:{free_port('127.0.0.1')}/dir"
    answer = await edge.obtain(away)
    assert "failed" not in answer
    assert (answer["changed"], answer["obtained"]) == (False, False)
    assert "Connection refused" in answer["problem"]
    assert await edge.served() == edge.self_signed

    assert (await edge.obtain(world.authority.directory))["problem"] == ""
    served = await edge.served()
    # Away when another name is added: the former certificate stays.
    again = await edge.obtain(away, domains=[NAME, "www.example.org"])
    assert "Connection refused" in again["problem"]
    assert await edge.served() == served


@pytest.mark.parametrize("address", [None, ELSEWHERE, "somebody's"])
async def test_a_name_that_is_not_ours_is_named(world: World, address: str | None) -> None:
    name = "not-ours.example.org"
    server = None
    if address == "somebody's":
        address = ELSEWHERE

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(refuse, ELSEWHERE, world.edge.port)
    if address:
        world.authority.names.addresses[name] = address
    answer = await world.edge.obtain(world.authority.directory, domains=[NAME, name])
    if server:
        server.close()
    assert "failed" not in answer
    assert name in answer["problem"]
    assert not answer["changed"]
    assert await world.edge.served() == world.edge.self_signed
    # Taken out of the inventory again, the others get theirs.
    assert (await world.edge.obtain(world.authority.directory))["problem"] == ""


async def test_another_name_means_another_certificate(world: World) -> None:
    edge, names = world.edge, world.authority.names.addresses
    await edge.obtain(world.authority.directory)
    names["www.example.org"] = ADDRESSES["lb2"]
    answer = await edge.obtain(world.authority.directory, domains=[NAME, "www.example.org"])
    assert (answer["problem"], answer["changed"]) == ("", True)
    assert answer["reason"] == "the certificate was obtained with other arguments"
    found = edge_certificates.describe(await edge.served()).names
    assert set(found) == {NAME, "www.example.org"}


async def test_a_certificate_that_nginx_does_not_serve_yet_is_put_in_place(world: World) -> None:
    """A run was interrupted between certbot and nginx, or the hook has failed."""
    edge = world.edge
    broken = ["false", "--reload"]
    answer = await edge.obtain(world.authority.directory, hook=[*edge.hook[:-9], *broken])
    assert "not in effect" in answer["problem"] or "failed" in answer["problem"]
    again = await edge.obtain(world.authority.directory)
    assert again["problem"] == ""
    assert "Pebble" in await edge.issuer()


async def test_a_wildcard_is_obtained_by_a_hook_of_the_operators(
    world: World, tmp_path: Path
) -> None:
    program = tmp_path / "hook"
    program.write_text(f"""#!/bin/sh
file={world.authority.names.texts}/_acme-challenge.$CERTBOT_DOMAIN
case $1 in
present) echo "$CERTBOT_VALIDATION" >>"$file" ;;
cleanup) rm -f "$file" ;;
esac
""")
    program.chmod(0o755)
    arguments = [
        argument.replace("{{ nginx_acme_dns_hook }}", str(program))
        for argument in private("nginx")["_nginx_acme_hook_arguments"]
    ]
    answer = await world.edge.obtain(
        world.authority.directory,
        domains=["example.org", "*.example.org"],
        arguments=arguments,
        webroot=None,
    )
    assert answer["problem"] == ""
    found = edge_certificates.describe(await world.edge.served()).names
    assert set(found) == {"example.org", "*.example.org"}
    assert list(world.authority.names.texts.iterdir()) == []
    assert os.environ["REQUESTS_CA_BUNDLE"]
