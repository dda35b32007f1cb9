import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness.ansible import ROOT
from harness.cluster import Cluster
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCREENSHOTS = ROOT / ".staging" / "molecule-default"
# Seconds; Playwright counts milliseconds.
PATIENCE = 15
# Reloads until two people are on two workers; least_conn needs hardly any.
RELOADS = 10


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.fail(f"{CHROMIUM} is missing: apt-get install chromium")
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


def enter(browser: Browser, cluster: Cluster, user: str, problems: list[str]) -> Page:
    """Log a user in as a person does, and go to the lobby."""
    page = browser.new_context(viewport={"width": 900, "height": 700}).new_page()
    page.set_default_timeout(PATIENCE * 1000)
    page.on("pageerror", lambda error: problems.append(f"{user}: {error}"))
    page.on(
        "console",
        lambda said: problems.append(f"{user}: {said.text}") if said.type == "error" else None,
    )
    page.goto(f"{cluster.origin}/login/")
    page.get_by_label("Name").fill(user)
    page.get_by_label("Password").fill(cluster.users[user])
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("link", name="Lobby").click()
    expect(page.locator("#state")).to_have_text("Connected")
    return page


def worker_of(page: Page) -> str:
    """Return the worker that the page says it is served by."""
    expect(page.locator("#state")).to_have_text("Connected")
    return page.locator("#detail .worker").inner_text()


def say(page: Page, text: str) -> None:
    page.get_by_placeholder("Message to Lobby").fill(text)
    page.keyboard.press("Enter")


def test_alice_and_bob_talk_through_different_workers(cluster: Cluster, browser: Browser) -> None:
    problems: list[str] = []
    with ExitStack() as closing:
        alice, bob = (enter(browser, cluster, user, problems) for user in ("alice", "bob"))
        for page in (alice, bob):
            closing.callback(page.context.close)
        for _ in range(RELOADS):
            if worker_of(alice) != worker_of(bob):
                break
            bob.reload()
        workers = {"alice": worker_of(alice), "bob": worker_of(bob)}
        assert len(set(workers.values())) == 2, f"after {RELOADS} reloads: {workers}"
        assert set(workers.values()) <= {worker.name for worker in cluster.workers}

        said = {user: f"{user} says {uuid.uuid4().hex[:8]}" for user in workers}
        say(alice, said["alice"])
        say(bob, said["bob"])
        for page in (alice, bob):
            for user, text in said.items():
                message = page.locator("#messages > li", has_text=text)
                expect(message).to_have_count(1)
                expect(message.locator(".user")).to_have_text(user)
                expect(message.locator(".worker")).to_have_text(workers[user])
        # Nobody was moved to another worker meanwhile.
        assert workers == {"alice": worker_of(alice), "bob": worker_of(bob)}
        assert problems == []
        alice.screenshot(path=SCREENSHOTS / "alice.png")
        bob.screenshot(path=SCREENSHOTS / "bob.png")
