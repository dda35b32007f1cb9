import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from channels_kit.probe.ledger import Pair
from channels_kit.probe.progress import LineProgress, TerminalProgress, progress_on
from channels_kit.probe.report import as_json, render_text, write_json
from channels_kit.probe.result import Endpoint, Latency, Part, Report


def pair(sender: str, receiver: str, **changes: object) -> Pair:
    values: dict[str, object] = {
        "expected": 5,
        "delivered": 5,
        "duplicates": 0,
        "disordered": 0,
        "closed": True,
        "latencies": (0.001, 0.002, 0.004, 0.003, 0.005),
        **changes,
    }
    return Pair(sender, receiver, **values)  # type: ignore[arg-type]


def report(
    *workers: str,
    faults: dict[tuple[str, str], dict[str, object]] | None = None,
    failures: dict[str, str] | None = None,
    unreached: tuple[str, ...] = (),
) -> Report:
    """A part with a socket for each of `workers`, named by its place."""
    names = [str(number) for number in range(1, len(workers) + 1)]
    endpoints = tuple(
        Endpoint(name, worker, f"http://{worker}", "r1", (failures or {}).get(name))
        for name, worker in zip(names, workers, strict=True)
    )
    pairs = tuple(
        pair(sender, receiver, **(faults or {}).get((sender, receiver), {}))
        for sender in names
        for receiver in names
    )
    return Report((Part("directly", "run", 5, 5, endpoints, pairs, unreached),))


def test_the_text_of_a_proof() -> None:
    assert render_text(report("app1:8001", "app2:8002")) == (
        "directly: from the worker on the left to the worker above\n"
        "             app1:8001  app2:8002\n"
        "  app1:8001        5/5        5/5\n"
        "  app2:8002        5/5        5/5\n"
        "directly: 4 of 4 pairs, 20 of 20 deliveries,"
        " latency p50 3.0 ms, p99 5.0 ms, max 5.0 ms\n"
        "\n"
        "Proved: wires (4 of 4 pairs). Not checked: pages (none named), sockets (none named)."
    )


def test_the_text_names_everything_that_is_wrong() -> None:
    text = render_text(
        report(
            "a",
            "b",
            faults={
                ("1", "2"): {"delivered": 0, "latencies": ()},
                ("2", "1"): {"duplicates": 2, "disordered": 1},
                ("2", "2"): {"closed": False},
            },
            failures={"2": "could not open ws://b: connection refused"},
            unreached=("c",),
        )
    )
    lines = text.splitlines()
    assert lines[2].split() == ["a", "5/5", "✗", "0/5"]
    assert lines[3].split() == ["b", "✗", "5/5", "✗", "5/5"]
    assert lines[4].startswith("directly: 1 of 4 pairs, 15 of 20 deliveries")
    assert lines[5:11] == [
        "  b: could not open ws://b: connection refused",
        "  c: not reached by any of 2 sockets",
        "  a -> b: 0 of 5 delivered",
        "  b -> a: 2 delivered more than once",
        "  b -> a: 1 out of order",
        "  b -> b: the closing message was not delivered",
    ]
    assert lines[-1] == "Not proved: wires. Next: check b: curl http://b/-/ready"


def test_a_proof_of_touched_workers_says_whom_it_is_about() -> None:
    [whole] = report("a", "b", "c").parts
    about = tuple(pair for pair in whole.pairs if "2" in (pair.sender, pair.receiver))
    text = render_text(Report((replace(whole, pairs=about, touched=("b",)),)))
    lines = text.splitlines()
    assert lines[2].split() == ["a", "·", "5/5", "·"]
    assert lines[3].split() == ["b", "5/5", "5/5", "5/5"]
    assert lines[-1].startswith("Proved: wires (5 of 5 pairs from and to b).")
    many = replace(whole, touched=("a", "b", "c", "d"))
    assert "pairs from and to 4 workers)" in render_text(Report((many,)))


