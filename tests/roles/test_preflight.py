"""The preflight as site.yml runs it: it refuses what cannot work, all at once and in words."""

import re
import warnings
from typing import Any

import pytest

from .house import ROLE_NAMES, Run, Tree, finish, options, rules, start

PLAY = {
    "name": "Preflight",
    "hosts": "localhost",
    "connection": "local",
    "gather_facts": False,
    "tasks": [
        {
            "name": "Preflight | Refuse what cannot work",
            "ansible.builtin.include_role": {
                "name": "cluster",
                "tasks_from": "preflight",
                "rolespec_validate": False,
            },
        }
    ],
}
GROUPS = ("postgres", "redis", "channels", "nginx")
SECRET = "hunter2-is-a-secret"
GOOD = {
    "cluster_address": "10.0.0.1",
    "cluster_server_names": ["chat.example.org"],
    "cluster_postgres_address": "10.0.0.9",
    "cluster_redis_address": "10.0.0.9",
    "channels_secret_key": f"{SECRET}-" + "0123456789" * 3,
    "channels_probe_token": f"{SECRET}-probe",
    "postgres_password": f"{SECRET}-postgres",
    "redis_layer_password": f"{SECRET}-layer",
    "redis_broker_password": f"{SECRET}-broker",
}

# For every rule of every meta/preflight.yml: two values that it must refuse.
BAD: dict[str, list[Any]] = {
    "base_journal_max_use": ["500 MB", "99999999999T"],
    "base_mounts": [{"data": "/dev/sdb"}, {"/data": "sdb"}],
    "base_packages": [["--purge"], ["two words"]],
    "base_sysctl": [{"net.*": 1}, {"net.ipv4.ip_forward": True}],
    "channels_allow_known_faults": [["Redis 8"], ["a b"]],
    "channels_application": ["config.asgi", "config..asgi:application"],
    "channels_archive_directory": ["archives", "/etc/passwd/archives"],
    "channels_build": [[""], ["npm run build", " "]],
    "channels_canary_seconds": [-1, 3601],
    "channels_celery_application": ["config:a:b", "-config"],
    "channels_check_paths": [["login/"], ["/-/ready"]],
    "channels_check_sockets": [
        [{"close": 1006, "path": "/ws/"}],
        [{"close": 4001, "path": "/ws/", "status": 403}],
    ],
    "channels_drain_pace": [0, 10001],
    "channels_memory_high": ["600", "50%"],
    "channels_memory_max": ["lots", "1.5G"],
    "channels_drain_window": [0, 3601],
    "channels_roll_limit": [0, "0%"],
    "channels_environment": [{"A-NAME": SECRET}, {"PYTHONPATH": SECRET}],
    "channels_extras": [["-prod"], ["two words"]],
    # The second one is a file of tasks here, and not where the roll looks for it.
    "channels_hooks": [{"before_lunch": []}, {"before_restart": ["site.yml"]}],
    "channels_probe_token": [f"{SECRET} with spaces", "hunter2-short"],
    "channels_processes": [
        {"mail": {"runworker": []}},
        {"beat": {"celery": "beat", "once": False}},
    ],
    "channels_ready_timeout": [4, 601],
    "channels_releases_kept": [1, 101],
    "channels_python": ["3", "3.10"],
    "channels_requirements": ["/etc/passwd", "../list.txt"],
    "channels_root": ["/srv", "a/../../b"],
    "channels_secret_key": [f"{SECRET}-short", f"{SECRET} with spaces that is long enough"],
    "channels_secret_key_fallbacks": [[f"{SECRET}-short"], [f"{SECRET},with,commas,long,enough"]],
    "channels_settings_module": ["config/settings.py", "config..settings"],
    "channels_source": ["https://ada:password@git.test/shop", "/nowhere"],
    "channels_source_excludes": [["[a,b]*"], ["media/"]],
    "channels_source_includes": [["/dist"], ["static/../../x"]],
    "channels_source_ref": ["-x", "two words"],
    # The second one is a token, and the application is no repository.
    "channels_source_token": [f"{SECRET} words", f"{SECRET}token"],
    "channels_stop_timeout": [4, 3601],
    "channels_stream_grace": [0, 3601],
    "channels_users": [{"ada": 12345678}, {"ada": ""}],
    "channels_writable": [["var/media", "var"], ["../media"]],
    "channels_writable_store": ["shared", "/tmp/media"],
    "channels_websocket_max_size": [65535, 134217729],
    "cluster_acme_directory": ["ca.example.org/directory", "http://ca.example.org/directory"],
    "cluster_acme_email": ["nobody", "two words@example.org"],
    "cluster_address": ["10.0.0.300", "fe80::1"],
    "cluster_app_addresses": [["10.0.0.0/8"], ["app1"]],
    "cluster_database_pool_size": [0, 101],
    "cluster_edge_addresses": [["10.0.0.1:80"], ["0.0.0.0"]],
    "cluster_edge_http_port": [22, 65536],
    "cluster_edge_inside_port": [22, 65536],
    "cluster_edge_https_port": [22, 65536],
    "cluster_edge_urls": [[], ["http://10.0.0.1/path"]],
    "cluster_first_worker_port": [1023, 65280],
    "cluster_guarded_ports": [
        {"redis": {"ports": [0], "sources": []}},
        {"redis": {"ports": [6379], "sources": ["cache1"]}},
    ],
    "cluster_home": ["/home/channels", "/srv/../channels"],
    "cluster_figures": [{}, {"socket_kib": {"value": 30}}],
    "cluster_layer_capacity": [0, 1000001],
    "cluster_layer_expiry": [0, 86401],
    "cluster_layer_group_expiry": [59, 31536001],
    "cluster_listen_backlog": [127, 65536],
    "cluster_messages_per_second": [-1, 10000001],
    "cluster_nofile": [1023, 1048577],
    "cluster_package_files": [{"redis": {"etc/x": ""}}, {"redis": ["/etc/x"]}],
    "cluster_packages": [{"redis": ["redis"]}, {"nginx": [], "postgres": ["-o"], "redis": []}],
    "cluster_postgres_address": ["", "db.example.org:5432"],
    "cluster_postgres_database": ["template1", "a" * 64],
    "cluster_postgres_port": [80, 65536],
    "cluster_postgres_user": ["postgres", "a" * 55],
    "cluster_proxy_protocol": [True, True],
    "cluster_redis_address": ["", "[2001:db8::1]"],
    "cluster_redis_broker_address": ["10.0.0.10", ""],
    "cluster_redis_broker_port": [80, 65536],
    "cluster_redis_layer_port": [80, 65536],
    "cluster_redis_tls": [True, True],
    "cluster_redis_user": ["default", "administrator"],
    "cluster_room_size": [0, 10000001],
    "cluster_sockets": [0, 10000001],
    "cluster_sockets_per_worker": [0, 1000001],
    "cluster_spare_hosts": [-1, 100],
    "cluster_server_names": [["chat.example.org:8443"], ["chat_1.example.org"]],
    "cluster_trusted_proxies": [["0.0.0.0/0"], ["10.0.1.5/24"]],
    "cluster_tls_days_left": [0, 61],
    "cluster_user": ["root", "a" * 32],
    "cluster_workers": [0, 257],
    "cluster_workers_per_host": [0, 257],
    "nginx_acme_arguments": [[""], ["two\nlines"]],
    "nginx_acme_dns_hook": ["hook", "/usr/local/bin/hook --force"],
    "nginx_client_max_body_size": ["99999999999g", "8mb"],
    "nginx_handshakes_burst": [0, 10000011],
    "nginx_handshakes_per_address": [-1, 1000001],
    "nginx_handshakes_per_address_burst": [0, 100000101],
    "nginx_handshakes_per_second": [0, 1000001],
    "nginx_handshakes_per_worker": [0, 10001],
    "nginx_keepalive_timeout": [4, 3601],
    "nginx_hsts_max_age": [-1, 63072001],
    "nginx_local_port": [0, 65536],
    "nginx_proxy_read_timeout": [59, 604801],
    "nginx_real_ip_header": ["Forwarded", "proxy_protocol"],
    "nginx_retry_after": [0, 301],
    "nginx_sockets_per_address": [-1, 65536],
    "nginx_socket_buffer_size": ["3k", "8m"],
    "nginx_static_cache_minutes": [0, 525601],
    "nginx_tls_certificate": ["tls/chat.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n"],
    "nginx_tls_key": [f"{SECRET}/chat.key", f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n"],
    "nginx_worker_connections": [63, 65536],
    "nginx_worker_shutdown_timeout": [0, 604801],
    "postgres_max_connections": [19, 10001],
    "postgres_password": [f"{SECRET} with spaces", "hunter2-short"],
    "postgres_settings": [{"port": 5433}, {"work mem": "4MB"}],
    "redis_broker_password": [f"{SECRET} with spaces", "hunter2-short"],
    "redis_instances": [{"layer": {"port": 6379}}, {"layer": {"password": SECRET}}],
    "redis_layer_password": [f"{SECRET} with spaces", "hunter2-short"],
    "redis_maxclients": [99, 65505],
    "redis_maxmemory": ["256 mb", "1mb"],
    "redis_pubsub_buffer_limit": ["32 mb", "1mb"],
}
EVERY = {name: option for role in ROLE_NAMES for name, option in options(role).items()}
RULES = {(role, rule["variable"]): rule for role in ROLE_NAMES for rule in rules(role)}
# Values that are not of the type; what the types of argument specs would convert is among them.
NOT_OF_TYPE: dict[str, Any] = {
    "str": [SECRET],
    "path": [SECRET],
    "int": SECRET,
    "float": SECRET,
    "bool": SECRET,
    "list": "chat.example.org",
    "dict": f"name={SECRET}",
}


# Where a mistake about a variable of a role is made: a second host of the group postgres or redis
# would be a mistake itself, and what every host has is best made wrong where nothing else is.
HOST_OF = {"base": "plain", "cluster": "plain", "channels": "app1", "nginx": "lb1"} | {
    "postgres": "db1",
    "redis": "cache1",
}


# Another one for each host.
OWN_ADDRESS = "10.0.0.{{ 1 + groups['all'].index(inventory_hostname) }}"


def inventory(hosts: Tree, groups: Tree, **common: Any) -> Tree:
    return {
        "all": {"hosts": hosts, "vars": {**GOOD, "cluster_address": OWN_ADDRESS, **common}},
        **{group: {"hosts": dict.fromkeys(groups.get(group, ()))} for group in GROUPS},
    }


def one_of_each() -> tuple[Tree, Tree]:
    """Hosts and groups of a cluster that is as it should be."""
    hosts: Tree = {"db1": {}, "cache1": {}, "app1": {}, "lb1": {}}
    groups: Tree = {
        "postgres": ["db1"],
        "redis": ["cache1"],
        "channels": ["app1"],
        "nginx": ["lb1"],
    }
    return hosts, groups


def good() -> Tree:
    hosts, groups = one_of_each()
    hosts["app1"] = {"cluster_workers": 3, "cluster_address": "fd00::1"}
    hosts["lb1"] = {"nginx_http_snippet": "resolver 10.0.0.1;"}
    # As YAML reads off without quotes.
    return inventory(hosts, groups, cluster_tls=False)


def by_rule(turn: int) -> Tree:
    """Every variable that has a rule is one of its bad examples, on a host of its role."""
    hosts, groups = one_of_each()
    hosts["plain"] = {}
    groups["nginx"].append("plain")
    for role, variable in RULES:
        hosts[HOST_OF[role]][variable] = BAD[variable][turn]
    return inventory(hosts, groups)


def by_type() -> Tree:
    """Every variable of every role is of another type than it should be."""
    hosts, groups = one_of_each()
    hosts["plain"] = {}
    # The second one of its group: nothing is derived from its address.
    groups["redis"].append("plain")
    for role in ROLE_NAMES:
        wrong = {name: not_of_type(option) for name, option in options(role).items()}
        hosts[HOST_OF[role]].update(wrong)
    return inventory(hosts, groups)


def not_of_type(option: Tree) -> Any:
    return NOT_OF_TYPE[option["type"]]


# Unlike any variable, for a prefix alone is much alike.
UNLIKE = "channels_" + "x" * 40
# May be names, of servers elsewhere.
NAMES_TOO = ("cluster_postgres_address", "cluster_redis_address")
# What passes today, and works nowhere.
LINE_ENDS = {
    variable: f"{value}\n"
    for variable, value in {
        **GOOD,
        "base_journal_max_use": "500M",
        "channels_application": "config.asgi:application",
        "cluster_home": "/srv/channels",
        "cluster_postgres_database": "channels",
        "cluster_postgres_user": "channels",
        "cluster_redis_user": "channels",
        "cluster_user": "channels",
        "nginx_client_max_body_size": "8m",
        "redis_maxmemory": "256mb",
    }.items()
    if isinstance(value, str) and variable not in NAMES_TOO
}
QUOTED = {
    "base_firewall_enabled": "no",
    "cluster_sockets_per_worker": "1000",
    "channels_ready_timeout": "60",
    "channels_stop_timeout": "15",
}


def together() -> Tree:
    """Values that are good, each by itself."""
    hosts, groups = one_of_each()
    hosts["app1"] = {
        "cluster_address": "2001:DB8:0::1",
        "cluster_database_connections": 5,
        "nginx_local_port": 6380,
    }
    hosts["cache1"] = {"cluster_address": "2001:db8::1"}
    hosts["lb1"] = {"cluster_address": "127.0.0.1"}
    hosts["two words"] = {}
    groups.update(postgres=["app1"], redis=["app1"], nginx=["app1", "lb1"])
    groups["channels"] += ["cache1", "two words"]
    return inventory(hosts, groups, cluster_edge_http_port=5432, cluster_first_worker_port=6379)


def loose() -> Tree:
    hosts, groups = one_of_each()
    hosts["plain"] = {}
    # The second one of its group: nothing is derived from its address.
    groups["redis"].append("plain")
    for variable, value in {**LINE_ENDS, **QUOTED}.items():
        hosts[HOST_OF[variable.split("_")[0]]][variable] = value
    return inventory(hosts, groups)


def assorted() -> Tree:
    """What people get wrong."""
    hosts, groups = one_of_each()
    del groups["nginx"]
    # In no group of the kit: somebody else's.
    hosts["lb1"] = {"redis_maxclients": "many", "cluster_nofile": 1, "cluster_anything": 1}
    hosts["db1"] = {"redis_maxcients": 100, "redis_exporter_password": SECRET}
    hosts["app1"] = {
        "channels_scret_key": SECRET,
        "channels_hooks": {"before_restart": ["/nowhere/tasks.yml"]},
        "channels_server": "gunicorn",
        UNLIKE: 1,
        "chanels_source": "/typo/of/the/prefix/is/not/ours",
        "cluster_nofile": "plenty",
        "channels_stop_timeout": 1,
        "channels_settings_module": "{{ no_such_variable }}",
        "channels_source_excludes": [None],
        "cluster_background_channels": ["mail"],
        "channels_jwt_key": SECRET,
        "redis_broker_password": 1234567890123456,
    }
    hosts["app2"] = {
        "channels_stop_timeout": 1,
        "channels_hooks": {"before_restart": "/etc/passwd"},
        # Takes 5000 s to drain.
        "channels_drain_pace": 1,
        "cluster_sockets_per_worker": 5000,
    }
    groups["channels"] = ["app1", "app2"]
    tree = inventory(hosts, groups, cluster_server_names=[], cluster_user=None)
    del tree["all"]["vars"]["redis_layer_password"]
    del tree["all"]["vars"]["cluster_address"]
    return tree


INVENTORIES = {
    "good": good,
    "by_rule0": lambda: by_rule(0),
    "by_rule1": lambda: by_rule(1),
    "by_type": by_type,
    "together": together,
    "assorted": assorted,
    "loose": loose,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """What the preflight says of each inventory; two runs at a time."""
    directory = tmp_path_factory.mktemp("preflight")
    found, waiting = {}, list(INVENTORIES.items())
    while waiting:
        pair, waiting = waiting[:2], waiting[2:]
        started = {name: start(directory / name, make(), [PLAY]) for name, make in pair}
        found.update({name: finish(process) for name, process in started.items()})
    return found


def problems(run: Run) -> dict[tuple[str, str], str]:
    """By host and variable, what is said."""
    found: dict[tuple[str, str], str] = {}
    _, told, lines = run.output.partition("Nothing changed.\n")
    assert told, run.output
    for line in lines.splitlines():
        if not (problem := re.fullmatch(r"([\w, .-]+): ((?:the group )?(\w+) .*)", line)):
            break
        for host in problem[1].split(", "):
            found[host, problem[3]] = problem[2]
    counted = re.search(r"Preflight found (\d+) problems?\. Nothing changed\.", run.output)
    assert counted
    assert int(counted[1]) == len(set(found.values()))
    return found


def test_a_good_inventory_passes(runs: dict[str, Run]) -> None:
    assert runs["good"].code == 0, runs["good"].output
    assert "Preflight found" not in runs["good"].output


# Rules


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_the_patterns_of_the_rules_are_read_without_a_warning(role: str) -> None:
    """Python's would be in the output of every run."""
    for rule in rules(role):
        for pattern in re.findall(r"'(\^.*?\\Z)'", rule["that"]):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                re.compile(pattern)


def test_every_rule_has_an_example() -> None:
    assert {variable for _, variable in RULES} == set(BAD), (
        "each rule needs a value here that it must refuse"
    )
    assert {len(values) for values in BAD.values()} == {2}
    assert len(RULES) == sum(len(rules(role)) for role in ROLE_NAMES), "one rule a variable"


@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize(("role", "variable"), RULES)
def test_a_rule_refuses_what_it_should(
    runs: dict[str, Run], role: str, variable: str, turn: int
) -> None:
    rule = RULES[role, variable]

    said = problems(runs[f"by_rule{turn}"])[HOST_OF[role], variable]

    secret = EVERY[variable].get("no_log")
    shown = "(a secret, not shown)" if secret else repr(BAD[variable][turn])
    assert said == f"{variable} is {shown}; allowed: {rule['allowed']}"


@pytest.mark.parametrize("turn", [0, 1])
def test_nothing_else_is_refused(runs: dict[str, Run], turn: int) -> None:
    expected = {(HOST_OF[role], variable) for role, variable in RULES}
    # What every host derives from the wrong address of an edge.
    consequences = {
        (host, f"cluster_{name}")
        for host in ("app1", "cache1", "db1", "lb1")
        for name in ("edge_addresses", "edge_urls", "guarded_ports")
    }
    # These inventories give one host what the cluster shares.
    disagreements = {("inventory", variable) for role, variable in RULES if role == "cluster"}
    found = set(problems(runs[f"by_rule{turn}"]))
    assert found - consequences - disagreements == expected


@pytest.mark.parametrize("variable", ["cluster_redis_layer_port", "cluster_workers_per_host"])
def test_a_shared_fact_that_hosts_are_given_differently_is_refused(
    runs: dict[str, Run], variable: str
) -> None:
    said = problems(runs["by_rule0"])["inventory", variable]
    assert said.startswith(f"{variable} is ")
    assert f"{BAD[variable][0]!r} on {HOST_OF['cluster']}" in said
    assert said.endswith("; allowed: the same value on every host; set it for the group all")


@pytest.mark.parametrize("variable", ["cluster_address", "cluster_nofile", "cluster_workers"])
def test_what_belongs_to_a_host_may_differ(runs: dict[str, Run], variable: str) -> None:
    assert ("inventory", variable) not in problems(runs["by_rule0"])


# Types


TYPED = [(role, name) for role in ROLE_NAMES for name in options(role)]


@pytest.mark.parametrize(("role", "name"), TYPED)
def test_a_value_of_another_type_is_refused(runs: dict[str, Run], role: str, name: str) -> None:
    option = options(role)[name]
    said = problems(runs["by_type"])[HOST_OF[role], name]
    shown = "(a secret, not shown)" if option.get("no_log") else repr(not_of_type(option))
    assert said.startswith(f"{name} is {shown}; allowed: ")
    assert said.endswith(f": {option['description']}")


def refused(run: Run) -> set[str]:
    return {variable for _, variable in problems(run)} if run.code else set()


def test_a_line_end_at_the_end_is_refused(runs: dict[str, Run]) -> None:
    """As a block of YAML has it (`password: |`)."""
    assert len(LINE_ENDS) > 10
    assert set(LINE_ENDS) - refused(runs["loose"]) == set()


def test_a_number_or_truth_value_in_quotes_is_refused(runs: dict[str, Run]) -> None:
    assert set(QUOTED) - refused(runs["loose"]) == set()


# What people get wrong


def test_all_is_reported_at_once_with_host_value_and_what_is_allowed(
    runs: dict[str, Run],
) -> None:
    assert runs["assorted"].code != 0
    said = problems(runs["assorted"])
    assert said["app1", "cluster_nofile"] == (
        "cluster_nofile is 'plenty'; allowed: an integer: "
        "Open-file limit of login shells, workers, nginx and Redis."
    )
    assert said["app2", "channels_stop_timeout"] == (
        "channels_stop_timeout is 1; allowed: 5 to 3600 seconds"
    )
    assert said["cache1", "redis_layer_password"].startswith(
        "redis_layer_password is not set; allowed: a string: "
    )
    # The application needs it, too, whoever runs that server.
    assert said["app1", "redis_layer_password"] == (
        "redis_layer_password is not set; "
        "allowed: 16 to 1000 printable ASCII characters without spaces"
    )
    assert said["db1", "cluster_address"].startswith("cluster_address is not set; allowed: ")
    assert said["db1", "cluster_server_names"].startswith(
        "cluster_server_names is empty; allowed: a list of strings: "
    )
    assert said["db1", "cluster_user"].startswith("cluster_user is empty; allowed: ")
    assert said["app1", "channels_settings_module"].startswith(
        "channels_settings_module cannot be read: "
    )
    assert "no_such_variable" in said["app1", "channels_settings_module"]


def test_a_hook_that_is_no_list_of_files_is_refused(runs: dict[str, Run]) -> None:
    said = problems(runs["assorted"])
    for host, hook in (("app1", ["/nowhere/tasks.yml"]), ("app2", "/etc/passwd")):
        assert said[host, "channels_hooks"].startswith(
            f"channels_hooks is { ({'before_restart': hook})!r}; allowed: lists of task files"
        )


def test_a_server_that_there_is_none_of_is_refused_with_those_there_are(
    runs: dict[str, Run],
) -> None:
    assert problems(runs["assorted"])["app1", "channels_server"] == (
        "channels_server is 'gunicorn'; allowed: one of uvicorn, daphne, hypercorn: "
        "ASGI server that runs the workers."
    )


def test_a_drain_that_takes_longer_than_anybody_waits_is_refused(runs: dict[str, Run]) -> None:
    assert problems(runs["assorted"])["app2", "channels_drain_window"] == (
        "channels_drain_window is 5000; allowed: 1 to 3600 seconds"
    )


def test_a_problem_of_many_hosts_is_said_once(runs: dict[str, Run]) -> None:
    assert runs["assorted"].output.count("cluster_address is not set") == 2  # and Ansible again
    assert re.search(r"^(\w+, ){3}\w+: cluster_address is not set", runs["assorted"].output, re.M)


def test_a_rule_about_a_value_of_the_wrong_type_does_not_say_it_again(
    runs: dict[str, Run],
) -> None:
    assert "cannot be checked" not in runs["assorted"].output
    assert "cannot be checked" not in runs["by_type"].output


def test_a_host_in_none_of_the_groups_is_left_alone(runs: dict[str, Run]) -> None:
    """It needs no cluster_address, and may have any variable."""
    assert "lb1" not in runs["assorted"].output


def test_a_variable_of_another_role_may_have_the_prefix_of_one_of_the_kits(
    runs: dict[str, Run],
) -> None:
    """Exporters do. Beside one of the kit's that it could be a slip of, it is refused."""
    assert "redis_exporter_password" not in runs["assorted"].output


def test_a_group_that_must_not_be_empty_is_named(runs: dict[str, Run]) -> None:
    said = problems(runs["assorted"])
    assert said["inventory", "nginx"] == "the group nginx is empty; allowed: at least one host"
    assert ("inventory", "channels") not in said


def test_a_misspelt_variable_is_named_with_the_one_that_was_meant(runs: dict[str, Run]) -> None:
    said = problems(runs["assorted"])
    assert said["app1", "channels_scret_key"] == (
        "channels_scret_key is not a variable of the role channels; "
        "did you mean channels_secret_key?"
    )
    # On a host of another role, too.
    assert said["db1", "redis_maxcients"].endswith("did you mean redis_maxclients?")
    assert said["app1", UNLIKE].endswith("see roles/channels/meta/argument_specs.yml")
    assert ("app1", "chanels_source") not in said


@pytest.mark.parametrize("name", INVENTORIES)
def test_a_secret_is_never_shown(runs: dict[str, Run], name: str) -> None:
    output = runs[name].output
    if name == "by_type":
        # Of the variables that are none, the value is shown.
        hidden = [line for line in output.splitlines() if not shows_openly(line)]
        assert hidden
        output = "\n".join(hidden)
    assert "hunter2" not in output


def shows_openly(line: str) -> bool:
    """Whether a problem is about a variable that is no secret."""
    name = line.strip().partition(": ")[2].partition(" ")[0]
    return name in EVERY and not EVERY[name].get("no_log")


# Values that do not go together


def lines(run: Run) -> list[str]:
    """What is said, line by line."""
    said = run.output.partition("Nothing changed.\n")[2].partition("\n\n")[0]
    return [line.strip() for line in said.splitlines()]


@pytest.mark.parametrize(
    "said",
    [
        "app1: cluster_edge_http_port and cluster_postgres_port both use port 5432; "
        "allowed: a port that no other service on the host uses",
        "app1: cluster_first_worker_port and redis_instances both use port 6379; "
        "allowed: a port that no other service on the host uses",
        "app1: nginx_local_port and redis_instances both use port 6380; "
        "allowed: a port that no other service on the host uses",
        # However it is spelled.
        "inventory: cluster_address is '2001:db8::1' on app1, cache1; "
        "allowed: a different address for every host",
        "inventory: cluster_address is '127.0.0.1' on lb1; "
        "allowed: an address that the other hosts can reach",
        "app1: cluster_database_connections is derived from other variables and must not be set; "
        "remove it",
        "two words: the host's name in the inventory is 'two words'; "
        "allowed: up to 94 letters, digits, dots, underscores, colons and dashes, "
        "beginning with a letter or a digit",
    ],
)
def test_values_that_do_not_go_together_are_refused(runs: dict[str, Run], said: str) -> None:
    assert said in lines(runs["together"])


def test_services_of_different_hosts_may_take_one_port(runs: dict[str, Run]) -> None:
    """The edge of lb1 has the port of PostgreSQL on app1."""
    assert not [line for line in lines(runs["together"]) if "lb1" in line and "port" in line]


def test_a_list_has_elements_of_its_type(runs: dict[str, Run]) -> None:
    said = problems(runs["assorted"])["app1", "channels_source_excludes"]
    assert said.startswith("channels_source_excludes is [None]; allowed: a list of strings: ")


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("cluster_background_channels", "set channels_processes, for each channel an entry"),
        ("channels_jwt_key", "set the variable that the application reads in channels_environment"),
    ],
)
def test_a_variable_of_an_earlier_version_is_refused_with_what_to_set_instead(
    runs: dict[str, Run], name: str, instead: str
) -> None:
    said = problems(runs["assorted"])["app1", name]
    assert said.startswith(f"{name} is no longer a variable of the kit; {instead}")


def test_a_secret_is_a_string(runs: dict[str, Run]) -> None:
    """YAML reads some numbers as others: 0123 and 12:30."""
    said = problems(runs["assorted"])["app1", "redis_broker_password"]
    assert said.startswith("redis_broker_password is not a string; allowed: ")
    assert said.endswith("(put numbers in quotes)")
    assert "1234567890123456" not in runs["assorted"].output
