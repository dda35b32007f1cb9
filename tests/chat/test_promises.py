"""What was accepted is kept, whatever restarts: from outside, on real processes, with counts."""

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO

import PIL.Image
import psycopg
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.chat.services import Program, Services, eventually

LOBBY = "/api/rooms/lobby/messages/"
NUMBER = 6
DELAY = 6

# Seconds after its time in which a message has to be said.
SOON = 15.0


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with Services() as services:
        yield services


@pytest.fixture(autouse=True)
def supervised(services: Services) -> None:
    """Have each test begin with everything running."""
    services.supervise()


def texts(services: Services, token: str) -> Counter[str]:
    messages, known = Counter[str](), 0
    while True:
        status, page = services.request("GET", f"{LOBBY}?after={known}", token=token)
        assert status == 200, page
        if not page["messages"]:
            return messages
        messages.update(message["message"] for message in page["messages"])
        known = page["sequence"]


def restart_broker(services: Services) -> None:
    services.broker.stop()
    services.broker.start()


def broker_away(services: Services) -> None:
    """Away for longer than a worker tries at once."""
    before = len(services.celery.printed)
    services.broker.stop()
    eventually(lambda: "Cannot connect" in services.celery.printed[before:], "it is missed")
    services.broker.start()


def broker_empty(services: Services) -> None:
    services.broker.kill()
    (services.directory / "broker" / "appendonlydir").rename(
        services.directory / f"lost-{uuid.uuid4().hex}"
    )
    services.broker.start()


def kill(program: Callable[[Services], Program]) -> Callable[[Services], None]:
    def restart(services: Services) -> None:
        program(services).kill()
        program(services).start()

    return restart


def restart_celery(services: Services) -> None:
    services.celery.stop()
    services.celery.start()


def restart_postgres(services: Services) -> None:
    services.postgres.stop()
    services.postgres.start()


def kill_postgres(services: Services) -> None:
    services.postgres.stop("immediate")
    services.postgres.start()


def restart_layer(services: Services) -> None:
    services.layer.kill()
    services.layer.start()


RESTARTS: dict[str, Callable[[Services], None]] = {
    "broker": restart_broker,
    "broker away": broker_away,
    "broker empty": broker_empty,
    "celery": restart_celery,
    "celery killed": kill(lambda services: services.celery),
    "postgres": restart_postgres,
    "postgres killed": kill_postgres,
    "layer": restart_layer,
}


@pytest.mark.parametrize("restart", RESTARTS.values(), ids=RESTARTS.keys())
def test_delayed_messages_are_said_soon_after_their_time_and_once(
    services: Services, restart: Callable[[Services], None]
) -> None:
    token = services.token()
    wanted = [f"later {uuid.uuid4().hex}" for _ in range(NUMBER)]
    main = services.celery.process.popen.pid
    for text in wanted:
        status, answer = services.request("POST", LOBBY, {"message": text, "delay": DELAY}, token)
        assert status == 202, answer
    due = time.monotonic() + DELAY
    restart(services)
    left = max(due - time.monotonic(), 0) + SOON
    eventually(lambda: texts(services, token).keys() >= set(wanted), "all of them are said", left)
    assert [texts(services, token)[text] for text in wanted] == [1] * NUMBER
    if restart in (restart_broker, broker_away, broker_empty):
        # Celery's main process has lived through it.
        assert services.celery.process.popen.pid == main
        assert services.celery.is_running


def broker_gone_in_the_middle(services: Services) -> None:
    before = len(services.celery.printed)
    services.broker.stop()
    eventually(lambda: "could not give tasks back" in services.celery.printed[before:], "missed")
    services.broker.start()


@pytest.mark.parametrize(
    "restart",
    [broker_gone_in_the_middle, kill(lambda services: services.celery)],
    ids=["broker away", "celery killed"],
)
def test_tasks_in_hand_are_done_within_a_minute(
    services: Services, restart: Callable[[Services], None]
) -> None:
    """Held by a worker, as those that a former release has queued for later."""
    prefix = uuid.uuid4().hex
    before = services.celery.printed.count("post_later[")
    services.manage(
        "shell",
        "--command",
        "from chat.models import Room; from chat.tasks import post_later;"
        "from django.contrib.auth.models import User;"
        "r = Room.objects.get(name='lobby').pk; u = User.objects.get(username='ada').pk;"
        f"[post_later.apply_async(args=[r, u, f'{prefix} {{n}}', f'{prefix}{{n}}'], countdown=20)"
        f" for n in range({NUMBER})]",
    )
    eventually(lambda: services.celery.printed.count("post_later[") >= before + NUMBER, "in hand")
    restart(services)
    token = services.token()
    wanted = {f"{prefix} {number}" for number in range(NUMBER)}
    eventually(lambda: texts(services, token).keys() >= wanted, "all of them are done")
    assert all(texts(services, token)[text] == 1 for text in wanted)
    assert services.celery.is_running


