"""The edge's configuration has none of the mistakes that gixy-ng knows."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from .rendered import Cluster, render
from .test_templates import INVENTORIES, every_edge

GIXY = Path(sys.executable).with_name("gixy")

# Findings that do not hold here.
REASONED = {
    # "Twice the connections, since a proxied one takes two files": of nginx's connections each side
    # of a proxied one counts by itself, so that a connection takes one file.
    "worker_rlimit_nofile_vs_connections",
    # One look for a file that is not there costs little where a place among the handshakes is asked
    # for; `return` would come before the limit, so that nothing would be limited.
    "try_files_is_evil_too",
}


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Cluster]:
    return render(tmp_path_factory.mktemp("rendered"), INVENTORIES)


def findings(content: str, directory: Path) -> list[dict[str, Any]]:
    configuration = directory / "nginx.conf"
    configuration.write_text(content)
    skips = f"--skips={','.join(sorted(REASONED))}"
    result = subprocess.run(
        [GIXY, "--format=json", skips, configuration],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ERROR" not in result.stderr, result.stderr
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


@every_edge
def test_no_mistake_is_found(
    clusters: Mapping[str, Cluster], name: str, host: str, tmp_path: Path
) -> None:
    assert findings(clusters[name][host]["/etc/nginx/nginx.conf"].content, tmp_path) == []


def test_a_mistake_would_be_found(clusters: Mapping[str, Cluster], tmp_path: Path) -> None:
    content = clusters["minimal"]["one"]["/etc/nginx/nginx.conf"].content
    wrong = content.replace("Host $host_and_port;", "Host $http_host;")
    assert [found["plugin"] for found in findings(wrong, tmp_path)] == ["host_spoofing"]


def test_no_mistake_is_found_with_tls(tmp_path: Path) -> None:
    tls = {"cluster_tls": "acme", "nginx_hsts_max_age": 3600}
    inventory = INVENTORIES["six"]
    common = {**inventory["all"]["vars"], **tls}
    inventory = {**inventory, "all": {**inventory["all"], "vars": common}}
    (cluster,) = render(tmp_path / "rendered", {"tls": inventory}).values()
    for host in ("lb1", "lb2"):
        content = cluster[host]["/etc/nginx/nginx.conf"].content
        assert "ssl_certificate " in content
        assert findings(content, tmp_path) == []
