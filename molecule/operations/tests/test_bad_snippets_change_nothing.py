import urllib.request

import pytest
from harness.cluster import Cluster

CONFIGURATION = "/etc/nginx/nginx.conf"


@pytest.mark.parametrize(
    ("snippet", "words"),
    [
        ("nginx_server_snippet=bogus_directive on;", 'unknown directive "bogus_directive"'),
        ("nginx_http_snippet=server {", '"server" directive is not allowed here'),
    ],
    ids=["unknown-directive", "open-brace"],
)
def test_nginx_itself_refuses_and_goes_on_as_it_was(
    cluster: Cluster, snippet: str, words: str
) -> None:
    lb1 = cluster.hosts["lb1"]
    variable, _, value = snippet.partition("=")

    def live() -> tuple[object, ...]:
        file = lb1.file(CONFIGURATION)
        workers = lb1.check_output("pgrep --full '^nginx: worker process$'")
        master = cluster.show("lb1", "nginx.service", "MainPID")["MainPID"]
        return file.sha256sum, file.mtime, master, workers

    before = live()
    run = cluster.converge("--tags=nginx", f"--extra-vars={{{variable!r}: {value!r}}}")
    assert run.rc != 0
    assert words in run.output
    assert "failed to validate" in run.output
    assert run.recap["lb1"]["failed"] == 1
    assert run.changed == {}
    assert live() == before
    with urllib.request.urlopen(f"{cluster.origin}/login/", timeout=10) as response:
        assert response.status == 200
