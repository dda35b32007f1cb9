"""A run that ends between a write and its effect leaves work; the next run completes it.

What such a run leaves is made by hand: the files as they are wanted, and processes that run with
something else.
"""

import hashlib
import json
import re
from collections.abc import Iterator

import pytest
from harness.ansible import Run
from harness.cluster import Cluster

INSTANCES = ("layer", "broker")
# Of the broker, which replays its append-only file as this user. As Redis 7.0 lists it, and as
# later ones do.
DEFAULT_USER = ("user default off ~* &* +@all", "user default off sanitize-payload ~* &* +@all")
FORMER = "a-former-password-of-the-broker"
EMPTY = hashlib.sha256(b"").hexdigest()
PASSWORD_FILE = "/etc/redis/administrator.password"
DROP_IN = "/etc/systemd/system/redis-server@.service.d/channels-kit.conf"

# The password comes with the program by standard input: it is on no command line.
ASK_REDIS = """\
import os, subprocess, sys
password = {password!r}
if password is None:
    password = open("/etc/redis/administrator.password").read().strip()
answer = subprocess.run(
    ["redis-cli", "-h", {address!r}, "-p", {port!r}, "--user", {user!r}, "--no-auth-warning"],
    env={{"PATH": "/usr/bin:/bin", "REDISCLI_AUTH": password}},
    input={commands!r}, capture_output=True, text=True, check=True)
print(answer.stdout + answer.stderr)
"""


def redis(
    cluster: Cluster,
    instance: str,
    *commands: str,
    user: str = "administrator",
    password: str | None = None,
) -> str:
    """Return what an instance answers to commands of one connection."""
    program = ASK_REDIS.format(
        password=password,
        address=cluster.fact("address", "data1"),
        port=str(cluster.fact(f"redis_{instance}_port")),
        user=user,
        commands="".join(f"{command}\n" for command in commands),
    )
    return cluster.python("data1", program)


def postgres(cluster: Cluster, setting: str) -> str:
    """Return the value of a setting in effect."""
    shown: str = cluster.hosts["data1"].check_output(
        f"runuser -u postgres -- psql --no-psqlrc -qtAc 'SHOW {setting}' postgres"
    )
    return shown


def conf_of(cluster: Cluster) -> str:
    path: str = cluster.hosts["data1"].check_output(
        "ls /etc/postgresql/*/main/conf.d/channels-kit.conf"
    )
    return path


def unit_of(cluster: Cluster) -> str:
    version = conf_of(cluster).split("/")[3]
    return f"postgresql@{version}-main.service"


def main_process(cluster: Cluster, unit: str) -> str:
    return cluster.show("data1", unit, "MainPID")["MainPID"]


def digest(cluster: Cluster, instance: str) -> str:
    password: str = cluster.variables[f"redis_{instance}_password"]
    return hashlib.sha256(password.encode()).hexdigest()


@pytest.fixture(scope="module")
def completed(cluster: Cluster) -> Iterator[Run]:
    data1 = cluster.hosts["data1"]
    conf = conf_of(cluster)
    # PostgreSQL: started with other settings, and its files written since.
    data1.check_output(
        f"cp --preserve {conf} /root/kit.conf && echo 'work_mem = 9MB' >>{conf}"
        f" && sed -i 's/^max_connections = .*/max_connections = 150/' {conf}"
        f" && systemctl restart {unit_of(cluster)} && mv /root/kit.conf {conf}"
    )
    assert (postgres(cluster, "work_mem"), postgres(cluster, "max_connections")) == ("9MB", "150")
    # The layer: started with a setting that no running instance takes.
    path = "/etc/redis/redis-layer.conf"
    data1.check_output(
        f"cp --preserve {path} /root/layer.conf && echo 'databases 20' >>{path}"
        f" && systemctl restart redis-server@layer.service && mv /root/layer.conf {path}"
    )
    # The broker: with a setting and a password of former files.
    redis(cluster, "broker", "CONFIG SET maxmemory 100mb")
    redis(cluster, "broker", f"ACL SETUSER channels resetpass >{FORMER}")
    redis(cluster, "broker", "ACL SETUSER default -@all")
    # Both: with an administrator's password that a pipeline has left empty.
    for instance in INSTANCES:
        redis(cluster, instance, f"ACL SETUSER administrator resetpass #{EMPTY}")
        data1.check_output(
            f"sed -i 's/^user administrator on #[0-9a-f]*/user administrator on #{EMPTY}/'"
            f" /etc/redis/{instance}.acl"
        )
    data1.check_output(f"truncate --size=0 {PASSWORD_FILE}")
    yield cluster.converge()
    cluster.wait_until_ready()


def test_the_next_run_completes_it(cluster: Cluster, completed: Run) -> None:
    assert completed.rc == 0, completed.output
    assert completed.changed["data1"] >= {
        "Configure | Create the administrator's password",
        "Configure | Validate the settings and apply them to running instances",
        "Configure | Add the current passwords and keep the old ones",
        "Redis | Restart outdated instances",
        "Configure | Reload the server if its files are newer",
        "PostgreSQL | Restart the server",
        "Revoke | Remove old passwords",
    }
    # No file of settings was written: they were as they should be.
    assert "Configure | Write the settings" not in completed.changed["data1"]
    assert [name for name, secret in cluster.secrets.items() if secret in completed.output] == []


def test_postgres_runs_with_what_is_written(cluster: Cluster, completed: Run) -> None:
    assert completed.rc == 0, completed.output
    assert postgres(cluster, "work_mem") == "4MB"
    assert postgres(cluster, "max_connections") != "150"


