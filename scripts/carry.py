"""Carry what is stated: open as many sockets as cluster_sockets says, with one app host stopped.

Brings up a staging cluster of its own, stops one app host, and opens the sockets through the edge
at a bounded rate. Then it proves delivery between the workers that are left, and opens a tenth
more: these are refused with 503 and Retry-After, and nobody who is connected is touched. Ends with
0 if all of this is so, and prints what nginx and the workers need for a socket.

The clients are processes of this program. They do no more than a handshake and answer pings, so
that thousands of them take little.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import multiprocessing
import os
import re
import resource
import sys
import time
from collections import Counter
from http import HTTPStatus
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import quote

import chaos
import commands
from raw_socket import RawSocket
from rehearse import DIRECTORY, Rehearsal, RehearsalError, cluster, docker, remove, run, timed

PROCESSES = 3
ROOM_SIZE = 50
STOPPED = "app2"
LEFT = "app1"
PATIENCE = 10
"""Times that a client asks again after a 503, as a browser's client would."""


class Client(RawSocket):
    """One socket of a crowd."""

    def __init__(self, crowd: Crowd, request: bytes) -> None:
        super().__init__(request)
        self.crowd = crowd

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that the socket has ended."""
        super().connection_lost(exc)
        self.crowd.lost(self)


class Crowd:
    """The clients of one process."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self.host, self.port, self.token = host, port, token
        self.open: set[Client] = set()
        self.ended = 0
        self.answers: Counter[str] = Counter()

    def lost(self, client: Client) -> None:
        """Count a socket that was open and has ended."""
        if client in self.open:
            self.open.remove(client)
            self.ended += 1

    def request(self, number: int) -> bytes:
        """Return the handshake of a client, with a browser's headers."""
        room = f"carry-{number // ROOM_SIZE}"
        key = base64.b64encode(os.urandom(16)).decode()
        return (
            f"GET /ws/chat/{room}/?token={quote(self.token)} HTTP/1.1\r\n"
            f"Host: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0\r\n"
            "Accept-Language: en-US,en;q=0.5\r\n\r\n"
        ).encode()

    async def enter(self, number: int, again: int) -> None:
        """Open one socket; ask again after a 503."""
        loop = asyncio.get_running_loop()
        for _ in range(again + 1):
            client = Client(self, self.request(number))
            try:
                await loop.create_connection(lambda c=client: c, self.host, self.port)  # type: ignore[misc]
            except OSError as error:
                self.answers[type(error).__name__] += 1
                continue
            status = await client.status()
            if status == HTTPStatus.SWITCHING_PROTOCOLS:
                self.open.add(client)
                self.answers["101"] += 1
                return
            names = {line.split(b":")[0].lower() for line in await client.answered}
            self.answers[f"{status}{' Retry-After' if b'retry-after' in names else ''}"] += 1
            if client.transport:
                client.transport.close()
            if again:
                await asyncio.sleep(5)

    async def enter_all(self, numbers: range, rate: float, again: int) -> None:
        """Open sockets at a rate per second."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for index, number in enumerate(numbers):
                await asyncio.sleep(max(0.0, began + index / rate - time.monotonic()))
                group.create_task(self.enter(number, again))


def be_a_crowd(told: Connection, host: str, port: int, token: str) -> None:
    """Hold the sockets that the parent asks for: what each process of clients runs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard > soft else soft, hard))

    async def hold() -> None:
        crowd = Crowd(host, port, token)
        loop = asyncio.get_running_loop()
        while True:
            try:
                asked = await loop.run_in_executor(None, told.recv)
            except EOFError:  # the parent has ended
                return
            crowd.answers.clear()
            if numbers := asked.get("numbers"):
                await crowd.enter_all(numbers, asked["rate"], asked["again"])
            told.send({"open": len(crowd.open), "ended": crowd.ended, "answers": crowd.answers})

    asyncio.run(hold())


