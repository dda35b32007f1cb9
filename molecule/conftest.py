"""The cluster of the scenario whose tests run, for the tests of every scenario."""

import os
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.cluster import Cluster
from harness.pages import ARGUMENTS, CHROMIUM, PATIENCE
from playwright.sync_api import Browser, expect, sync_playwright

CLUSTER = pytest.StashKey[Cluster]()
DEFAULT_SCENARIO = Path(__file__).parent / "default"
BEGAN = pytest.StashKey[float]()
SCENARIO = Path(os.environ.get("MOLECULE_SCENARIO_DIRECTORY", DEFAULT_SCENARIO))
FAILURES = Path(__file__).parents[1] / ".staging" / f"failed-host-tests-{SCENARIO.name}.txt"
"""The failures, for scripts/test: Molecule prints much after the words of pytest."""


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The scenario's cluster."""
    # Not pytest's own: the path of a control socket may have about 100 characters.
    with tempfile.TemporaryDirectory(prefix="molecule-") as workspace:
        found = Cluster(SCENARIO / "inventory", Path(workspace))
        request.session.stash[CLUSTER] = found
        yield found
        del request.session.stash[CLUSTER]
        for host in found.hosts:
            found.ssh(host, options=("-O", "exit"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real browser."""
    if not CHROMIUM.exists():
        pytest.fail(f"{CHROMIUM} is missing: apt-get install chromium")
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[BEGAN] = time.time()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Show what the units wrote while a test failed."""
    report = yield
    cluster = item.session.stash.get(CLUSTER, None)
    if report.failed and cluster:
        for host, journal in cluster.journals(since=item.stash[BEGAN] - 1):
            report.sections.append((f"journal of {host} since the test began", journal))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Keep the failures, each with the first lines of its reason."""
    stats = terminalreporter.stats
    failures = []
    for report in (*stats.get("failed", ()), *stats.get("error", ())):
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = crash.message if crash else str(report.longrepr)
        lines = [line[:300] for line in reason.splitlines()[:8]]
        failures.append("\n     ".join([report.nodeid, *lines]) + "\n")
    FAILURES.parent.mkdir(exist_ok=True)
    FAILURES.write_text("".join(failures))
