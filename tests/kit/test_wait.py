import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from channels_kit.serving import wait

from .cluster import APP


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answers: list[int] = self.server.answers  # type: ignore[attr-defined]
        self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "INTERVAL", 0.01)


def wait_for(answers: list[int], seconds: str) -> int:
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.answers = answers  # type: ignore[attr-defined]
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/-/live"
            return wait.main([url, "--timeout", seconds])
        finally:
            server.shutdown()
            thread.join()


def test_it_asks_until_200(capsys: pytest.CaptureFixture[str]) -> None:
    answers = [503, 404, 200]
    assert wait_for(answers, "10") == 0
    assert answers == [200]
    assert capsys.readouterr() == ("", "")


def test_the_last_answer_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert wait_for([503], "0.1") == 1
    assert "/-/live did not answer 200 within 0.1 s" in (error := capsys.readouterr().err)
    assert "503 Service Unavailable" in error


def test_a_refused_connection_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with HTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False) as server:
        server.server_bind()  # and not listening
        assert wait.main([f"http://127.0.0.1:{server.server_port}/", "--timeout=0.1"]) == 1
    assert "Connection refused" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["https://127.0.0.1:1/"],
        ["http://127.0.0.1:x/"],
        ["http:///"],
        ["http://127.0.0.1/", "--timeout=0"],
        ["http://127.0.0.1/", "--timeout=nan"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        wait.main(arguments)
    assert caught.value.code == 2


def test_it_imports_the_standard_library_only() -> None:
    program = (
        "import sys; import channels_kit.serving.wait;"
        "print([name for name in ('django', 'channels', 'asgiref', 'websockets', 'asyncio')"
        " if name in sys.modules])"
    )
    output = subprocess.check_output(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(APP)}, text=True
    )
    assert output == "[]\n"
