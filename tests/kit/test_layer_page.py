"""What docs/layer.md shows is true: its example runs as it stands, and its lists are complete."""

import asyncio
import inspect
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from channels_kit.layer import RedisFanoutLayer
from channels_kit.serving.metrics import _LayerCollector

from .cluster import Process, Redis
from .layers import PATIENCE, free_port

PAGE = (Path(__file__).parents[2] / "docs/layer.md").read_text()


def example() -> tuple[str, str]:
    """Return the program and the command that runs it."""
    found = re.search(
        r"Save this as `news\.py`:\n\n```python\n(.+?)```.+?```sh\n(.+?)\n```", PAGE, re.DOTALL
    )
    assert found, "the page has no example"
    return found[1], found[2]


async def test_the_example_runs_as_it_stands(tmp_path: Path, redis: Redis) -> None:
    program, command = example()
    (tmp_path / "news.py").write_text(program)
    setting, *words = shlex.split(command)
    name, _, value = setting.partition("=")
    port = str(free_port())
    assert words.count("8000") == 1
    words = [{"8000": port, "python": sys.executable}.get(word, word) for word in words]
    environment = {key: text for key, text in os.environ.items() if not key.startswith("DJANGO_")}
    environment |= {name: value, "REDIS_URL": redis.url, "PYTHONSAFEPATH": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
    with Process(words, environment) as process:
        url = f"ws://127.0.0.1:{port}/"
        async with asyncio.timeout(PATIENCE):
            while True:
                assert not process.ended, "".join(process.output)
                try:
                    one = await connect(url, proxy=None)
                    break
                except (OSError, WebSocketException):
                    await asyncio.sleep(0.05)
            two = await connect(url, proxy=None)
            await one.send("news of the day")
            await two.send(b"and a picture")
            for client in (one, two):
                got = {await client.recv(), await client.recv()}
                assert got == {"news of the day", b"and a picture"}
                await client.close()


def rows(heading: str) -> set[str]:
    """Return the names in the first column of a section's tables."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_option_is_on_the_page() -> None:
    assert rows("Options") == set(inspect.signature(RedisFanoutLayer).parameters)


@pytest.mark.parametrize("name", [*_LayerCollector.COUNTERS, "dropped"])
def test_every_counter_is_on_the_page(name: str) -> None:
    assert f"channels_kit_layer_{name}_total" in rows("Metrics")