def test_redis_runs_with_what_is_written(cluster: Cluster, completed: Run) -> None:
    assert completed.rc == 0, completed.output
    assert redis(cluster, "layer", "CONFIG GET databases").split() == ["databases", "16"]
    found = redis(cluster, "broker", "CONFIG GET maxmemory").split()
    assert found == ["maxmemory", str(256 * 1024**2)]


@pytest.mark.parametrize("instance", INSTANCES)
def test_redis_knows_the_wanted_users_and_no_former_password(
    cluster: Cluster, completed: Run, instance: str
) -> None:
    assert completed.rc == 0, completed.output
    listed = redis(cluster, instance, "ACL LIST")
    written = cluster.hosts["data1"].check_output("cat /etc/redis/%s.acl", instance)
    former = hashlib.sha256(FORMER.encode()).hexdigest()
    for users in (listed, written):
        assert digest(cluster, instance) in users
        assert former not in users
        assert EMPTY not in users
        default = next(line for line in users.splitlines() if "user default " in line)
        if instance == "broker":
            assert any(each in default for each in DEFAULT_USER)
        else:
            assert digest(cluster, instance) in default
            assert "-@admin" in default
    password = cluster.hosts["data1"].file(PASSWORD_FILE)
    assert (password.user, password.mode, password.size) == ("root", 0o600, 64)
    assert "WRONGPASS" in redis(cluster, instance, "AUTH administrator ''", password="x")


def test_the_run_after_that_changes_nothing(cluster: Cluster, completed: Run) -> None:
    assert completed.rc == 0, completed.output
    processes = [main_process(cluster, f"redis-server@{name}.service") for name in INSTANCES]
    again = cluster.converge("--tags=base,redis,postgres")
    assert again.rc == 0, again.output
    assert again.changed == {}
    assert processes == [
        main_process(cluster, f"redis-server@{name}.service") for name in INSTANCES
    ]


def test_a_process_that_is_older_than_its_limits_is_restarted(cluster: Cluster) -> None:
    data1 = cluster.hosts["data1"]
    data1.check_output(f"cp --preserve {DROP_IN} {DROP_IN}.new && mv {DROP_IN}.new {DROP_IN}")
    before = main_process(cluster, "redis-server@broker.service")
    run = cluster.converge("--tags=redis")
    assert run.rc == 0, run.output
    assert run.changed == {
        "data1": {
            "Configure | Check whether the instances run with their files",
            "Redis | Restart outdated instances",
        }
    }
    assert main_process(cluster, "redis-server@broker.service") != before


def test_a_transaction_survives_a_restart_of_the_broker(cluster: Cluster) -> None:
    """Redis replays its append-only file as the user default, whom nobody can log in as."""
    me = {"user": "channels", "password": cluster.variables["redis_broker_password"]}
    keys = [f"test-of-the-kit-{letter}" for letter in "abc"]
    redis(
        cluster,
        "broker",
        *("MULTI", f"SET {keys[0]} 1", f"SET {keys[1]} 1", "EXEC", f"SET {keys[2]} 1"),
        **me,
    )
    cluster.hosts["data1"].check_output("systemctl restart redis-server@broker.service")
    found = redis(cluster, "broker", *(f"GET {key}" for key in keys), **me)
    redis(cluster, "broker", f"DEL {' '.join(keys)}", **me)
    assert found.split() == ["1", "1", "1"]
    cluster.wait_until_ready()


def live(cluster: Cluster) -> list[object]:
    """Return the files and processes that a refused value must not touch."""
    data1 = cluster.hosts["data1"]
    paths = [
        conf_of(cluster),
        *(f"/etc/redis/redis-{name}.conf" for name in INSTANCES),
        *(f"/etc/redis/{name}.acl" for name in INSTANCES),
    ]
    files = [(data1.file(path).sha256sum, data1.file(path).mtime) for path in paths]
    units = [unit_of(cluster), *(f"redis-server@{name}.service" for name in INSTANCES)]
    return [*files, *(main_process(cluster, unit) for unit in units)]


def instances(**settings: str) -> dict[str, object]:
    """Return redis_instances with further settings of the layer."""
    return {
        name: {
            "port": f"{{{{ cluster_redis_{name}_port }}}}",
            "password": f"{{{{ redis_{name}_password }}}}",
            "settings": settings if name == "layer" else {"appendonly": "yes"},
        }
        for name in INSTANCES
    }


@pytest.mark.parametrize(
    ("tag", "variables", "words"),
    [
        (
            "postgres",
            {"postgres_settings": {"work_mem": "plenty"}},
            re.escape('invalid value for parameter "work_mem": "plenty"'),
        ),
        (
            "postgres",
            {"postgres_settings": {"nonsense": "1"}},
            re.escape('unrecognized configuration parameter "nonsense"'),
        ),
        (
            "redis",
            {"redis_instances": instances(hz="often")},
            re.escape("'hz often' argument couldn't be parsed into an integer"),
        ),
        (
            "redis",
            {"redis_instances": instances(nonsense="1")},
            # Redis 8 takes it for a setting of a module.
            r"'nonsense 1' (Bad directive or wrong number of arguments"
            r"|.*Module Configuration detected without loadmodule directive)",
        ),
    ],
)
def test_a_value_that_is_refused_changes_nothing(
    cluster: Cluster, tag: str, variables: dict[str, object], words: str
) -> None:
    before = live(cluster)
    run = cluster.converge(f"--tags={tag}", f"--extra-vars={json.dumps(variables)}")
    assert run.rc != 0
    said = run.output.replace('\\"', '"')
    assert re.search(words, said, re.DOTALL)
    assert run.recap["data1"]["failed"] == 1
    assert run.changed == {}
    assert live(cluster) == before
