"""Every service of the cluster is back within seconds, without an operator.

Killed with -9, with or without its children, more often than systemd allows by its own defaults;
and started before the address that it listens on is there.
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from harness.cluster import Cluster
from harness.wait import eventually

# Within how many seconds a service serves again, on a machine that is shared.
SECONDS = 30

# systemd's own default is five starts in ten seconds.
OFTEN = 6


@dataclass(frozen=True)
class Service:
    """A service of the cluster.

    Attributes:
        host: where it runs.
        unit: its unit, or a pattern that fits this one alone.
        port: the name of the port at which app hosts reach it; none where nobody does.
    """

    host: str
    unit: str
    port: str = ""


EDGE = Service("lb1", "nginx.service")
LAYER = Service("data1", "redis-server@layer.service", "redis_layer_port")
BROKER = Service("data1", "redis-server@broker.service", "redis_broker_port")
DATABASE = Service("data1", "postgresql@*-main.service", "postgres_port")
BACKGROUND = Service("app1", "channels-process-thumbnails.service")
CELERY = Service("app1", "channels-process-celery.service")
WITH_AN_ADDRESS = [LAYER, BROKER, DATABASE]

# Killed at once: of these, none ends or waits because another one is away.
TOGETHER = [[EDGE, DATABASE, LAYER, CELERY], [BROKER, BACKGROUND]]

together = pytest.mark.parametrize(
    "services", TOGETHER, ids=lambda services: " ".join(service.unit for service in services)
)

# Prints the status of a page; the name that is asked for is none of the cluster's.
ASK = """\
import sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Host": "load-balancer.invalid"})
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    print(opener.open(request, timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError as error:
    print(type(error).__name__)
"""

# Takes the address of a host away, starts services, and gives the address back when each has
# failed more often than systemd allows, or when a minute is over. The host is reached at this
# address: it does so by itself, and writes down what it saw.
LATE = """\
import json, subprocess, sys, time
address, result, *units = sys.argv[1:]
def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
def states():
    return {unit: dict(line.split("=", 1) for line in run(
        "systemctl", "show", unit, "--property=ActiveState,SubState,NRestarts").splitlines())
        for unit in units}
_, interface, _, full, *_ = next(
    line.split() for line in run("ip", "-oneline", "address").splitlines()
    if line.split()[3].split("/")[0] == address)
routes = run("ip", "route", "show", "default").splitlines()
run("systemctl", "stop", *units)
run("ip", "address", "del", full, "dev", interface)
try:
    # A start by hand counts from zero.
    run("systemctl", "start", "--no-block", *units)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        seen = states()
        if all(int(state["NRestarts"]) >= OFTEN or state["ActiveState"] == "failed"
               for state in seen.values()):
            break
        time.sleep(0.2)
finally:
    run("ip", "address", "add", full, "dev", interface)
    for route in routes:
        run("ip", "route", "replace", *route.split())
with open(result, "w") as file:
    json.dump(seen, file)
""".replace("OFTEN", str(OFTEN))


def unit_of(cluster: Cluster, service: Service) -> str:
    """Return the name of the unit."""
    listed: str = cluster.hosts[service.host].check_output(
        "systemctl list-units --all --plain --no-legend %s", service.unit
    )
    (line,) = listed.splitlines()
    return line.split()[0]


def state(cluster: Cluster, service: Service, unit: str) -> dict[str, str]:
    return cluster.show(service.host, unit, "MainPID", "NRestarts", "ActiveState", "SubState")


def edge_says(cluster: Cluster) -> str:
    """Return what the edge tells a load balancer that knows its address alone."""
    return cluster.python("app1", ASK, cluster.fact("edge_urls")[0] + "/-/edge", user="nobody")


def serves(cluster: Cluster, service: Service) -> bool:
    """Return whether those who use a service reach it."""
    if service is EDGE:
        return edge_says(cluster) == "200"
    if not service.port:
        return True
    address, port = cluster.fact("address", service.host), cluster.fact(service.port)
    return cluster.connect_from("app1", address, port) == "open"


def wait_until_back(cluster: Cluster, service: Service, unit: str, former: str) -> None:
    """Wait until another process runs, and serves."""
    eventually(
        lambda: state(cluster, service, unit),
        lambda of: of["SubState"] == "running" and of["MainPID"] not in ("0", former),
        f"{unit} runs again",
        SECONDS,
    )
    eventually(lambda: serves(cluster, service), bool, f"{unit} serves again", SECONDS)


def wait_until_all_is_back(cluster: Cluster) -> None:
    cluster.wait_until_ready()
    eventually(cluster.prove, lambda proof: proof.rc == 0, "the proof is complete again", 60)


def kill(cluster: Cluster, service: Service, unit: str, who: str) -> None:
    cluster.hosts[service.host].check_output(
        f"systemctl kill --kill-who={who} --signal=KILL %s", unit
    )


def at_once(services: list[Service], prove: Callable[[Service], None]) -> None:
    """Prove something of each service, all at once; fail with what was wrong with any."""
    with ThreadPoolExecutor(len(services)) as pool:
        proofs = {service: pool.submit(prove, service) for service in services}
    wrong = {service.unit: proof.exception() for service, proof in proofs.items()}
    assert not {unit: error for unit, error in wrong.items() if error}


# Killed


@pytest.mark.parametrize("who", ["main", "all"])
@together
def test_killed_services_come_back(cluster: Cluster, services: list[Service], who: str) -> None:
    def back(service: Service) -> None:
        unit = unit_of(cluster, service)
        before = state(cluster, service, unit)
        assert before["SubState"] == "running", before
        kill(cluster, service, unit, who)
        wait_until_back(cluster, service, unit, before["MainPID"])
        assert int(state(cluster, service, unit)["NRestarts"]) > int(before["NRestarts"])

    at_once(services, back)
    wait_until_all_is_back(cluster)


@together
def test_systemd_never_gives_up(cluster: Cluster, services: list[Service]) -> None:
    def back(service: Service) -> None:
        unit = unit_of(cluster, service)
        for _ in range(OFTEN):
            former = state(cluster, service, unit)["MainPID"]
            kill(cluster, service, unit, "all")
            wait_until_back(cluster, service, unit, former)

    at_once(services, back)
    wait_until_all_is_back(cluster)


def test_postgres_stays_down_when_an_administrator_has_stopped_it(cluster: Cluster) -> None:
    """By the program of its package, as the user postgres: past systemd."""
    unit = unit_of(cluster, DATABASE)
    version = unit.partition("@")[2].partition("-")[0]
    data1 = cluster.hosts["data1"]
    try:
        data1.check_output(
            "runuser -u postgres -- pg_ctlcluster --skip-systemctl-redirect %s main stop", version
        )
        # One that is to be started again is never inactive: it is activating at once.
        eventually(
            lambda: state(cluster, DATABASE, unit)["ActiveState"],
            lambda of: of in ("inactive", "activating", "failed"),
            "it has ended",
        )
        found = state(cluster, DATABASE, unit)
        assert (found["ActiveState"], found["SubState"]) == ("inactive", "dead")
    finally:
        data1.check_output("systemctl start %s", unit)
    wait_until_all_is_back(cluster)


# Started too early


def test_a_data_host_whose_address_comes_late_serves_when_it_is_there(cluster: Cluster) -> None:
    data1, address = cluster.hosts["data1"], cluster.fact("address", "data1")
    units = [unit_of(cluster, service) for service in WITH_AN_ADDRESS]
    program, result = "/root/late-address.py", "/root/late-address.json"
    data1.check_output(f"rm -f {result}")
    cluster.python("data1", "import sys; open(sys.argv[1], 'w').write(sys.argv[2])", program, LATE)
    # After a moment in which this connection says that it was started.
    data1.check_output(
        "systemd-run --quiet --unit=late-address --collect"
        " --on-active=1 --timer-property=AccuracySec=100ms"
        f" python3 {program} {address} {result} {' '.join(units)}"
    )
    eventually(
        lambda: data1.run(f"cat {result}").rc, lambda rc: rc == 0, "the address is back", 120
    )
    seen = json.loads(data1.check_output(f"cat {result}"))
    for unit, found in seen.items():
        assert int(found["NRestarts"]) >= OFTEN, f"{unit} was given up: {found}"
        assert found["ActiveState"] == "activating", f"{unit} did not need its address: {found}"
    for service in WITH_AN_ADDRESS:
        eventually(lambda s=service: serves(cluster, s), bool, f"{service.unit} serves", SECONDS)
    wait_until_all_is_back(cluster)
    data1.check_output(f"rm {program} {result}")


# In effect, not written


def test_a_live_cluster_gets_its_supervision_without_a_restart(cluster: Cluster) -> None:
    """As one that was set up by a former version: its units have no settings of the kit's."""
    services = [EDGE, DATABASE]
    units = {service: unit_of(cluster, service) for service in services}
    for service, unit in units.items():
        cluster.hosts[service.host].check_output(
            f"rm -r /etc/systemd/system/{unit}.d && systemctl daemon-reload"
        )
        assert cluster.show(service.host, unit, "Restart")["Restart"] == "no"
    before = {service: state(cluster, service, unit) for service, unit in units.items()}
    tags = "--tags=nginx,postgres"
    run = cluster.converge(tags)
    assert run.rc == 0, run.output
    for service, unit in units.items():
        assert cluster.show(service.host, unit, "Restart")["Restart"] != "no"
        assert state(cluster, service, unit) == before[service], "it was restarted"
    again = cluster.converge(tags)
    assert (again.rc, again.changed) == (0, {}), again.output


@pytest.mark.parametrize(
    ("service", "limit"), [(EDGE, 5), (DATABASE, 5), (LAYER, 3), (BACKGROUND, 3), (CELERY, 3)]
)
def test_a_service_may_do_little(cluster: Cluster, service: Service, limit: float) -> None:
    unit = unit_of(cluster, service)
    told = cluster.hosts[service.host].run(
        f"systemd-analyze security --no-pager --threshold={limit * 10:.0f} %s", unit
    )
    assert told.rc == 0, told.stdout


# For a load balancer


def test_a_load_balancer_that_knows_the_address_alone_is_told_where_to_send_people(
    cluster: Cluster,
) -> None:
    lb1 = cluster.hosts["lb1"]
    assert edge_says(cluster) == "200"
    try:
        lb1.check_output("touch /etc/nginx/draining")
        assert edge_says(cluster) == "503"
        # Whoever is sent here meanwhile is served.
        assert cluster.prove().rc == 0
    finally:
        lb1.check_output("rm -f /etc/nginx/draining")
    assert edge_says(cluster) == "200"
    # What is not the load balancer's stays shut.
    url = cluster.fact("edge_urls")[0] + "/-/metrics"
    assert cluster.python("app1", ASK, url, user="nobody") == "421"


def test_the_database_is_utf8_and_the_server_has_its_own_time_zone(cluster: Cluster) -> None:
    ask = "runuser -u postgres -- psql --no-psqlrc -qtAc %s postgres"
    told = {
        name: cluster.hosts["data1"].check_output(ask, f"SHOW {name}")
        for name in ("server_encoding", "timezone", "lc_messages")
    }
    assert told == {"server_encoding": "UTF8", "timezone": "Etc/UTC", "lc_messages": "C.UTF-8"}
    name = cluster.fact("postgres_database")
    query = f"SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = '{name}'"
    assert cluster.hosts["data1"].check_output(ask, query) == "UTF8"
