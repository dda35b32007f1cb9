"""The tests of values that the rules of the preflight use, and the filters that write them."""

from typing import Any

import pytest
from plugins.filter.cluster import (
    canonical,
    cluster_addresses,
    cluster_web_workers,
    in_url,
    in_userinfo,
    postgres_string,
    redis_value,
)
from plugins.test import values as plugin
from plugins.test.values import (
    base_url,
    host_address,
    journal_size,
    kernel_settings,
    mounts,
    nginx_size,
    paths,
    postgres_settings,
    proxy_network,
    python_object,
    redis_instances,
    redis_size,
    release_home,
    server_address,
    server_name,
    source,
)

INSTANCE = {"port": 6379, "password": "x" * 16, "settings": {}}


def instances(**layer: Any) -> Any:
    return {"layer": {**INSTANCE, **layer}, "broker": {**INSTANCE, "port": 6380}}


TAKEN: list[tuple[Any, list[Any]]] = [
    (host_address, ["10.0.0.1", "2001:db8::1", "2001:DB8:0::1", "127.0.0.1", "::1", "fd00::1"]),
    (server_name, ["chat.example.org", "Chat.Example.ORG", ".example.org", "localhost", "xn--a"]),
    (server_name, ["10.0.0.1", "2001:db8::10", "[2001:db8::10]", "a" * 63 + ".de"]),
    (server_address, ["db.example.org", "db.example.org.", "my_db", "10.0.0.1", "2001:db8::1"]),
    (base_url, ["http://10.0.0.1", "http://10.0.0.1:80/", "https://[2001:db8::1]:8443"]),
    (python_object, ["config.asgi:application", "a:b.c"]),
    (release_home, ["/srv/channels", "/opt/a.b_c-d", "/homes/a"]),
    (nginx_size, ["8m", "8M", 8, "0", "08g"]),
    (proxy_network, ["10.0.1.5", "10.0.1.0/24", "10.0.0.0/8", "10.0.1.5/32", "127.0.0.1"]),
    (proxy_network, ["2001:db8::/32", "2001:DB8::1", "fc00::/7", "2400:cb00::/32", "::1"]),
    (journal_size, ["500M", 500, "15E"]),
    (redis_size, ["256mb", "256MB", "1g", 268435456, "0"]),
    (redis_instances, [instances(), instances(settings={"save": '""', "appendonly": False})]),
    (redis_instances, [instances(settings={"save": "900 1 300 10", "hz": 10, "maxmemory": "1gb"})]),
    (postgres_settings, [{"work_mem": "4MB", "a.b": "it's", "fsync": False, "x": 1}]),
    (kernel_settings, [{"net.core.somaxconn": 1, "net/ipv4/ip_forward": "1"}]),
    (mounts, [{}, {"/var/lib/postgresql": "/dev/disk/by-id/scsi-0HC_Volume_1"}]),
    (source, ["/", "https://git.example.org/shop.git", "https://ada@git.example.org/shop.git"]),
    (source, ["git@git.example.org:ada/shop.git", "ssh://git@git.example.org:22/ada/shop.git"]),
    (paths, [[], ["static/dist", "a b/ä"]]),
]
REFUSED: list[tuple[Any, list[Any]]] = [
    (source, ["shop", "~/shop", "/nowhere", "/etc/passwd", "https://ada:pw@git.example.org/shop"]),
    (source, ["http://git.example.org/shop", "--upload-pack=x", "https://a b", "", None, 1]),
    (paths, [["/static"], ["../static"], ["a/../../b"], ["-x"], [""], [1], "static", None]),
    (host_address, ["10.0.0.300", "010.0.0.1", "10.0.0.0/8", "10.0.0.1:80", "app1", "", 1, None]),
    (host_address, ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "fe80::1"]),
    (host_address, ["fe80::1%eth0", "fd00::1%eth0", "::ffff:10.0.0.1", "[2001:db8::1]", "1"]),
    (server_name, ["chat.example.org:8443", "https://chat.example.org", "chat.example.org/"]),
    (server_name, ["chat.example.org.", "chat_1.example.org", "*.example.org", "*", "bücher.de"]),
    (server_name, ["10.0.0.300", "[10.0.0.1]", "[2001:db8::10]:80", "a..b", ".", "", "-a", "a-"]),
    (server_name, ["a" * 64, ".".join(["a" * 63] * 4) + ".de", "a.0x1f", "fd00::1%eth0", 5]),
    (
        server_address,
        ["db.example.org:5432", "[2001:db8::1]", "10.0.0.300", "/run/x", "", "0.0.0.0"],
    ),
    (base_url, ["10.0.0.1:80", "ws://10.0.0.1", "http://10.0.0.1/x", "http://u:p@10.0.0.1"]),
    (base_url, ["http://10.0.0.1:0", "http://10.0.0.1:x", "http://", "http://a b", "http://a?b"]),
    (base_url, ["http://2001:db8::1", "http://[::1", "http://a#b"]),
    (python_object, ["config.asgi", "a:b:c", ":b", "a:", "a..b:c", "a-b:c", "class:a", "ä:b"]),
    (release_home, ["/", "srv/x", "/srv/x/", "/srv//x", "/srv/../x", "/srv/a b", "/srv/%i"]),
    (release_home, ["/home/x", "/tmp/x", "/run", "/root", "/srv/" + "x" * 200]),
    (proxy_network, ["0.0.0.0/0", "::/0", "0.0.0.0/1", "128.0.0.0/7", "8000::/1", "::/6"]),
    (proxy_network, ["10.0.1.5/24", "2001:db8::1/64", "10.0.1.0/255.255.255.0", "10.0.1.0/"]),
    (proxy_network, ["10.0.0.300", "lb1", "10.0.1.0/33", "fe80::1%eth0", "::ffff:10.0.1.0/120"]),
    (proxy_network, ["10.0.0.1:80", "[2001:db8::1]", " 10.0.0.1", "unix:", "", 1, ["10.0.0.1"]]),
    (nginx_size, ["8mb", "8 m", "-1", "99999999999g", "1.5m", "", "٣m"]),
    (journal_size, ["500MB", "99999999999T", "-1", "16E", ""]),
    (redis_size, ["1mb", "256 mb", "99999999999gb", "10%", "-1", ""]),
    (redis_instances, [{}, {"layer": INSTANCE}, instances(port=80), instances(port="6379")]),
    (redis_instances, [instances(port=6380), instances(password="short"), instances(settings=[])]),
    (redis_instances, [instances(settings={"save": text}) for text in ("", '"a', "a\nb")]),
    (redis_instances, [instances(settings={"save": None}), instances(settings={"save": []})]),
    (redis_instances, [instances(settings={name: "1"}) for name in ("port", "bind", "a b", "A")]),
    (redis_instances, [{**instances(), "a/b": {**INSTANCE, "port": 7000}}]),
    (redis_instances, [{**instances(), "more": {}}, {**instances(), "more": None}]),
    (postgres_settings, [{"port": 1}, {"Max_Connections": 1}, {"a b": 1}, {"a": None}, {"a": []}]),
    (mounts, [{"data": "/dev/sdb"}, {"/data": "sdb"}, {"/a b": "/dev/sdb"}, {"/..": "/dev/sdb"}]),
    (mounts, [{"/data": "/dev/../etc"}, {"/data": None}, {1: "/dev/sdb"}, ["/data"], None]),
    (kernel_settings, [{"net.*": 1}, {"-a.b": 1}, {"a.b": True}, {"a.b": ""}, {"a.b": "1\n2"}]),
]


