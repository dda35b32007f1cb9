"""The proof speaks of the application: its pages and sockets, by real workers."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from channels_kit.probe import Report, Target, prove
from channels_kit.probe.checks import Checks
from channels_kit.probe.report import as_json, render_text

from .cluster import Redis, Worker
from .conftest import TOKEN
from .test_cluster import balancing

NAMES = ("app1:8001", "app2:8002")


@contextmanager
def workers(*environments: dict[str, str]) -> Iterator[list[Worker]]:
    """Two workers over one Redis, each with what it is started with beside that."""
    with Redis() as redis:
        common = {"CHANNELS_KIT_PROBE_TOKEN": TOKEN, "SERVED_REDIS": redis.url}
        each = environments if len(environments) > 1 else environments * 2
        with (
            Worker(NAMES[0], {**common, **each[0]}) as one,
            Worker(NAMES[1], {**common, **each[1]}) as two,
        ):
            yield [one, two]


@pytest.fixture(scope="module")
def sound() -> Iterator[list[Worker]]:
    with workers({}) as both:
        yield both


def targets(both: list[Worker]) -> list[Target]:
    return [Target(worker.name, worker.url) for worker in both]


def last(report: Report) -> str:
    return render_text(report).splitlines()[-1]


async def proof(
    both: list[Worker],
    pages: tuple[str, ...] = (),
    sockets: tuple[object, ...] = (),
    site: str = "http://chat.example.org",
    **options: object,
) -> Report:
    """Prove, by the name that people use."""
    checks = Checks.of(pages, sockets, site)
    async with asyncio.timeout(30):
        return await prove(targets(both), token=TOKEN, checks=checks, **options)  # type: ignore[arg-type]


@pytest.fixture
async def edge(sound: list[Worker]) -> AsyncIterator[str]:
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(balancing(sound))


async def test_what_was_proved_is_said_in_words(sound: list[Worker], edge: str) -> None:
    report = await proof(
        sound, ("/", "/login/"), ("/still/", {"path": "/leave/", "close": 1011}), hold=1.0
    )
    assert last(report) == (
        "Proved: wires (4 of 4 pairs), pages (/, /login/ on 2 workers),"
        " sockets (/still/ on 2 workers, open for 1 s; /leave/ closed with 1011 on 2 workers)."
    )
    assert as_json(report)["proved"] == ["wires", "pages", "sockets"]
    [part] = report.parts
    assert part.silence == 1.0
    assert {pair.delivered for pair in part.pairs} == {6}, "and once more after the silence"

    report = await proof(sound, ("/",), ("/still/",), edges=[edge])
    assert last(report) == (
        "Proved: wires (4 of 4 pairs directly, 4 of 4 through the edge),"
        " pages (/ on 2 workers and through the edge),"
        " sockets (/still/ on 2 workers and through the edge)."
    )


async def test_what_was_not_looked_at_is_said_and_is_no_success(sound: list[Worker]) -> None:
    report = await proof(sound)
    assert last(report) == (
        "Proved: wires (4 of 4 pairs). Not checked: pages (none named), sockets (none named)."
    )
    content = as_json(report)
    assert content["proved"] == ["wires"]
    assert content["not_checked"] == {"pages": "none named", "sockets": "none named"}


async def test_a_client_of_redis_that_gives_up_while_it_waits_is_red() -> None:
    """As redis 8 does by default after 5 s, as long as channels_redis waits for a message."""
    with workers({"SERVED_REDIS_TIMEOUT": "1"}) as both:
        # Who does not wait sees nothing.
        assert (await proof(both)).ok
        report = await proof(both, hold=3.0)
    assert not report.ok
    text = render_text(report)
    assert " after 1." in text
    assert "s of silence" in text
    assert last(report).startswith("Not proved: wires. Next: read the log of app")
    assert last(report).endswith("as redis 8 does with channels_redis: lock redis<8")


async def test_pages_that_all_fail_are_red() -> None:
    with workers({"SERVED_STATUS": "500"}) as both:
        async with balancing(both) as edge:
            report = await proof(both, ("/",), edges=[edge])
    assert report.wires_ok
    assert not report.ok
    text = render_text(report)
    assert "pages: 0 of 3 as expected\n" in text
    for place in ("on app1:8001", "on app2:8002", "through the edge"):
        assert f"  / {place}: answered 500\n" in text
    assert last(report) == ("Not proved: pages. Next: read the log of app1:8001: /: answered 500")


async def test_a_page_that_fails_on_one_worker_is_red_and_named() -> None:
    with workers({}, {"SERVED_STATUS": "503"}) as both:
        report = await proof(both, ("/",))
    assert [page.place for page in report.pages if page.failure] == ["app2:8002"]
    assert not report.ok


async def test_sockets_that_die_are_red_with_code_and_seconds(sound: list[Worker]) -> None:
    # Where sockets only have to open, nobody waits for it.
    assert (await proof(sound, sockets=("/brief/",))).ok
    async with balancing(sound) as edge:
        report = await proof(sound, sockets=("/brief/", "/still/"), hold=2.0, edges=[edge])
    assert report.wires_ok
    assert not report.ok
    text = render_text(report)
    assert "sockets: 3 of 6 as expected\n" in text
    for place in ("on app1:8001", "on app2:8002", "through the edge"):
        assert f"  /brief/ {place}: closed with 1011: an error of mine after 1." in text
    assert last(report).startswith(
        "Not proved: sockets. Next: read the log of app1:8001: /brief/: closed with 1011"
    )


async def test_a_worker_on_the_former_release_is_red_and_named() -> None:
    with workers({"CHANNELS_KIT_REVISION": "new-1"}, {"CHANNELS_KIT_REVISION": "old-1"}) as both:
        report = await proof(both, ("/",), release="new")
        # In a roll that is no fault; and what the former one answers is not what is proved.
        rolling = await proof(both, ("/",), release="new", rolling=True)
        left = await proof(both, ("/",), release="other", rolling=True)
    assert report.wires_ok
    assert report.pages_ok
    assert not report.ok
    assert "app2:8002: runs old-1, not release new\n" in render_text(report)
    assert last(report) == (
        "Not proved: release. Next: restart app2:8002, so that it runs release new"
    )
    assert as_json(report)["strangers"] == {"app2:8002": "old-1"}
    assert rolling.ok
    assert "pages (/ on 1 worker)." in last(rolling)
    assert "Not checked: pages (no worker runs release other)" in last(left)


async def test_a_roll_mends_a_former_release_whose_sockets_end_in_the_silence() -> None:
    former = {"CHANNELS_KIT_REVISION": "old-1", "SERVED_REDIS_TIMEOUT": "1"}
    with workers({"CHANNELS_KIT_REVISION": "new-1"}, former) as both:
        rolling = await proof(both, ("/",), release="new", rolling=True, hold=3.0)
        whole = await proof(both, ("/",), release="new", hold=3.0)
        back = await proof(both, ("/",), release="old", rolling=True, hold=3.0)
    assert rolling.ok, render_text(rolling)
    assert " (former release, not judged)" in render_text(rolling)
    assert not whole.ok
    assert not back.ok


async def test_one_worker_with_the_name_of_another_release_is_not_taken_for_it() -> None:
    with workers({"CHANNELS_KIT_REVISION": "newer-1"}) as both:
        assert not (await proof(both, release="new")).ok
        assert (await proof(both, release="newer")).ok
        assert (await proof(both, release="newer-1")).ok


async def test_the_application_hears_what_the_edge_would_say(sound: list[Worker]) -> None:
    """So that ALLOWED_HOSTS, the Origin check and a redirect to https hold."""
    report = await proof(sound, ("/host/",), ("/host/",), "https://chat.example.org")
    assert report.ok, render_text(report)
    checks = Checks.of(("/host/",), ("/host/",))
    other = await prove(targets(sound), token=TOKEN, checks=checks)
    assert {page.failure for page in other.pages} == {"answered 500"}
    assert {socket.failure for socket in other.sockets} == {"answered 403"}


async def test_the_proof_passes_on_workers_that_are_full() -> None:
    with workers({"CHANNELS_KIT_MAX_SOCKETS": "1"}) as both:
        async with AsyncExitStack() as stack:
            for worker in both:
                url = worker.url.replace("http", "ws", 1)
                await stack.enter_async_context(connect(f"{url}/still/", proxy=None))
                with pytest.raises(InvalidStatus, match="503"):
                    await connect(f"{url}/still/", proxy=None)
            report = await proof(both, (), ("/still/",))
    assert report.ok, render_text(report)
