"""A certificate authority that speaks ACME, and the names that it looks up: pebble, and a DNS."""

import asyncio
import json
import os
import shutil
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from .certificates import authority
from .edge import HOST, PATIENCE

PEBBLE = shutil.which("pebble")
CERTBOT = shutil.which("certbot")
A, TXT, NO_SUCH_NAME = 1, 16, 3


@dataclass
class Names(asyncio.DatagramProtocol):
    """A DNS server: addresses by name, and texts that programs leave as files in a directory."""

    texts: Path
    addresses: dict[str, str] = field(default_factory=dict)
    transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        end = data.index(b"\0", 12)
        labels, place = [], 12
        while place < end:
            labels.append(data[place + 1 : place + 1 + data[place]].decode())
            place += 1 + data[place]
        name = ".".join(labels).lower()
        (kind,) = struct.unpack(">H", data[end + 1 : end + 3])
        found = self.records(name, kind)
        known = found or name in self.addresses
        head = data[:2] + struct.pack(
            ">HHHHH", 0x8400 | (0 if known else NO_SUCH_NAME), 1, len(found), 0, 0
        )
        answers = b"".join(
            b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 0, len(record)) + record for record in found
        )
        self.transport.sendto(head + data[12 : end + 5] + answers, address)

    def records(self, name: str, kind: int) -> list[bytes]:
        if kind == A and name in self.addresses:
            return [ip_address(self.addresses[name]).packed]
        if kind == TXT and (self.texts / name).exists():
            texts = (self.texts / name).read_text().split()
            return [bytes([len(text)]) + text.encode() for text in texts]
        return []


@dataclass
class Authority:
    """Where it is, which certificate it has itself, and the names it finds."""

    directory: str
    certificate: Path
    names: Names

    def trust(self) -> dict[str, str]:
        """The environment of a client that trusts its server."""
        return {"REQUESTS_CA_BUNDLE": str(self.certificate)}


def free_port(*addresses: str) -> int:
    """A port that nothing uses at any of some addresses."""
    for _ in range(50):
        with socket.socket() as first:
            first.bind((addresses[0], 0))
            port: int = first.getsockname()[1]
            with suppress(OSError):
                for address in addresses[1:]:
                    with socket.socket() as other:
                        other.bind((address, port))
                return port
    raise AssertionError("no port is free")


async def until_open(port: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(ConnectionError):
                _, writer = await asyncio.open_connection(HOST, port)
                writer.close()
                return


@asynccontextmanager
async def running_authority(home: Path, http_port: int) -> AsyncIterator[Authority]:
    """Run pebble, which asks for the answers to challenges at a port."""
    assert PEBBLE
    loop = asyncio.get_running_loop()
    texts = home / "texts"
    texts.mkdir()
    transport, names = await loop.create_datagram_endpoint(
        lambda: Names(texts), local_addr=(HOST, 0)
    )
    own = authority(home)
    port, management = free_port(HOST), free_port(HOST)
    (home / "pebble.json").write_text(
        json.dumps(
            {
                "pebble": {
                    "listenAddress": f"{HOST}:{port}",
                    "managementListenAddress": f"{HOST}:{management}",
                    "certificate": str(own),
                    "privateKey": str(own.with_name("key.pem")),
                    "httpPort": http_port,
                    "tlsPort": 1,
                }
            }
        )
    )
    dns = "{}:{}".format(*transport.get_extra_info("sockname"))
    process = await asyncio.create_subprocess_exec(
        *(PEBBLE, "-config", home / "pebble.json", "-dnsserver", dns),
        env={**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until_open(port)
        yield Authority(f"https://{HOST}:{port}/dir", own, names)
    finally:
        process.terminate()
        await process.wait()
        transport.close()
