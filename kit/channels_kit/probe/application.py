"""Pages and sockets of the application: every check at every worker and edge, all at once."""

import asyncio
from collections.abc import Sequence

from channels_kit.probe.address import Place
from channels_kit.probe.checks import Checks
from channels_kit.probe.pages import check_page
from channels_kit.probe.result import PageResult, SocketResult
from channels_kit.probe.run import Settings
from channels_kit.probe.sockets import check_socket

AT_ONCE = 16
"""Pages that are asked for at once: they are the application's own, and cost what they cost."""


async def check_application(
    places: Sequence[Place], checks: Checks, settings: Settings
) -> tuple[tuple[PageResult, ...], tuple[SocketResult, ...]]:
    """Ask every place for every page, and open every socket there."""
    room = asyncio.Semaphore(AT_ONCE)

    async def page(place: Place, path: str) -> PageResult:
        async with room:
            return await check_page(place, path, settings.seconds)

    asking = [page(place, path) for path in checks.pages for place in places]
    opening = [
        check_socket(
            place,
            check,
            seconds=settings.seconds,
            hold=settings.hold,
            origin=settings.origin,
            token=settings.token,
        )
        for check in checks.sockets
        for place in places
    ]
    if asking or opening:
        settings.progress.phase(f"application: {len(asking)} pages, {len(opening)} sockets")
    pages, sockets = await asyncio.gather(asyncio.gather(*asking), asyncio.gather(*opening))
    return tuple(pages), tuple(sockets)