class Crowds:
    """The processes of clients."""

    def __init__(self, host: str, port: int, token: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.told: list[Connection] = []
        for _ in range(PROCESSES):
            own, other = context.Pipe()
            # A daemon: it ends with this program.
            process = context.Process(
                target=be_a_crowd, args=(other, host, port, token), daemon=True
            )
            process.start()
            self.told.append(own)

    def ask(self, numbers: range, rate: float = 1.0, again: int = 0) -> dict[str, Any]:
        """Have them open sockets; return what all of them have."""
        for index, told in enumerate(self.told):
            share = numbers[index :: len(self.told)]
            told.send({"numbers": share, "rate": rate / len(self.told), "again": again})
        answers = [told.recv() for told in self.told]
        return {
            "open": sum(each["open"] for each in answers),
            "ended": sum(each["ended"] for each in answers),
            "answers": sum((each["answers"] for each in answers), Counter()),
        }


def memory(host: str, pattern: str) -> int:
    """Return the KiB (Pss) of the processes of a host whose command line fits."""
    command = (
        f'sudo sh -c \'for p in $(pgrep --full "{pattern}"); do'
        " grep -h ^Pss: /proc/$p/smaps_rollup 2>/dev/null; done'"
    )
    told = run(f"memory of {host}", *cluster("ssh", host, command))
    return sum(map(int, re.findall(r"^Pss: +(\d+)", told, re.M)))


def carry(sockets: int, rate: float) -> bool:
    """Bring up the cluster and carry the sockets; return whether it did what it states."""
    rehearsal = Rehearsal("uvicorn", "core")
    rehearsal.settings |= {"cluster_sockets": sockets, "cluster_spare_hosts": 1}
    with timed("bring up the cluster"):
        rehearsal.bring_up()
    made, hosts = rehearsal.generated(), rehearsal.generated("hosts")
    rooms = sockets * 11 // 10 // ROOM_SIZE + 1
    program = (
        "from chat.models import Room\n"
        f"Room.objects.bulk_create([Room(name=f'carry-{{n}}', title=f'carry-{{n}}')"
        f" for n in range({rooms})], ignore_conflicts=True)"
    )
    run("rooms", *cluster("ssh", LEFT, f'sudo channels-manage shell -c "{program}"'))
    edge = hosts["lb1"]["cluster_address"]
    url = f"http://127.0.0.1:{made['staging_edge_port']}"
    token = chaos.Api(url, made["sample_users"], "carry-0").token()
    with timed(f"stop {STOPPED}"):
        docker("stop", "--time", "120", hosts[STOPPED]["staging_container"])
    before = {
        "nginx": memory("lb1", "^nginx: worker"),
        "worker": memory(LEFT, "channels_kit.serving.uvicorn"),
    }
    crowds = Crowds(edge, 80, token)
    with timed(f"open {sockets} sockets"):
        carried = crowds.ask(range(sockets), rate, PATIENCE)
    after = {
        "nginx": memory("lb1", "^nginx: worker"),
        "worker": memory(LEFT, "channels_kit.serving.uvicorn"),
    }
    address = hosts[LEFT]["cluster_address"]
    workers = " ".join(f"--worker={LEFT}:{port}=http://{address}:{port}" for port in (8001, 8002))
    with timed("prove"):
        proof = run(
            "proof",
            *cluster("ssh", LEFT, f"sudo channels-prove current --edge=http://{edge}:80 {workers}"),
        )
    more = sockets // 10
    with timed(f"open {more} more"):
        refused = crowds.ask(range(sockets, sockets + more), rate)
    still = crowds.ask(range(0))
    answers = dict(carried["answers"])
    print(f"\n   open: {carried['open']} of {sockets}; {carried['ended']} ended; {answers}")
    print(f"   {more} more: {dict(refused['answers'])}")
    print(f"   after that: {still['open']} open, {still['ended']} ended")
    for name, kibibytes in before.items():
        each = (after[name] - kibibytes) / max(1, carried["open"])
        print(f"   memory of a socket, {name}: {each:.1f} KiB")
    print(proof)
    return bool(
        carried["open"] == sockets
        and refused["answers"] == Counter({"503 Retry-After": more})
        and (still["open"], still["ended"]) == (sockets, 0)
    )


def main() -> int:
    """Carry what the command line states."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sockets", type=int, default=12_000, help="sockets (default: 12000)")
    parser.add_argument(
        "--rate", type=float, default=60, help="handshakes per second (default: 60)"
    )
    parser.add_argument("--keep", action="store_true", help="do not remove the cluster at the end")
    options = parser.parse_args()
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    with commands.locked("rehearsal", "make carry"):
        try:
            with commands.interruptible():
                ok = carry(options.sockets, options.rate)
        except RehearsalError as error:
            print(f"\n{error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return commands.interrupted(
                "\nInterrupted. make carry starts again from the beginning."
            )
        finally:
            if not options.keep:
                remove()
    print("Carried: all stated sockets; more were refused." if ok else "NOT carried. See above.")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