def test_sockets_of_one_worker_share_a_cell() -> None:
    found = report("a", "a", "b", faults={("2", "3"): {"delivered": 4}})
    text = render_text(found)
    assert text.splitlines()[2].split() == ["a", "20/20", "✗", "9/10"]
    assert "  a -> b: 9 of 10 delivered\n" in text
    [cell] = found.missing_pairs
    assert (cell.sender, cell.receiver, len(cell.pairs)) == ("a", "b", 2)


def test_many_workers_are_summed_up_by_receiver() -> None:
    workers = [f"app{number}" for number in range(1, 14)]
    lines = render_text(report(*workers, faults={("1", "13"): {"delivered": 3}})).splitlines()
    assert lines[0] == "directly: what each worker received from the 13 workers"
    assert lines[1:14] == [
        *(f"  {worker:>5}  65/65" for worker in workers[:-1]),
        "  app13  ✗ 63/65",
    ]
    assert "  app1 -> app13: 3 of 5 delivered" in lines


def test_colour_marks_only_what_is_wrong() -> None:
    text = render_text(report("a", "b", faults={("1", "2"): {"delivered": 3}}), colour=True)
    assert text.count("\x1b[31m✗ 3/5\x1b[0m") == 1
    assert text.count("\x1b") == 2
    assert "\x1b" not in render_text(report("a", "b"), colour=True)


@pytest.mark.parametrize(
    "fault", [{"delivered": 4}, {"duplicates": 1}, {"disordered": 1}, {"closed": False}]
)
def test_any_fault_of_any_pair_is_no_proof(fault: dict[str, object]) -> None:
    assert not report("a", "b", faults={("2", "1"): fault}).ok


def test_nothing_is_no_proof() -> None:
    assert report("a").ok
    assert not Report(()).ok
    assert not report().ok
    assert not report("a", faults={("1", "1"): {"expected": 0, "delivered": 0}}).ok
    assert not report("a", unreached=("b",)).ok
    assert not report("a", failures={"1": "the connection was lost"}).ok


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert Latency.of(number / 1000 for number in range(200, 0, -1)) == Latency(100, 198, 200)
    assert Latency.of([0.0012345]) == Latency(1.234, 1.234, 1.234)
    assert Latency.of([]) is None


def test_json_holds_everything(tmp_path: Path) -> None:
    found = report("a", "b", faults={("1", "2"): {"delivered": 0, "latencies": ()}})
    file = tmp_path / "report.json"
    file.write_text("an older one, longer than nothing")
    write_json(as_json(found), file)
    assert list(tmp_path.iterdir()) == [file]
    content = json.loads(file.read_text())
    assert content == as_json(found)
    assert content["ok"] is False
    [part] = content["parts"]
    assert part["rounds"] == {"planned": 5, "begun": 5}
    assert part["latency_milliseconds"] == {"p50": 3.0, "p99": 5.0, "max": 5.0}
    assert part["endpoints"][0] == {
        "name": "1",
        "worker": "a",
        "url": "http://a",
        "revision": "r1",
        "failure": None,
    }
    assert part["pairs"][1] == {
        "sender": "1",
        "receiver": "2",
        "ok": False,
        "expected": 5,
        "delivered": 0,
        "duplicates": 0,
        "out_of_order": 0,
        "closing_delivered": True,
        "latency_milliseconds": None,
    }


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.mkdir()
    with pytest.raises(IsADirectoryError):
        write_json(as_json(report("a")), file)
    assert list(tmp_path.iterdir()) == [file]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_line_on_a_terminal_and_a_line_a_phase_elsewhere() -> None:
    written = []
    for stream, kind in ((Terminal(), TerminalProgress), (io.StringIO(), LineProgress)):
        progress = progress_on(stream)
        assert type(progress) is kind
        progress.phase("opening")
        progress.step("round 1 of 2")
        progress.done()
        written.append(stream.getvalue())
    assert written == ["\r\x1b[Kopening\r\x1b[Kround 1 of 2\r\x1b[K", "opening\n"]
