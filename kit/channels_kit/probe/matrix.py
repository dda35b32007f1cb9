"""The proof: which sockets to open for its parts, and how many."""

import asyncio
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from channels_kit.probe.address import Place, UsageError, check_base
from channels_kit.probe.application import check_application
from channels_kit.probe.checks import Checks
from channels_kit.probe.progress import Progress
from channels_kit.probe.result import PageResult, Part, Report, SocketResult
from channels_kit.probe.run import Run, Settings, Turns, is_of_release

DIRECTLY = "directly"
THROUGH_THE_EDGE = "through the edge"

EDGE_SOCKETS_EACH = 2
"""Sockets through the edge for each worker, where their number is not given."""

EDGE_SOCKETS_LEAST = 4

EDGE_SOCKETS_MORE = 4
"""Further sockets through the edge for each worker, until every worker is reached."""

MAX_HOLD = 600.0
"""Seconds of silence at most: for longer nothing has to keep a socket open."""

NO_CHECKS = Checks()
"""Of the application, nothing."""


@dataclass(frozen=True)
class Target:
    """A worker that is probed directly.

    Attributes:
        worker: the name it has to answer with, its CHANNELS_KIT_WORKER.
        url: its base, http:// or https:// (ws:// and wss:// mean the same).
    """

    worker: str
    url: str


async def prove(
    targets: Sequence[Target] = (),
    *,
    token: str,
    edges: Sequence[str] = (),
    edge_sockets: int | None = None,
    rounds: int = 5,
    timeout: float = 10.0,  # noqa: ASYNC109 - for each step; the whole has no one deadline
    origin: str | None = None,
    checks: Checks = NO_CHECKS,
    hold: float = 0.0,
    release: str = "",
    rolling: bool = False,
    touched: Collection[str] = (),
    progress: Progress | None = None,
) -> Report:
    """Prove that what any worker sends reaches every worker, and that the application answers.

    Args:
        targets: the workers, each by its own address: the part "directly".
        token: the probe's token of the workers' environment; several, with a space between
            them, are tried in turn.
        edges: the base URLs of the edges before them, each a part "through the edge". Where
            `targets` are given too, each has to be reached through every edge.
        edge_sockets: how many sockets to open through an edge; by default two for each of
            `targets`, at least four. Up to four more for each are opened while a worker
            is not reached.
        rounds: how many messages each socket sends, at least 1.
        timeout: seconds for opening the sockets, for each round, and for each page.
        origin: the Origin header; by default that of the site, or of the URL.
        checks: pages and sockets of the application, asked of every worker and every edge.
        hold: seconds that the sockets of the application have to stay open, and that those of the
            proof are silent before they send once more. 0: they only have to open.
        release: what every worker has to run: its revision, or the beginning of it before a dash.
        rolling: whether other workers run something else for now. They take part in the wires; of
            them no page and no socket is asked, and they need not outlive the silence.
        touched: the workers that the proof is about, of `targets`: it proves what they send to all
            and what all send to them, twice as many pairs as there are workers and not their
            square, and asks them alone for pages and sockets. Empty: all.
        progress: told how far the proof is.

    Returns:
        What was found: `report.ok`, `report.missing_pairs`. Sockets that fail are part of the
        report and raise nothing.

    Raises:
        UsageError: an argument makes no sense.
    """
    workers = [target.worker for target in targets]
    if not workers and not edges:
        raise UsageError("nothing to prove: name each worker with its URL, or an edge")
    if len(set(workers)) < len(workers):
        raise UsageError("a worker is named twice")
    if rounds < 1 or (edge_sockets is not None and edge_sockets < 1):
        raise UsageError("rounds and sockets through the edge must be at least 1")
    if not 0 < timeout < math.inf:
        raise UsageError("the timeout must be a number of seconds above 0")
    if not 0 <= hold <= MAX_HOLD:
        raise UsageError(f"--hold must be 0 to {MAX_HOLD:g} seconds")
    if rolling and not release:
        raise UsageError("--rolling requires --release")
    if unknown := set(touched) - set(workers):
        raise UsageError(f"--touched {min(unknown)} is none of the workers")
    if touched and edges:
        raise UsageError("--touched and --edge exclude each other: an edge chooses the worker")
    if not re.fullmatch(r"[!-~]+( [!-~]+)*", token):
        raise UsageError("the token must be visible ASCII characters, and must not be empty")
    for url in [*(target.url for target in targets), *edges]:
        check_base(url)

    turns = Turns(len(edges) + bool(targets))
    settings = Settings(
        *(token, rounds, timeout, origin, progress or Progress()),
        hold=hold,
        site=checks.site,
        outliving=release if rolling else "",
        turns=turns,
        touched=frozenset(touched),
    )
    count = edge_sockets or max(EDGE_SOCKETS_LEAST, EDGE_SOCKETS_EACH * len(targets))
    # How many sockets each worker has, but for those of the proof.
    load = dict.fromkeys(workers, 0)
    places = [Place.of_edge(label, url, checks.site) for label, url in _labels(edges).items()]
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        proving = []
        if targets:
            direct = await stack.enter_async_context(Run(DIRECTLY, settings))
            await direct.open((target.url, target.worker) for target in targets)
            load.update({socket.worker: socket.sockets for socket in direct.sockets.values()})
            asked = direct.reached_of(release) if rolling else set(workers)
            asked &= set(touched) or asked
            places += [
                Place(target.worker, target.url, checks.site)
                for target in targets
                if target.worker in asked
            ]
            proving.append(group.create_task(direct.exchange()))
        proving += [
            group.create_task(_prove_edge(stack, edge, label, count, load, settings))
            for label, edge in _labels(edges).items()
        ]
        answering = group.create_task(_ask(places, checks, settings))
    settings.progress.done()
    parts = tuple(task.result() for task in proving)
    pages, sockets = answering.result()
    return Report(
        parts,
        pages,
        sockets,
        named=(len(checks.pages), len(checks.sockets)),
        release=release,
        strangers=() if rolling or not release else tuple(_strangers(parts, release)),
    )