@pytest.mark.parametrize(
    ("test", "value"), [(test, value) for test, values in TAKEN for value in values]
)
def test_what_the_software_takes_is_taken(test: Any, value: Any) -> None:
    assert test(value)


@pytest.mark.parametrize(
    ("test", "value"), [(test, value) for test, values in REFUSED for value in values]
)
def test_what_the_software_refuses_is_refused(test: Any, value: Any) -> None:
    assert not test(value)


@pytest.mark.parametrize(
    "value", [None, True, 5, 1.5, "", "x", "\n", [], [None], {}, {"a": None}, {1: 2}]
)
@pytest.mark.parametrize("name", plugin.TestModule().tests())
def test_a_value_of_any_type_has_an_answer(name: str, value: Any) -> None:
    # A key is that of a certificate.
    more = [""] if name == "cluster_certificate_key" else []
    assert plugin.TestModule().tests()[name](value, *more) in (True, False)


def test_an_address_has_one_spelling() -> None:
    assert canonical("2001:DB8:0:0::10") == "2001:db8::10"
    assert canonical("Chat.example.org") == "Chat.example.org"
    hostvars = {"app1": {"cluster_address": "2001:DB8:0::1"}, "lb1": {}}
    assert cluster_addresses(["app1", "lb1"], hostvars) == ["2001:db8::1"]
    (worker,) = cluster_web_workers(["app1"], hostvars, 1, 8001)
    assert worker["url"] == "http://[2001:db8::1]:8001"


def test_an_address_in_a_url_has_brackets_once() -> None:
    assert in_url("2001:DB8:0::1") == in_url("[2001:db8::1]") == "[2001:db8::1]"
    assert in_url("10.0.0.1") == "10.0.0.1"
    assert in_url(".example.org") == ".example.org"


def test_a_password_in_a_url_may_be_a_number() -> None:
    assert in_userinfo(1234567890123456) == "1234567890123456"
    assert in_userinfo("a/b@c:d") == "a%2Fb%40c%3Ad"


def test_redis_has_yes_and_no() -> None:
    assert [redis_value(value) for value in (True, False, 10, '""')] == ["yes", "no", "10", '""']


def test_a_string_of_postgres_stays_in_its_line() -> None:
    assert postgres_string("it's C:\\x\n\r") == "it''s C:\\\\x\\n\\r"
