from typing import Any

import pytest

from channels_kit.serving.forwarded import Forwarded
from channels_kit.serving.types import Receive, Scope, Send

EDGE = "10.0.0.5"


async def forward(**scope: Any) -> Scope:
    """Return the scope that the application is given."""
    given: list[Scope] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        given.append(scope)

    async def never() -> Any:
        raise AssertionError("not called")

    await Forwarded(application, {EDGE, "2001:db8::5"})(scope, never, lambda message: never())
    return given[0]


HEADERS = [(b"x-forwarded-for", b"203.0.113.7"), (b"x-forwarded-proto", b"https")]


@pytest.mark.parametrize(("kind", "scheme"), [("http", "https"), ("websocket", "wss")])
@pytest.mark.parametrize("edge", [EDGE, "2001:db8::5"])
async def test_the_edges_word_counts(kind: str, scheme: str, edge: str) -> None:
    scope = await forward(type=kind, client=(edge, 4711), headers=HEADERS)
    assert (scope["client"], scope["scheme"]) == (("203.0.113.7", 0), scheme)


@pytest.mark.parametrize("client", [("10.0.0.6", 4711), None])
async def test_nobody_elses_word_does(client: tuple[str, int] | None) -> None:
    scope = await forward(type="http", client=client, scheme="http", headers=HEADERS)
    assert (scope["client"], scope["scheme"]) == (client, "http")


async def test_of_several_addresses_the_edges_own_counts() -> None:
    headers = [(b"x-forwarded-for", b"192.0.2.1, 203.0.113.7")]
    scope = await forward(type="http", client=(EDGE, 4711), headers=headers)
    assert scope["client"] == ("203.0.113.7", 0)


@pytest.mark.parametrize(
    "headers", [[], [(b"x-forwarded-for", b""), (b"x-forwarded-proto", b"gopher")]]
)
async def test_an_edge_that_says_nothing_usable(headers: list[tuple[bytes, bytes]]) -> None:
    scope = await forward(type="websocket", client=(EDGE, 4711), scheme="ws", headers=headers)
    assert (scope["client"], scope["scheme"]) == ((EDGE, 4711), "ws")


async def test_a_lifespan_passes() -> None:
    assert await forward(type="lifespan") == {"type": "lifespan"}