def test_a_task_that_outlasts_its_connection_ends_nothing(services: Services) -> None:
    """The broker goes and comes back while a task runs; nobody takes its acknowledgement."""
    token, text = services.token(), f"after all {uuid.uuid4().hex}"
    main = services.celery.process.popen.pid
    with psycopg.connect(services.environment["DATABASE_URL"]) as other:
        other.execute("LOCK TABLE chat_latermessage")
        before = services.celery.printed.count("deliver_later_messages")
        # More than the two processes take: both wait for the table.
        eventually(
            lambda: services.celery.printed.count("deliver_later_messages") > before + 4,
            "tasks wait",
        )
        past = len(services.celery.printed)
        restart_broker(services)
        eventually(lambda: "Connected to" in services.celery.printed[past:], "it is back")
    eventually(
        lambda: "ended before it was acknowledged" in services.celery.printed[past:],
        "a task is done",
    )
    status, answer = services.request("POST", LOBBY, {"message": text, "delay": 1}, token)
    assert status == 202, answer
    eventually(lambda: texts(services, token)[text] == 1, "the next ones are done")
    assert services.celery.process.popen.pid == main
    assert services.celery.is_running


def picture() -> bytes:
    content = BytesIO()
    PIL.Image.new("RGB", (960, 480)).save(content, format="PNG")
    return content.getvalue()


async def room(services: Services, token: str) -> ClientConnection:
    url = f"ws://127.0.0.1:{services.port}/ws/chat/lobby/?token={token}"
    return await connect(url, origin=f"http://127.0.0.1:{services.port}", proxy=None)  # type: ignore[arg-type]


async def send_pictures(services: Services) -> None:
    async with await room(services, services.token()) as socket:
        for _ in range(NUMBER):
            await socket.send(picture())
        seen = 0
        async with asyncio.timeout(30):
            while seen < NUMBER:
                frame = json.loads(await socket.recv())
                seen += frame["type"] == "message" and "image" in frame


THUMBNAIL_RESTARTS: dict[str, Callable[[Services], None]] = {
    "thumbnails killed": kill(lambda services: services.thumbnails),
    "layer": restart_layer,
}


@pytest.mark.parametrize("restart", THUMBNAIL_RESTARTS.values(), ids=THUMBNAIL_RESTARTS.keys())
def test_every_image_has_its_thumbnail_in_the_end(
    services: Services, restart: Callable[[Services], None]
) -> None:
    services.thumbnails.stop()
    # They wait in the layer now, where nothing keeps them.
    asyncio.run(send_pictures(services))
    if restart is restart_layer:
        restart(services)
    services.thumbnails.start()
    if restart is not restart_layer:
        restart(services)
    count = (
        "from chat.models import Image; print(Image.objects.filter(has_thumbnail=False).count())"
    )
    eventually(
        lambda: services.manage("shell", "--command", count).split()[-1] == "0", "all are made", 60
    )


def test_sockets_hear_again_after_a_restart_of_the_layer(services: Services) -> None:
    """What is said while the layer is away is not lost either."""

    async def hear() -> None:
        token = services.token()
        async with await room(services, token) as socket:
            wanted = []
            for step in ("before", "away", "after"):
                if step == "away":
                    services.layer.kill()
                if step == "after":
                    services.layer.start()
                wanted.append(f"{step} {uuid.uuid4().hex}")
                status, _ = await asyncio.to_thread(
                    services.request, "POST", LOBBY, {"message": wanted[-1]}, token
                )
                assert status == 201
            heard: list[str] = []
            known = 0
            async with asyncio.timeout(40):
                while not set(heard) >= set(wanted):
                    try:
                        frame = json.loads(await socket.recv())
                    except Exception:
                        # Closed with its layer: a client connects again, and asks for the rest.
                        socket = await room(services, token)
                        continue
                    if frame["type"] == "message":
                        heard.append(frame["message"])
                    for message in frame.get("messages", []):
                        heard.append(message["message"])
                    if frame["type"] == "position" and frame["sequence"] > known:
                        known = frame["sequence"]
                        first = max(known - 50, 0)
                        ask = {"action": "history", "from": first, "to": known}
                        await socket.send(json.dumps(ask))
            await socket.close()

    asyncio.run(hear())
