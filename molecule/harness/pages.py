"""The application's pages in a real browser."""

from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from harness.cluster import Cluster

CHROMIUM = Path("/usr/bin/chromium")
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
# Seconds; Playwright counts milliseconds.
PATIENCE = 30


def enter(browser: Browser, cluster: Cluster, user: str, problems: list[str]) -> Page:
    """Log a user in as a person does, and go to the lobby; what the page finds wrong is noted."""
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
    """Send a message as a person does."""
    page.get_by_placeholder("Message to Lobby").fill(text)
    page.keyboard.press("Enter")
