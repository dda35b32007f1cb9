"""The page of scripts/verify_report.py: what is on it, for whom, and that nothing breaks out."""

from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

import verify_report

from .verify_reports import check, matrix, names, report, write

CHROMIUM = "/usr/bin/chromium"
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}</title></style>"
VOID = {"meta", "br"}


class Page(HTMLParser):
    """A page: its elements, the text in each, and whether all of them end."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", " ".join(data.split())))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def styled(self, tag: str, style: str) -> list[dict[str, str]]:
        return [each for each in self.all(tag) if style in each.get("class", "").split()]

    def text(self, *tags: str) -> str:
        return " ".join(data for tag, data in self.texts if not tags or tag in tags)


def page(directory: Path, **values: Any) -> Page:
    file = write(directory, **values)
    verify_report.main([str(file)])
    source = file.with_suffix(".html").read_text()
    shown = Page(source)
    assert shown.open == []
    return shown


def test_the_page_begins_with_the_verdict_and_what_was_looked_at(tmp_path: Path) -> None:
    shown = page(tmp_path)
    assert shown.text("title") == "Verified: production, 2026-11-28 21:15 UTC"
    assert shown.text("h1") == "Verified: 18 checks and pairs are ok."
    assert shown.text("dd", "time") == "production 2026-11-28 21:15:00 UTC 12.3 s 0.5.0"
    assert "1 comparison, 16 pairs of 4 workers, 1 edge, 1 behaviour check" in shown.text("p")
    assert "not-ok" not in {each.get("id") for each in shown.all("section")}


def test_what_is_not_ok_comes_first_with_both_values(tmp_path: Path) -> None:
    failed = check(
        "app7", effective="1024", status="failed", message="A drop-in.", advice="Run make converge."
    )
    shown = page(tmp_path, checks=[check(), failed, check(status="unreadable", effective="")])
    assert [each["id"] for each in shown.all("section")][:2] == ["not-ok", "matrix"]
    text = shown.text()
    first = text[text.index("Where, and where read") : text.index("Matrix: from each")]
    for words in ("open files 65536 1024", "app7 channels-web@8001.service /proc/812/limits"):
        assert words in first
    assert first.index("A drop-in. Run make converge.") < first.index("unreadable")


def test_nothing_in_a_report_is_markup(tmp_path: Path) -> None:
    evil = [
        check(EVIL, EVIL, subject=EVIL, expected=EVIL, effective=EVIL, source=EVIL, message=EVIL)
        | {"status": status, "advice": EVIL, "used": 1, "limit": 2, "unit": EVIL}
        for status in ("ok", "failed", "skipped")
    ]
    workers = [EVIL, f"{EVIL}:8001"]
    values = {
        "kit": EVIL,
        "environment": EVIL,
        "checks": evil,
        "matrix": matrix(workers, {(workers[0], workers[1]): EVIL}) | {"edges": [EVIL]},
        "behaviour": [{"name": EVIL, "subject": EVIL, "status": "ok", "message": EVIL}],
    }
    (tmp_path / "20261127T211500Z.json").write_text(f'{{"format": "{EVIL[:8]}"}}')
    shown = page(tmp_path, **values)
    assert not shown.all("script")
    assert not shown.all("img")
    # Each value stays in its element or attribute.
    assert not any(name.startswith("on") for _, each in shown.elements for name in each)
    assert shown.text("h1") == "NOT verified: 2 of 7 checks and pairs failed."
    assert EVIL in shown.text("dd")
    assert "49" not in shown.text("dd")
    many = [*names(13), f"{EVIL}:8001"]
    shown = page(tmp_path, **values | {"matrix": matrix(many, {(many[0], many[-1]): EVIL})})
    assert not shown.all("script")
    assert any(EVIL in text for tag, text in shown.texts if tag == "title")


def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    write(tmp_path, "20261127T211500Z.json")
    (tmp_path / "20261127T211500Z.html").write_text("its page")
    shown = page(tmp_path)
    assert {tag for tag, _ in shown.elements}.isdisjoint({"script", "link", "img", "iframe"})
    targets = [each["href"] for each in shown.all("a")]
    assert [each for each in targets if not each.startswith("#")] == ["20261127T211500Z.html"]
    policies = {each.get("http-equiv"): each.get("content", "") for each in shown.all("meta")}
    policy = policies["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline';")


def test_the_small_matrix_has_numbers_and_names_what_failed(tmp_path: Path) -> None:
    workers = names(2)
    cells = matrix(workers, {(workers[0], workers[3]): "no message within 5 s"})
    cells["cells"][1]["seconds"] = 0.7
    del cells["cells"][2]
    shown = page(tmp_path, matrix=cells)
    assert len(shown.styled("td", "l0")) == 13
    assert [each["title"] for each in shown.styled("td", "l5")] == [
        "app1:8001 to app1:8002: 700 ms"
    ]
    assert [each["title"] for each in shown.styled("td", "none")] == [
        "app1:8001 to app2:8001: not measured"
    ]
    assert [each["title"] for each in shown.styled("td", "bad")] == [
        "app1:8001 to app2:8002: failed, no message within 5 s"
    ]
    # Not by the colour alone.
    assert "✕" in shown.text("td")
    assert "1 pair not measured" in shown.text("b")


def test_a_hundred_workers_are_a_picture(tmp_path: Path) -> None:
    workers = names(50)
    failed = {(workers[0], each): "no message" for each in workers[2:62]}
    shown = page(tmp_path, matrix=matrix(workers, failed))
    assert not shown.styled("table", "matrix")
    assert len(shown.styled("svg", "map")) == 1
    # One shape for all pairs of a level, and one each for those that failed.
    assert len(shown.styled("path", "l0")) == 1
    assert len(shown.styled("path", "bad")) == 1
    assert len(shown.styled("rect", "target")) == 60
    assert "app1:8001 to app2:8001: failed, no message" in shown.text("title")
    # Hosts, not workers, at both sides.
    assert [text for tag, text in shown.texts if tag == "text"].count("app50") == 2
    assert "and 20 pairs more" in shown.text("summary")
    assert len((tmp_path / "20261128T211500Z.html").read_bytes()) < 200_000


def test_hosts_lose_the_domain_they_share(tmp_path: Path) -> None:
    workers = [f"app{n}.eu.example.org:8001" for n in range(30)]
    shown = page(tmp_path, matrix=matrix([*workers, "a-name-of-thirty-characters-01:8001"]))
    assert "app7.eu.example.org" in shown.text("title")
    labels = [text for tag, text in shown.texts if tag == "text"]
    assert "a-name-…cters-01" in "".join(labels)
    shown = page(tmp_path, matrix=matrix(workers))
    assert "app7" in [text for tag, text in shown.texts if tag == "text"]


def test_an_empty_report_says_so_in_every_section(tmp_path: Path) -> None:
    shown = page(tmp_path, checks=[], matrix={}, behaviour=[])
    assert shown.text("h1") == "Incomplete: nothing was checked."
    for words in (
        "The matrix was not measured.",
        "No behaviour was checked.",
        "No use of a limit was measured.",
        "Nothing was compared.",
    ):
        assert words in shown.text("p")


def test_many_behaviour_checks_are_folded_and_none_that_failed(tmp_path: Path) -> None:
    done = [
        {"name": f"page {n}", "subject": "app1:8001", "status": "ok", "message": ""}
        for n in range(40)
    ]
    done.append({"name": "anonymous refused", "status": "failed", "message": "It was accepted."})
    text = page(tmp_path, behaviour=done).text()
    rows = text[text.index("What a client sees: 1 failed, 40 ok.") :]
    assert rows.index("anonymous refused") < rows.index("page 0") < rows.index("21 more")
    assert rows.index("21 more") < rows.index("page 39")


def test_the_tightest_limit_comes_first(tmp_path: Path) -> None:
    gib = 2**30
    checks = [
        check("app1", "free", used=5, limit=65536),
        check("app2", "close", used=0.8 * gib, limit=gib, unit="bytes"),
        check("app3", "over", used=20, limit=10),
        check("app4", "none allowed", used=0, limit=0),
        check("app5", "no figures"),
    ]
    shown = page(tmp_path, checks=checks)
    text = shown.text()
    rows = text[text.index("Used of limit") : text.index("All comparisons, by host")]
    assert [rows.index(each) for each in ("app3", "app2", "app1", "app4")] == sorted(
        rows.index(each) for each in ("app1", "app2", "app3", "app4")
    )
    assert "app5" not in rows
    assert "200% nearly full 20 of 10" in rows
    assert "80% close 819.2 MiB of 1.0 GiB" in rows
    assert "< 1% 5 of 65,536" in rows
    # A bar does not leave its track.
    assert max(float(each["width"]) for each in shown.all("rect")) == 100


def test_the_history_shows_each_run_and_survives_a_damaged_file(tmp_path: Path) -> None:
    write(tmp_path, "20261125T040000Z.json", began="2026-11-25T04:00:00Z", matrix={})
    write(tmp_path, "20261126T040000Z.json", checks=[check(status="failed")])
    (tmp_path / "20261127T040000Z.json").write_text('{"form')
    shown = page(tmp_path)
    text = shown.text()
    rows = text[text.index("The last runs, the newest first.") :]
    assert rows.index("this run") < rows.index("damaged") < rows.index("failed 2026")
    assert "20261127T040000Z.json contains no JSON" in rows
    # Each run has a shape of its own.
    assert len(shown.styled("path", "mark")) == 1
    assert len(shown.styled("circle", "mark")) == 2
    assert len(shown.styled("rect", "failures")) == 1
    # The first run measured no message: the line begins at the second.
    assert shown.styled("path", "p99")[0]["d"].count("M") == 1


def test_one_run_has_no_chart(tmp_path: Path) -> None:
    assert not page(tmp_path).styled("svg", "chart")


def test_the_page_is_readable_without_seeing_it(tmp_path: Path) -> None:
    write(tmp_path, "20261127T040000Z.json")
    failed = matrix(names(2), {("app1:8001", "app2:8001"): "none"})
    shown = page(tmp_path, checks=[check(used=1, limit=2, status="failed")], matrix=failed)
    tables = len(shown.all("table"))
    assert tables == len(shown.all("caption")) >= 7
    assert all("scope" in each for each in shown.all("th"))
    levels = [int(tag[1]) for tag, _ in shown.elements if tag in {"h1", "h2", "h3"}]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))
    for picture in shown.all("svg"):
        assert picture.get("aria-hidden") or picture["role"] == "img"
    ids = [each["id"] for _, each in shown.elements if "id" in each]
    assert len(ids) == len(set(ids))
    named = {each["href"][1:] for each in shown.all("a") if each["href"].startswith("#")}
    named |= {each["aria-labelledby"] for _, each in shown.elements if "aria-labelledby" in each}
    assert named <= set(ids)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.mark.parametrize("hosts", [2, 10, 50])
def test_a_browser_shows_it_on_a_phone_and_on_a_desk(
    tmp_path: Path, browser: Browser, hosts: int
) -> None:
    workers = names(hosts)
    values = report(
        checks=[check(f"app{n}", EVIL, used=n, limit=100, status="failed") for n in range(40)],
        matrix=matrix(workers, {(workers[0], workers[-1]): EVIL}),
    )
    page(tmp_path, **values)
    for scheme in ("light", "dark"):
        for width in (360, 1280):
            context = browser.new_context(
                viewport={"width": width, "height": 800}, color_scheme=scheme
            )
            shown = context.new_page()
            problems: list[str] = []
            shown.on("console", lambda said: problems.append(said.text))  # noqa: B023
            shown.on("dialog", lambda said: problems.append(said.message))  # noqa: B023
            shown.on("request", lambda asked: problems.append(asked.url))  # noqa: B023
            address = (tmp_path / "20261128T211500Z.html").as_uri()
            shown.goto(address)
            for folded in shown.locator("details").all():
                folded.evaluate("each => each.open = true")
            # What is wide scrolls by itself.
            assert shown.evaluate("document.documentElement.scrollWidth") <= width
            assert problems == [address]
            context.close()
