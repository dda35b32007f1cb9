import uuid
from contextlib import ExitStack

from harness.ansible import ROOT
from harness.cluster import Cluster
from harness.pages import enter, say, worker_of
from harness.wait import eventually
from playwright.sync_api import Browser, Page, expect

SCREENSHOTS = ROOT / ".staging" / "molecule-default"
# Reloads until two people are on two workers; least_conn needs hardly any.
RELOADS = 10


def enter_on_two_workers(
    browser: Browser, cluster: Cluster, problems: list[str], closing: ExitStack
) -> tuple[Page, Page]:
    """Let alice and bob in, and reload bob's page until another worker serves it."""
    alice, bob = (enter(browser, cluster, user, problems) for user in ("alice", "bob"))
    for page in (alice, bob):
        closing.callback(page.context.close)
    for _ in range(RELOADS):
        if worker_of(alice) != worker_of(bob):
            return alice, bob
        bob.reload()
    raise AssertionError(f"after {RELOADS} reloads both are on {worker_of(bob)}")


def test_alice_and_bob_talk_through_different_workers(cluster: Cluster, browser: Browser) -> None:
    problems: list[str] = []
    with ExitStack() as closing:
        alice, bob = enter_on_two_workers(browser, cluster, problems, closing)
        workers = {"alice": worker_of(alice), "bob": worker_of(bob)}
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


def texts_of(page: Page, marker: str) -> list[str]:
    """Return the messages that the page shows, in its order, of those with a marker."""
    return page.locator("#messages > li .text", has_text=marker).all_inner_texts()


def test_a_killed_worker_costs_nobody_a_message(cluster: Cluster, browser: Browser) -> None:
    marker = uuid.uuid4().hex[:8]
    said = [f"{marker} {number}" for number in range(12)]
    with ExitStack() as closing:
        alice, bob = enter_on_two_workers(browser, cluster, [], closing)
        served_by = {worker.name: worker for worker in cluster.workers}
        killed = served_by[worker_of(bob)]
        for number, text in enumerate(said):
            if number == 4:
                process = cluster.process_of(killed)
                cluster.hosts[killed.host].check_output("kill -KILL %s", process)
            # Bob types on whether he is connected or not.
            say(alice if number % 2 else bob, text)
        for page in (alice, bob):
            eventually(lambda: texts_of(page, marker), lambda shown: len(shown) >= 12, "all texts")  # noqa: B023
            assert sorted(texts_of(page, marker)) == sorted(said)
        assert texts_of(alice, marker) == texts_of(bob, marker), "in another order"
        # Each one's own words stay in the order they were said in.
        for mine in (said[::2], said[1::2]):
            assert [text for text in texts_of(alice, marker) if text in mine] == mine
        worker_of(bob)
    cluster.wait_until_ready()
