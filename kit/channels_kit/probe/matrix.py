"""The proof: which sockets to open for its parts, and how many."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from channels_kit.probe.address import UsageError, check_base
from channels_kit.probe.progress import Progress
from channels_kit.probe.result import Part, Report
from channels_kit.probe.run import Run, Settings

DIRECTLY = "directly"
THROUGH_THE_EDGE = "through the edge"

EDGE_SOCKETS_EACH = 2
"""Sockets through the edge for each worker, where their number is not given."""

EDGE_SOCKETS_LEAST = 4

EDGE_SOCKETS_MORE = 4
"""Further sockets through the edge for each worker, until every worker is reached."""


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
    edge: str | None = None,
    edge_sockets: int | None = None,
    rounds: int = 5,
    timeout: float = 10.0,  # noqa: ASYNC109 - for each step; the whole has no one deadline
    origin: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Prove that what any worker sends reaches every worker, once and in order.

    Args:
        targets: the workers, each by its own address: the part "directly".
        token: the probe's token of the workers' environment; several, with a space between
            them, are tried in turn.
        edge: the base URL of the edge before them: the part "through the edge". Where
            `targets` are given too, each has to be reached through it.
        edge_sockets: how many sockets to open through the edge; by default two for each of
            `targets`, at least four. Up to four more for each are opened while a worker
            is not reached.
        rounds: how many messages each socket sends, at least 1.
        timeout: seconds for opening the sockets, and for each round.
        origin: the Origin header; by default that of the URL.
        progress: told how far the proof is.

    Returns:
        What was found: `report.ok`, `report.missing_pairs`. Sockets that fail are part of the
        report and raise nothing.

    Raises:
        UsageError: an argument makes no sense.
    """
    workers = [target.worker for target in targets]
    if not workers and edge is None:
        raise UsageError("nothing to prove: name each worker with its URL, or an edge")
    if len(set(workers)) < len(workers):
        raise UsageError("a worker is named twice")
    if rounds < 1 or (edge_sockets is not None and edge_sockets < 1):
        raise UsageError("rounds and sockets through the edge must be at least 1")
    if not 0 < timeout < math.inf:
        raise UsageError("the timeout must be a number of seconds above 0")
    if not re.fullmatch(r"[!-~]+( [!-~]+)*", token):
        raise UsageError("the token must be visible ASCII characters, and must not be empty")
    for url in [*(target.url for target in targets), *([edge] if edge is not None else [])]:
        check_base(url)

    settings = Settings(token, rounds, timeout, origin, progress or Progress())
    parts = []
    # How many sockets each worker has, but for those of the proof.
    load = dict.fromkeys(workers, 0)
    if targets:
        parts.append(await _prove_directly(targets, settings, load))
    if edge is not None:
        count = edge_sockets or max(EDGE_SOCKETS_LEAST, EDGE_SOCKETS_EACH * len(targets))
        parts.append(await _prove_edge(edge, count, load, settings))
    settings.progress.done()
    return Report(tuple(parts))


async def _prove_directly(
    targets: Sequence[Target], settings: Settings, load: dict[str, int]
) -> Part:
    async with Run(DIRECTLY, settings) as run:
        await run.open((target.url, target.worker) for target in targets)
        load.update({socket.worker: socket.sockets for socket in run.sockets.values()})
        return await run.exchange()


async def _prove_edge(
    edge: str, count: int, workers: Mapping[str, int], settings: Settings
) -> Part:
    async with Run(THROUGH_THE_EDGE, settings) as run:
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