def _labels(edges: Sequence[str]) -> dict[str, str]:
    """Return each edge by the name of its part."""
    if len(edges) == 1:
        return {THROUGH_THE_EDGE: edges[0]}
    return {f"{THROUGH_THE_EDGE} {edge}": edge for edge in edges}


def _strangers(parts: Iterable[Part], release: str) -> Iterator[tuple[str, str]]:
    """Yield the workers that do not run a release, each once, with what they do run."""
    told = {
        endpoint.label: endpoint.revision
        for part in parts
        for endpoint in part.endpoints
        if endpoint.revision is not None
    }
    return ((name, rev) for name, rev in told.items() if not is_of_release(rev, release))


async def _ask(
    places: Sequence[Place], checks: Checks, settings: Settings
) -> tuple[tuple[PageResult, ...], tuple[SocketResult, ...]]:
    """Ask the application while the parts of the proof are silent."""
    await settings.turns.silent.wait()
    try:
        return await check_application(places, checks, settings)
    finally:
        settings.turns.answered.set()


async def _prove_edge(
    stack: AsyncExitStack,
    edge: str,
    name: str,
    count: int,
    workers: Mapping[str, int],
    settings: Settings,
) -> Part:
    # The sockets are closed with those of the other parts, when none exchanges any more.
    run = await stack.enter_async_context(Run(name, settings))
    await run.open([(edge, None)] * count)
    more = EDGE_SOCKETS_MORE * len(workers)
    # An edge that refuses sockets has failed already: no use in asking for more.
    while (unreached := set(workers) - run.reached) and more and not run.failures:
        batch = min(more, len(unreached))
        await run.open([(edge, None)] * batch)
        more -= batch
    missed = sorted(set(workers) - run.reached)
    fuller = [worker for worker in missed if _is_passed_over(worker, workers, run)]
    return await run.exchange(sorted(set(missed) - set(fuller)), fuller)


def _is_passed_over(worker: str, load: Mapping[str, int], run: Run) -> bool:
    """Whether the others together take all sockets of a run before they are as full as a worker."""
    room = sum(max(load[worker] - load.get(other, 0), 0) for other in run.reached)
    return room >= len(run.sockets)
