"""What systemd is told of every service of the cluster: when to start it again, and what it may do.

Units of packages are read as the packages of this machine have them, with the settings that the
roles add.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from .formats import parse_unit
from .rendered import Written, render
from .test_templates import INVENTORIES

SYSTEM = Path("/etc/systemd/system")
PACKAGES = (Path("/lib/systemd/system"), Path("/usr/lib/systemd/system"))
ALWAYS = "always"


@dataclass(frozen=True)
class Supervised:
    """A service of the cluster.

    Attributes:
        name: its unit.
        host: one on which it runs.
        restart: when it is started again.
        exposure: what `systemd-analyze security` may give at most.
        base: the unit of the package that it is an instance of.
        needs_address: whether it listens on an address that may come late.
    """

    name: str
    host: str
    restart: str
    exposure: float
    base: str = ""
    needs_address: bool = True


SERVICES = [
    Supervised("channels-web@8001.service", "app1", ALWAYS, 3),
    Supervised("channels-process-thumbnails@1.service", "app1", ALWAYS, 3),
    Supervised("channels-process-celery.service", "app1", ALWAYS, 3),
    Supervised("channels-firewall.service", "app1", "on-failure", 3, needs_address=False),
    Supervised("nginx.service", "lb1", ALWAYS, 5, "nginx.service"),
    # It is stopped past systemd by the package's own programs.
    Supervised("postgresql@15-main.service", "data1", "on-failure", 5, "postgresql@.service"),
    Supervised("redis-server@broker.service", "data1", ALWAYS, 3, "redis-server@.service"),
    Supervised("redis-server@layer.service", "data1", ALWAYS, 3, "redis-server@.service"),
    Supervised("chrony.service", "data1", ALWAYS, 5, "chrony.service", needs_address=False),
]
every_service = pytest.mark.parametrize("service", SERVICES, ids=[one.name for one in SERVICES])


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Mapping[str, Written]]:
    directory = tmp_path_factory.mktemp("rendered")
    return render(directory, {"staging": INVENTORIES["staging"]})["staging"]


def of_package(name: str) -> Path | None:
    return next((path / name for path in PACKAGES if (path / name).exists()), None)


def template_of(name: str) -> str:
    """`a@.service` of `a@b.service`."""
    return re.sub("@.*(?=[.])", "@", name)


def drop_ins(service: Supervised, files: Mapping[str, Written]) -> dict[str, str]:
    """The settings that the roles add to a unit, by file name, in systemd's order."""
    names = {service.name, template_of(service.name)}
    directories = {SYSTEM / f"{name}.d" for name in names}
    found = {
        Path(path).name: file.content
        for path, file in files.items()
        if Path(path).parent in directories
    }
    return dict(sorted(found.items()))


def settings(service: Supervised, files: Mapping[str, Written]) -> dict[str, dict[str, list[str]]]:
    """What the roles tell systemd of a unit."""
    own = files.get(str(SYSTEM / template_of(service.name)))
    text = own.content if own else ""
    return parse_unit("\n".join([text, *drop_ins(service, files).values()]))


@every_service
def test_a_service_comes_back_however_often_it_ends(
    hosts: Mapping[str, Mapping[str, Written]], service: Supervised
) -> None:
    told = settings(service, hosts[service.host])
    assert told["Service"]["Restart"] == [service.restart]
    assert told["Unit"]["StartLimitIntervalSec"] == ["0"], "given up after five starts"
    (seconds,) = told["Service"]["RestartSec"]
    assert 1 <= int(seconds) <= 2, "within seconds, and not without a pause"
    if service.needs_address:
        assert "network-online.target" in told["Unit"]["Wants"][0].split()
        assert "network-online.target" in told["Unit"]["After"][0].split()


@every_service
def test_a_part_that_runs_out_of_memory_does_not_end_the_whole(
    hosts: Mapping[str, Mapping[str, Written]], service: Supervised
) -> None:
    if service.needs_address:
        told = settings(service, hosts[service.host])["Service"]
        assert told["OOMPolicy"] == ["continue"]


def test_postgres_tells_a_server_that_was_stopped_from_one_that_was_killed(
    hosts: Mapping[str, Mapping[str, Written]],
) -> None:
    """The package's ExecStart= makes every end a success, and a stop of what is down a failure."""
    service = next(one for one in SERVICES if one.base == "postgresql@.service")
    told = settings(service, hosts[service.host])["Service"]
    reset, stop = told["ExecStop"]
    assert (reset, stop[0]) == ("", "-")
    # What systemd knows the server by, and removes when the unit has ended.
    assert told["ExecStopPost"] == ["/usr/bin/test ! -e /run/postgresql/%i.pid"]
    if base := of_package(service.base):
        package = parse_unit(base.read_text())["Service"]
        assert package["PIDFile"] == ["/run/postgresql/%i.pid"]
        assert stop == "-" + package["ExecStop"][0]
        assert package["ExecStart"][0].startswith("-")


def test_a_change_of_supervision_restarts_no_instance_of_redis(
    hosts: Mapping[str, Mapping[str, Written]],
) -> None:
    """A run restarts an instance that is older than its limit of open files, which stands apart."""
    directory = SYSTEM / "redis-server@.service.d"
    files = hosts["data1"]
    limit = parse_unit(files[str(directory / "channels-kit.conf")].content)
    assert limit == {"Service": {"LimitNOFILE": ["20000"]}}
    supervision = parse_unit(files[str(directory / "channels-kit-supervision.conf")].content)
    applied_by_a_reload = {"Restart", "RestartSec", "OOMPolicy", "TimeoutStartSec"}
    assert supervision["Service"].keys() == applied_by_a_reload


def test_the_firewall_comes_back_after_a_flush(
    hosts: Mapping[str, Mapping[str, Written]],
) -> None:
    """A firewall of the host's own begins with a flush of all tables, this one among them."""
    unit = parse_unit(hosts["app1"][str(SYSTEM / "channels-firewall.service")].content)["Unit"]
    for key in ("After", "PartOf", "ReloadPropagatedFrom"):
        assert unit[key] == ["nftables.service"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@every_service
def test_a_service_may_do_little(
    hosts: Mapping[str, Mapping[str, Written]], service: Supervised, tmp_path: Path
) -> None:
    files = hosts[service.host]
    if service.base:
        base = of_package(service.base)
        if base is None:
            pytest.skip(f"{service.base} is not installed: scripts/bootstrap tests")
        text = base.read_text()
    else:
        text = files[str(SYSTEM / template_of(service.name))].content
    unit = tmp_path / service.name
    unit.write_text(text)
    unit.with_name(f"{unit.name}.d").mkdir()
    for name, content in drop_ins(service, files).items():
        (unit.with_name(f"{unit.name}.d") / name).write_text(content)
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    # One that systemd does not know is left out with a warning, and protects nothing.
    assert not re.search(r"Unknown key|Failed to parse|ignoring", result.stderr), result.stderr
    level = re.search(r"Overall exposure level for .*: ([0-9.]+)", result.stdout)
    assert level, result.stdout + result.stderr
    assert float(level[1]) <= service.exposure, result.stdout
