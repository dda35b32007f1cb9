"""Whatever value the preflight passes goes through to the end; what the software takes, it passes.

Values are made for every option of every role. What passes is rendered by the real templates and
read by the programs that read it on a host. What is refused is shown to them too, where that is
cheap: if they take it, a policy of the kit must say why it is refused.
"""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlparse

import pytest
import redis
from channels.layers import BaseChannelLayer  # type: ignore[import-untyped]
from channels.security.websocket import OriginValidator  # type: ignore[import-untyped]
from django.core.exceptions import ImproperlyConfigured
from django.http.request import split_domain_port, validate_host
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from kombu.utils.url import parse_url
from plugins.filter.waves import roll_limit
from plugins.test.values import REDIS_UNITS
from redis.backoff import NoBackoff
from redis.retry import Retry

from channels_kit.probe.address import UsageError, check_base
from channels_kit.probe.checks import Checks, SocketCheck
from channels_kit.serving.settings import ServingSettings
from chat.management.commands.ensure_users import _parse as parse_users

from .certificates import Store, make
from .edge import NGINX
from .formats import parse_unit
from .house import ROLE_NAMES, ROOT, options
from .postgres_server import POSTGRES, directory_of_postgres
from .rendered import RELEASE
from .test_postgres_settings import Server
from .values import House, Systemd, each, run

# Of the \Z in the rules; Jinja reads it as it stands.
pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")

EXAMPLES = 20
EVERY = {name: option for role in ROLE_NAMES for name, option in options(role).items()}
HOST_OF = {"base": "app1", "cluster": "app1", "channels": "app1", "nginx": "lb1"} | {
    "postgres": "db1",
    "redis": "cache1",
}

# What is made


NASTY = [
    *("", " ", "-x", "--help", "a b", " a", "a ", "a\n", "a\nb", "a\tb", "a\r", "\x7f", "a;b"),
    *("a,b", "'", '"', "it's", 'say "x"', "$HOME", "${x}", "`id`", "%i", "%%", "100%", "\\"),
    *(
        "C:\\n",
        "#a",
        "{{ x }}",
        "{% x %}",
        "a=b",
        "größe",
        "\u2028",
        "🙂",
        "@",
        "*",
        "~",
        "/",
        "..",
    ),
    *("x" * 300, "null", "0", "-1", "1e3", "0x10", "True", "a}b", "a{b"),
]
# What YAML can hold.
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.one_of(st.sampled_from(NASTY), st.text(characters, max_size=30))
printable = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60)
others = st.sampled_from([None, True, False, 1.5, -1, 10**30, [], {}, ["a"], {"a": 1}])
labels = st.sampled_from(
    [
        "chat",
        "a",
        "A1",
        "x-y",
        "x--y",
        "-x",
        "x-",
        "_x",
        "x_y",
        "",
        "10",
        "0x1f",
        "xn--bcher-kva",
        "bücher",
        "x" * 63,
        "x" * 64,
    ]
)
host_names = st.lists(labels, min_size=1, max_size=4).map(".".join)
ip_addresses = st.one_of(
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda address: address.exploded.upper()),
    st.sampled_from(
        [
            "10.0.0.1",
            "10.0.0.300",
            "010.0.0.1",
            "10.0.0",
            "10.0.0.0/8",
            "0.0.0.0",
            "255.255.255.255",
            "127.0.0.1",
            "224.0.0.1",
            "::",
            "::1",
            "ff02::1",
            "fe80::1",
            "fe80::1%eth0",
            "1.2.3.4.5",
            "::ffff:10.0.0.1",
            "2001:DB8:0:0::10",
            "[2001:db8::10]",
            "2001:db8::10",
            "10.0.0.1:80",
            "2001:db8::1::2",
            "2001:db8:::1",
            "12345::1",
            "10.0.0.1 ",
            "1",
        ]
    ),
)
hosts = st.one_of(
    host_names,
    ip_addresses,
    host_names.map("{}.".format),
    host_names.map(".{}".format),
    host_names.map("*.{}".format),
    host_names.map("{}:8443".format),
    host_names.map("https://{}".format),
    texts,
)


def numbers(low: int, high: int) -> st.SearchStrategy[Any]:
    borders = [low - 1, low, high, high + 1, 0, -1, 2**31, 2**63, str(low), low + 0.5, True]
    return st.one_of(st.sampled_from(borders), st.integers(low, high), others)


def sizes(*units: str) -> st.SearchStrategy[Any]:
    made = st.builds(
        "{}{}".format, st.integers(0, 10**20) | st.integers(0, 500), st.sampled_from(units)
    )
    forms = [
        "1h30m",
        "10m",
        "-1",
        "1.5G",
        "1G 5M",
        "500 MB",
        "8 m",
        "+8m",
        "8M\n",
        "0",
        "08m",
        "٣m",
    ]
    return st.one_of(made, st.sampled_from(forms), st.integers(-1, 2**64), texts)


def mappings(keys: st.SearchStrategy[Any], values: st.SearchStrategy[Any]) -> Any:
    return st.dictionaries(keys, values, max_size=4)


def lists(elements: st.SearchStrategy[Any]) -> Any:
    return st.lists(elements, max_size=4)


secrets = st.one_of(
    printable.map(lambda text: (text + "0123456789abcdef" * 3)[:64]),
    printable,
    texts,
    st.sampled_from(["x" * 1000, "x" * 1001, "/+=" * 20, 1234567890123456 * 10**20]),
)
words = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_.-]{0,70}\Z")
names = st.one_of(
    words,
    words.map(str.lower),
    texts,
    st.sampled_from(["all", "replication", "sameuser", "template1", "postgres", "public", "none"]),
    st.sampled_from(["user", "pg_x", "default", "administrator", "root", "a" * 63, "a" * 55]),
    st.sampled_from(["a" * 31, "a" * 32, "www-data", "a$", "1a", "A", "a@b", "doadmin", "a.b"]),
)
modules = st.one_of(
    st.from_regex(r"\A[a-z_]{1,5}(\.[a-z_]{1,5}){0,2}(:[a-z_.]{1,8})?\Z"),
    texts,
    st.sampled_from(
        ["config", "a..b", ".a", "a.", "1a", "a:b", "a:b:c", ":b", "a:", "class", "a-b"]
    ),
    st.sampled_from(["config.asgi:application", "a:b.c", "a:b..c", "ä:b", "a.class:b"]),
)
paths = st.one_of(
    st.lists(st.sampled_from(["srv", "a b", "..", ".", "", "%i", "x-1", "ä", "-x", "$x"])).map(
        lambda parts: "/" + "/".join(parts)
    ),
    st.sampled_from(
        [
            "/srv/channels",
            "srv/x",
            "/",
            "/home/x",
            "/home",
            "/homes",
            "/root/x",
            "/run/x",
            "/tmp/x",
            "/var/tmp/x",
            "/var/run/x",
            "/opt/a.b_c",
            "/srv/x/",
            "//srv",
            "/srv/" + "x" * 190,
        ]
    ),
    texts,
)
url_paths = st.one_of(
    st.from_regex(r"\A/[A-Za-z0-9._~!$&'()*+,;=:@/?-]{0,12}(%[0-9A-F]{2})?\Z"),
    texts.map("/{}".format),
    texts,
    st.sampled_from(
        [
            "/",
            "/ws/chat/lobby/?token=a%20b&x='y'$z",
            "/a;b=1?",
            "/$HOME/${x}/$$/`id`",
            "/100%",
            "/%u",
            "/a#b",
            "//a",
            "/-/ready",
            "/-/probe/a/b/",
            "/-",
            "/[a]",
            "/größe",
            "/" + "x" * 1999,
            "/" + "x" * 2000,
            5,
            None,
        ]
    ),
)
checked_sockets = st.one_of(
    url_paths,
    st.fixed_dictionaries(
        {"path": url_paths},
        optional={
            "close": st.sampled_from([999, 1000, 1005, 1006, 1011, 1015, 3000, 4999, 5000, "4001"]),
            "status": st.sampled_from([299, 300, 403, 499, 500, True, "403"]),
            "subprotocol": st.sampled_from(["graphql-ws", "a b", "", "größe", "a,b", 5]),
            "headers": st.dictionaries(
                st.sampled_from(["X-Client", "Origin", "host", "X a", "", "Sec-WebSocket-Key"]),
                st.sampled_from(["probe", "it's $HOME", "", " a", "a\nb", "größe", 5]),
                max_size=2,
            ),
            "other": others,
        },
    ),
    st.sampled_from(
        [
            {"path": "/ws/", "close": 4001, "headers": {"X-Client": 'it\'s $HOME "x" %i'}},
            {"path": "/ws/", "status": 403, "subprotocol": "graphql-transport-ws"},
            {"close": 4001},
        ]
    ),
)
FIGURES = (
    "socket_kib",
    "edge_socket_kib",
    "worker_mib",
    "handshakes_per_second",
    "deliveries_per_second",
    "delivery_microseconds",
)
figure = st.fixed_dictionaries(
    {
        "low": st.sampled_from([0, 1, 2.5, "1"]),
        "value": st.sampled_from([3, 3.5, 3.5, True]),
        "high": st.sampled_from([3.5, 4, 4, 2, None]),
    }
)
good_figure = st.just({"low": 1, "value": 2.5, "high": 90})
figures = st.fixed_dictionaries(dict.fromkeys(FIGURES, good_figure)) | st.fixed_dictionaries(
    dict.fromkeys(FIGURES, good_figure | figure)
)
memories = st.sampled_from(
    [
        "infinity",
        "600M",
        "1G",
        "999999999G",
        "600",
        "0M",
        "50%",
        "1.5G",
        "600m",
        "-1M",
        "600M 1",
        "",
    ]
)
settings_of = mappings(
    st.one_of(
        st.sampled_from(["save", "hz", "appendonly", "port", "Port", "bind", "work_mem", "a.b"]),
        texts,
    ),
    st.one_of(
        st.sampled_from(
            ["yes", True, False, 10, '""', "900 1 300 10", '"a b', "it's", "a\nb c", None]
        ),
        texts,
    ),
)
instances = st.fixed_dictionaries(
    {
        "layer": st.fixed_dictionaries(
            {
                "port": st.sampled_from([6379, 6379, 6379, 6380, "6379"]),
                "password": st.just("a-secret-of-the-tests-and-nobody-else-layer"),
                "settings": st.sampled_from(
                    [
                        {},
                        {"appendonly": False},
                        {"save": '""'},
                        {"save": "900 1 300 10"},
                        {"save": ""},
                        {"hz": 20},
                        {"hz": "20\nport 1"},
                        {"port": 1},
                        {"hz": None},
                        {"proc-title-template": '"{title} x"'},
                        {"proc-title-template": '"{title}'},
                        {"logfile": "'a'b"},
                        {"logfile": '""'},
                        [],
                        {"a b": "c"},
                    ]
                ),
            }
        ),
        "broker": st.just(
            {
                "port": 6380,
                "password": "a-secret-of-the-tests-and-nobody-else-broker",
                "settings": {"appendonly": True},
            }
        ),
    },
    optional={
        "more": st.fixed_dictionaries(
            {
                "port": st.sampled_from([7000, 6379, 80]),
                "password": secrets,
                "settings": st.just({}),
            }
        )
    },
)
proxies = ip_addresses | st.sampled_from(
    [
        "10.0.1.0/24",
        "10.0.0.0/8",
        "fc00::/7",
        "2001:DB8::/32",
        "10.0.1.5/24",
        "0.0.0.0/0",
        "::/0",
        "0.0.0.0/1",
        "10.0.1.0/255.255.255.0",
        "10.0.1.0/",
        "::ffff:10.0.1.0/120",
    ]
)
guards = mappings(
    st.sampled_from(["channels", "postgres"]),
    st.fixed_dictionaries(
        {
            "ports": st.lists(st.integers(-1, 65537) | st.just("80"), max_size=3),
            "sources": st.lists(ip_addresses | st.just("10.0.0.1/255.0.0.0"), max_size=3),
        }
    ),
)
packages = st.lists(
    st.one_of(
        st.sampled_from(["htop", "nginx-*", "g++", "libc6:amd64", "curl=7.*", "-o", "a/b c", "A"]),
        texts,
    ),
    max_size=3,
)
process_names = st.sampled_from(["mail", "a-b_1", "x" * 40, "x" * 41, "A", "a b", "-a", "1", ""])
channels_of = lists(
    st.sampled_from(["thumbnails", "send-mail", "-x", ".x", "a.b", "a!b", "x" * 99, "x" * 100])
    | st.sampled_from(["ä", "%i", "a", "A", "a b", "a@b"])
    | texts
)
arguments_of = lists(texts)
made_processes = st.one_of(
    st.fixed_dictionaries(
        {"celery": st.sampled_from(["worker", "worker", "beat", "flower", True])},
        optional={
            "arguments": arguments_of,
            "concurrency": numbers(1, 64),
            "queues": lists(st.sampled_from(["mail", "a.b", "a,b", "a b"]) | texts),
        },
    ),
    st.fixed_dictionaries(
        {"runworker": channels_of},
        optional={
            "connected_to": lists(numbers(1, 65535)),
            "instances": numbers(1, 64),
            "once": st.booleans() | st.just("yes"),
        },
    ),
    st.fixed_dictionaries(
        {"manage": texts | st.sampled_from(["send --all", "say 'a b' $x %i", "--help", "'a", 5])},
        optional={"instances": numbers(1, 64), "queues": st.just(["a"])},
    ),
    st.fixed_dictionaries(
        {"command": st.lists(texts, max_size=3).map(lambda more: ["python", *more]) | arguments_of},
        optional={"once": st.booleans(), "celery": st.just("worker")},
    ),
    others,
)
MADE: dict[str, st.SearchStrategy[Any]] = {
    "base_firewall_enabled": st.booleans() | st.sampled_from(["yes", 1, None]),
    "base_journal_max_use": sizes("", "K", "M", "G", "T", "P", "E", "k", "MB"),
    "base_mounts": mappings(
        st.sampled_from(["/data", "/var/lib/postgresql", "data", "/a b", "/..", "/"]) | texts,
        st.sampled_from(["/dev/sdb", "/dev/disk/by-id/x", "sdb", "/dev/../x", None, 1]) | texts,
    ),
    "base_packages": packages,
    "base_sysctl": mappings(
        st.sampled_from(["net.core.somaxconn", "net/ipv4/ip_forward", "kernel", "-a.b", "a.*"])
        | texts,
        st.sampled_from([1, "1", "10240 65535", "a\tb", "", " ", True, None, "1\nkernel.x=1"])
        | texts,
    ),
    "channels_application": modules,
    "channels_archive_directory": st.sampled_from(
        ["a", "a b/c", "ä", "a/../b", "x" * 300, "file/x"]
    ),
    "channels_canary_seconds": numbers(0, 3600),
    "channels_celery_application": modules,
    "channels_drain_pace": numbers(1, 10000),
    "channels_memory_high": memories,
    "channels_memory_max": memories,
    "channels_drain_window": numbers(1, 3600),
    "channels_roll_limit": numbers(1, 99999)
    | st.integers(-1, 120).map("{}%".format)
    | st.sampled_from(["1.5%", "%", "20 %", "all", "1.5", True, None, ""]),
    "channels_environment": mappings(
        st.sampled_from(["A", "_a1", "1A", "A-B", "PYTHONPATH", "MAINPID", "A B", ""]) | texts,
        texts | st.sampled_from([5, 1.5, True, None, [], "x" * 131000, "x" * 131073]),
    ),
    "channels_check_paths": lists(url_paths),
    "channels_check_sockets": lists(checked_sockets),
    "channels_hooks": mappings(
        st.sampled_from(["before_migrate", "after_restart", "before_lunch"]),
        st.sampled_from(["tasks", "empty", "text", "broken", "mapping", "missing", "bare", None]),
    ),
    "cluster_figures": figures,
    "cluster_layer_capacity": numbers(1, 1000000),
    "cluster_layer_expiry": numbers(1, 86400),
    "cluster_layer_group_expiry": numbers(60, 31536000),
    "cluster_listen_backlog": numbers(128, 65535),
    "cluster_messages_per_second": numbers(0, 10000000),
    "cluster_room_size": numbers(1, 10000000),
    "cluster_sockets": numbers(1, 10000000),
    "cluster_sockets_per_worker": numbers(1, 65536 - 128),
    "cluster_spare_hosts": numbers(0, 0),
    "channels_probe_token": secrets | st.from_regex(r"\A[A-Za-z0-9._~-]{14,40}\Z"),
    "channels_processes": mappings(process_names, made_processes),
    "channels_ready_timeout": numbers(5, 600),
    "channels_settings_overlay": st.booleans() | st.sampled_from(["yes", 1, None]),
    "channels_releases_kept": numbers(2, 100),
    "channels_secret_key": secrets,
    "channels_secret_key_fallbacks": lists(secrets),
    "channels_settings_module": modules,
    "channels_source_excludes": lists(
        st.sampled_from(["*.pyc", "[a,b]", "a b", "-x", "a/b", "", None])
    ),
    "channels_stop_timeout": numbers(5, 3600),
    "channels_stream_grace": numbers(1, 3600),
    "channels_users": mappings(
        st.sampled_from(["ada", "a@b.c", "größe", 5]), texts | st.sampled_from([12345678, None])
    ),
    "channels_writable": lists(
        st.sampled_from(["media", "var/media", "var", "a b", "/media", "../x", ".", "x" * 201, ""])
    ),
    "channels_writable_store": paths | st.just("per-host"),
    "channels_websocket_max_size": numbers(65536, 134217728),
    "cluster_address": ip_addresses | host_names,
    "cluster_app_addresses": lists(ip_addresses),
    "cluster_database_pool_size": numbers(1, 100),
    "cluster_edge_addresses": lists(ip_addresses),
    "cluster_edge_http_port": numbers(1, 65535) | st.just(22),
    "cluster_edge_inside_port": numbers(1, 65535) | st.just(22),
    "cluster_edge_https_port": numbers(1, 65535) | st.just(22),
    "cluster_edge_urls": lists(
        st.builds(
            "{}{}{}".format,
            st.sampled_from(["http://", "https://", "ws://", "", "ftp://"]),
            st.sampled_from(
                ["10.0.0.1", "[2001:db8::1]", "2001:db8::1", "chat.example.org", "u:p@h"]
            )
            | hosts,
            st.sampled_from(["", ":80", ":0", ":65536", ":x", "/", "/a", "?a", "#a", ":"]),
        )
    ),
    "cluster_first_worker_port": numbers(1024, 65279),
    "cluster_guarded_ports": guards,
    "cluster_home": paths,
    "cluster_nofile": numbers(1024, 1048576),
    "cluster_package_files": mappings(
        st.just("postgres"), mappings(st.sampled_from(["/etc/x", "etc/x", "/etc/x/"]), texts)
    ),
    "cluster_packages": st.fixed_dictionaries(
        {name: st.just(["htop"]) | packages for name in ("postgres", "redis", "nginx")},
        optional={"channels": packages},
    ),
    "cluster_postgres_address": hosts,
    "cluster_postgres_database": names,
    "cluster_postgres_port": numbers(1024, 65535) | st.integers(1, 1023),
    "cluster_postgres_user": names,
    "cluster_proxy_protocol": st.booleans() | st.sampled_from(["yes", 1, None]),
    "cluster_redis_address": hosts,
    "cluster_redis_broker_address": hosts,
    "cluster_redis_broker_port": numbers(1024, 65535) | st.integers(1, 1023),
    "cluster_redis_layer_port": numbers(1024, 65535) | st.integers(1, 1023),
    "cluster_redis_tls": st.booleans() | st.sampled_from(["yes", 1, None]),
    "cluster_redis_user": names,
    "cluster_server_names": lists(hosts),
    "cluster_trusted_proxies": lists(proxies),
    "cluster_user": names,
    "cluster_workers": numbers(1, 256),
    "cluster_workers_per_host": numbers(1, 256),
    "nginx_acme_dns_hook": st.sampled_from(
        ["", "/usr/local/bin/hook", "hook", "/a b", "/a;b", "/a/", "/a/b-c_d.e", "/$x"]
    ),
    "nginx_client_max_body_size": sizes("", "k", "K", "m", "M", "g", "G", "mb"),
    "nginx_handshakes_burst": numbers(1, 1000),
    "nginx_handshakes_per_address": numbers(0, 1000000),
    "nginx_handshakes_per_address_burst": numbers(1, 2000),
    "nginx_handshakes_per_second": numbers(1, 1000000),
    "nginx_handshakes_per_worker": numbers(1, 10000),
    "nginx_hsts_max_age": numbers(0, 63072000),
    "nginx_keepalive_timeout": numbers(5, 3600),
    "nginx_local_port": numbers(1, 65535),
    "nginx_proxy_read_timeout": numbers(60, 604800),
    "nginx_real_ip_header": st.sampled_from(
        ["X-Forwarded-For", "CF-Connecting-IP", "x-real-ip", "Forwarded", "X_Real_IP", "Cookie"]
    )
    | texts,
    "nginx_redirect_to_https": st.booleans() | st.sampled_from(["yes", 1, None]),
    "nginx_retry_after": numbers(1, 300),
    "nginx_sockets_per_address": numbers(0, 65535),
    "nginx_socket_buffer_size": sizes("", "k", "m") | st.sampled_from(["1k", "2k", "4k", "64k"]),
    "nginx_static_cache_minutes": numbers(1, 525600),
    "nginx_worker_connections": numbers(64, 65535),
    "nginx_worker_shutdown_timeout": numbers(1, 604800),
    "postgres_max_connections": numbers(20, 10000),
    "postgres_password": secrets,
    "postgres_settings": settings_of,
    "redis_broker_password": secrets,
    "redis_instances": instances,
    "redis_layer_password": secrets,
    "redis_maxclients": numbers(100, 65504),
    "redis_pubsub_buffer_limit": sizes("", "k", "kb", "mb", "g", "tb"),
    "redis_maxmemory": sizes("", "b", "k", "kb", "KB", "m", "mb", "Mb", "g", "gb", "tb", "%"),
}
NOT_MADE = {
    "channels_allow_known_faults": "names that packing and examination alone know",
    "channels_build": "commands, which sh alone reads; before anything is changed",
    "channels_extras": "the application's own; before anything is changed",
    "channels_python": "uv alone knows which it can bring; before anything is changed",
    "channels_requirements": "a file of the application, which is looked for when it is packed",
    "channels_root": "a directory of the application, which is looked for when it is packed",
    "channels_source_includes": "paths of the application, which are looked for when it is packed",
    "channels_source_ref": "Git alone knows what it has; before anything is changed",
    "channels_source_token": "Git's server alone knows it; before anything is changed",
    "channels_layer": "a choice of four",
    "channels_server": "a choice of three",
    "channels_source": "a directory of this machine; the preflight itself looks at it",
    "cluster_acme_directory": "certbot alone reads it; a run reports what it says",
    "cluster_acme_email": "the certificate authority alone reads it; a run reports what it says",
    "cluster_tls": "a choice of three",
    "cluster_tls_days_left": "a number that the verification alone compares",
    "cluster_tls_enabled": "derived; an inventory that sets it is refused",
    "cluster_tls_names": "derived; an inventory that sets it is refused",
    "nginx_acme_arguments": "certbot alone knows its arguments; a run reports what it says",
    "nginx_tls_certificate": "a certificate, or a file of this machine; the preflight reads it",
    "nginx_tls_key": "a key, or a file of this machine; the preflight reads it",
    "cluster_database_connections": "derived; an inventory that sets it is refused",
    "cluster_postgres_login": "derived; an inventory that sets it is refused",
    "cluster_web_workers": "derived; an inventory that sets it is refused",
    "nginx_http_snippet": "lines of nginx.conf, which nginx alone reads; before they go live",
    "nginx_server_snippet": "lines of nginx.conf, which nginx alone reads; before they go live",
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> House:
    """A cluster that uses servers which others run."""
    return House(
        tmp_path_factory.mktemp("tenant"),
        own_servers=False,
        cluster_postgres_address="db.example.org",
        cluster_redis_address="cache.example.org",
    )


@pytest.fixture(scope="module")
def systemd() -> Systemd:
    return Systemd()


def host_of(name: str) -> str:
    return HOST_OF[name.split("_")[0]]


@cache
def made(name: str) -> list[Any]:
    """The values of an option; the same ones in each run."""
    found: list[Any] = []

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(MADE[name])
    def collect(value: Any) -> None:
        if repr(value) not in map(repr, found):
            found.append(value)

    collect()
    return found


@dataclass
class Judged:
    passed: list[Any]
    refused: list[Any]


def judged(house: House, name: str, change: Callable[[Any], Any] = lambda value: value) -> Judged:
    """What the preflight says of each value that is made of an option."""
    result = Judged([], [])
    for value in map(change, made(name)):
        wrong = house.problems(host_of(name), name, **{name: value})
        (result.refused if wrong else result.passed).append(value)
    assert result.passed, f"{name}: no value passes"
    assert result.refused, f"{name}: no value is refused"
    return result


def together(house: House, host: str, several: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Values of several options that pass, some of each at once."""
    columns = [judged(house, name).passed for name in several]
    for row in zip_longest(*columns):
        values = dict(zip(several, row, strict=True))
        yield {name: value for name, value in values.items() if value is not None}


def test_every_option_has_values_or_a_reason() -> None:
    assert set(MADE) & set(NOT_MADE) == set()
    assert set(EVERY) == set(MADE) | set(NOT_MADE)


def test_every_option_whose_values_are_made_is_read_by_something() -> None:
    source = Path(__file__).read_text().partition("# Who reads it")[2]
    assert [name for name in MADE if f'"{name}"' not in source and name not in source] == []


# Who reads it: the capacity table


@pytest.mark.parametrize(
    "name",
    [
        *("cluster_sockets", "cluster_spare_hosts", "cluster_messages_per_second"),
        *("cluster_room_size", "cluster_figures"),
    ],
)
def test_the_table_has_a_value_for_what_passed(house: House, name: str) -> None:
    text = "{{ cluster_capacity.values() | map(attribute='value') | list }}"
    for value in each(judged(house, name).passed):
        lines = house.render("app1", "channels", text, {name: value})
        assert len(lines) > 15
        assert all(line > 0 if isinstance(line, int | float) else line for line in lines), value


# Who reads it: the application, by systemd's environment file


def environment(house: House, systemd: Systemd, values: Mapping[str, Any]) -> dict[str, str]:
    content = house.file("app1", "channels", "application.env.j2", values)
    with tempfile.NamedTemporaryFile("w", suffix=".env") as file:
        file.write(content)
        file.flush()
        return systemd.environment(Path(file.name))


def django(read: Mapping[str, str]) -> dict[str, Any]:
    """The settings of the sample with an environment."""
    with patch.dict(os.environ, read, clear=True):
        return runpy.run_path(str(ROOT / "app" / "config" / "settings.py"))


# Of each option what the application has of it.
Reading = Callable[[Mapping[str, str], Mapping[str, Any]], Any]


def layer(found: Mapping[str, Any], key: str) -> Any:
    (server,) = found["CHANNEL_LAYERS"]["default"]["CONFIG"]["hosts"]
    return redis.ConnectionPool.from_url(server["address"]).connection_kwargs.get(key)


def limit(key: str) -> Reading:
    return lambda read, found: found["CHANNEL_LAYERS"]["default"]["CONFIG"][key]


def serving(key: str) -> Reading:
    return lambda read, found: getattr(ServingSettings.from_environment(read), key)


def database(key: str) -> Reading:
    return lambda read, found: found["DATABASES"]["default"][key]


def broker(key: str) -> Reading:
    return lambda read, found: parse_url(found["CELERY_BROKER_URL"])[key]


READINGS: dict[str, Reading] = {
    "channels_application": serving("application"),
    "channels_drain_pace": serving("drain_pace"),
    "channels_drain_window": serving("drain_window"),
    "channels_environment": lambda read, found: dict(read),
    "cluster_sockets_per_worker": serving("max_sockets"),
    "channels_probe_token": serving("probe_token"),
    "channels_secret_key": lambda read, found: found["SECRET_KEY"],
    "channels_secret_key_fallbacks": lambda read, found: found["SECRET_KEY_FALLBACKS"],
    "channels_settings_module": lambda read, found: read.get(
        "CHANNELS_KIT_SETTINGS", read["DJANGO_SETTINGS_MODULE"]
    ),
    "channels_settings_overlay": lambda read, found: "CHANNELS_KIT_SETTINGS" in read,
    "channels_stream_grace": serving("stream_grace"),
    "cluster_layer_capacity": limit("capacity"),
    "cluster_layer_expiry": limit("expiry"),
    "cluster_layer_group_expiry": limit("group_expiry"),
    "cluster_database_pool_size": lambda read, found: found["DATABASES"]["default"]["OPTIONS"][
        "pool"
    ]["max_size"],
    "postgres_password": database("PASSWORD"),
    "redis_broker_password": broker("password"),
    "redis_layer_password": lambda read, found: layer(found, "password"),
}
# What the release says where the inventory says nothing.
FOUND = {"channels_application": "application", "channels_settings_module": "settings_module"}
TENANT_READINGS: dict[str, Reading] = {
    "cluster_postgres_address": database("HOST"),
    "cluster_postgres_database": database("NAME"),
    "cluster_postgres_port": database("PORT"),
    "cluster_postgres_user": database("USER"),
    "cluster_redis_address": lambda read, found: layer(found, "host"),
    "cluster_redis_broker_address": broker("hostname"),
    "cluster_redis_broker_port": broker("port"),
    "cluster_redis_layer_port": lambda read, found: layer(found, "port"),
    "cluster_redis_tls": lambda read, found: found["CELERY_BROKER_URL"].startswith("rediss://"),
    "cluster_redis_user": lambda read, found: layer(found, "username"),
}


def canonical(address: str) -> str:
    try:
        return str(ip_address(address))
    except ValueError:
        return address


def same(name: str, wanted: Any, read: Any) -> bool:
    if name == "channels_environment":
        return {key: read.get(key) for key in wanted} == {
            key: str(each) for key, each in wanted.items()
        }
    if name.endswith("_address"):
        # A name is the same in any case, and an IPv6 address in any spelling.
        return str(read).lower() == str(canonical(wanted)).lower()
    if name in FOUND and wanted == "":
        return bool(read == RELEASE[FOUND[name]])
    return bool(read == wanted)


@pytest.mark.parametrize("whose", ["own", "tenant"])
def test_the_application_reads_what_passed(
    house: House, tenant: House, systemd: Systemd, whose: str
) -> None:
    readings, cluster = (READINGS, house) if whose == "own" else (TENANT_READINGS, tenant)
    count = 0
    for values in together(cluster, "app1", list(readings)):
        read = environment(cluster, systemd, values)
        found = django(read)
        for name, value in values.items():
            got = readings[name](read, found)
            assert same(name, value, got), f"{name}: {value!r} is read as {got!r}"
            count += 1
    assert count > 4 * len(readings)


@pytest.mark.parametrize("name", ["channels_environment"])
def test_a_variable_that_is_refused_is_not_read_or_a_policy(
    house: House, systemd: Systemd, name: str
) -> None:
    def policy(value: Mapping[str, Any]) -> bool:
        """What the units set themselves; what is no text; control characters that nobody means."""
        return any(
            key in {"PYTHONPATH", "MAINPID"}
            or not isinstance(each, (str, int, float))
            or isinstance(each, bool)
            or re.search(r"[\x00-\x08\x0b-\x1f\x7f]", str(each))
            # The kernel takes none that is longer: execve(2).
            or len(str(each)) >= 131000
            for key, each in value.items()
        )

    for value in judged(house, name).refused:
        if isinstance(value, dict) and value and not policy(value):
            read = environment(house, systemd, {name: value})
            assert {key: read.get(str(key)) for key in value} != value


# Who reads it: the proof, by the shell's host.conf


CHECKS = ["channels_check_paths", "channels_check_sockets"]


def test_the_proof_reads_what_passed(house: House, tmp_path: Path) -> None:
    file = tmp_path / "host.conf"
    for values in together(house, "app1", CHECKS):
        file.write_text(house.file("app1", "channels", "host.conf.j2", values))
        read = run("sh", "-euc", '. "$1"; printf %s "$CHANNELS_CHECKS"', "sh", file)
        assert read.returncode == 0, read.stderr
        told = json.loads(read.stdout)
        assert told["pages"] == values.get("channels_check_paths", ["/"])
        assert told["sockets"] == values.get("channels_check_sockets", [])
        assert told["site"] == "http://chat.example.org"
        checks = Checks.from_json(read.stdout)
        assert list(checks.pages) == list(dict.fromkeys(told["pages"]))
        assert set(checks.sockets) == {SocketCheck.parse(each) for each in told["sockets"]}


@pytest.mark.parametrize("name", CHECKS)
def test_what_the_proof_would_not_read_is_refused(house: House, name: str) -> None:
    """And nothing else: the rule of the preflight and that of the proof are one."""
    key = {"channels_check_paths": "pages", "channels_check_sockets": "sockets"}[name]
    for value in each(judged(house, name).refused):
        with pytest.raises(UsageError):
            Checks.from_json(json.dumps({key: value}))


# Who reads it: Django, the Origin check and nginx, about the names of the site


def browsers_form(name: str) -> list[str]:
    """The hosts that a browser would ask for."""
    bare = name.removeprefix("[").removesuffix("]")
    try:
        address = ip_address(bare)
    except ValueError:
        name = name.lower()
        return [f"www{name}", name[1:]] if name.startswith(".") else [name]
    return [f"[{address}]" if address.version == 6 else str(address)]


def lets_in(allowed: list[str], host: str, port: str) -> bool:
    """Whether Django takes a request, and Channels a handshake of its page."""
    domain, _ = split_domain_port(f"{host}{port}")
    origin = OriginValidator(None, allowed)
    return bool(
        domain
        and validate_host(domain, allowed)
        and origin.valid_origin(urlparse(f"http://{host}{port}"))
    )


@pytest.fixture(scope="module")
def edge(house: House, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    directory = tmp_path_factory.mktemp("nginx")

    def judge(host: str = "lb1", **values: Any) -> str:
        """What nginx says of its configuration with these values; nothing if it takes them."""
        content = house.file(host, "nginx", "nginx.conf.j2", values, _nginx_generation="0")
        return judge_content(content)

    def judge_content(content: str) -> str:
        assert NGINX
        for old, new in {
            "user www-data;": "user root;" if os.geteuid() == 0 else "",
            "/run/nginx.pid": f"{directory}/nginx.pid",
            "/var/log/nginx/": f"{directory}/",
            "/var/lib/nginx/": f"{directory}/",
            **({"/etc/nginx/tls/": f"{directory}/tls/"} if "ssl_certificate" in content else {}),
        }.items():
            assert old in content
            content = content.replace(old, new)
        file = directory / "nginx.conf"
        file.write_text(content)
        ended = run(NGINX, "-t", "-q", "-c", file, "-p", directory, "-e", directory / "error.log")
        return "" if ended.returncode == 0 else ended.stderr or "refused"

    return judge


def test_a_name_that_passes_is_served_to_the_end(
    house: House, systemd: Systemd, edge: Callable[..., str]
) -> None:
    taken = judged(house, "cluster_server_names", lambda names: names or ["localhost"]).passed
    single = [
        name
        for name in [
            "2001:DB8:0::10",
            "[2001:db8::10]",
            "10.0.0.1",
            ".example.org",
            "Chat.example",
            "localhost",
            "a.b.c",
            ".".join(["x" * 60] * 4),
            *chain(*made("cluster_server_names")),
        ]
        if not house.problems("app1", "cluster_server_names", cluster_server_names=[name])
    ]
    assert len(single) > 12
    for names in [*taken, single]:
        allowed = environment(house, systemd, {"cluster_server_names": names})["ALLOWED_HOSTS"]
        listed = django({"ALLOWED_HOSTS": allowed})["ALLOWED_HOSTS"]
        for name in names:
            for host in browsers_form(name):
                for port in ("", ":8080"):
                    assert lets_in(listed, host, port), f"{name!r}: {host}{port}"
        assert edge(cluster_server_names=names) == "", names


def test_a_name_that_is_refused_is_not_served_or_a_policy(
    house: House, systemd: Systemd, edge: Callable[..., str]
) -> None:
    def policy(name: str) -> bool:
        """No host name by RFC 1123, which no resolver gives an address; no address to reach."""
        labels = name.removeprefix(".").split(".")
        return not all(re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)", each) for each in labels)

    looked = 0
    for name in {str(name) for names in made("cluster_server_names") for name in names}:
        if house.problems("app1", "cluster_server_names", cluster_server_names=[name]):
            if policy(name) or re.fullmatch(r"[\[\]0-9A-Fa-fx.:%]*", name):
                continue
            looked += 1
            read = environment(house, systemd, {"cluster_server_names": [name]})
            try:
                listed = django(read)["ALLOWED_HOSTS"]
            except ImproperlyConfigured:
                continue
            served = all(lets_in(listed, host, "") for host in browsers_form(name))
            assert not served or edge(cluster_server_names=[name]), name


# Who reads it: nginx


NGINX_OPTIONS = [
    *("nginx_client_max_body_size", "nginx_handshakes_per_worker", "nginx_local_port"),
    *("nginx_proxy_read_timeout", "nginx_retry_after", "nginx_static_cache_minutes"),
    *("nginx_worker_connections", "nginx_worker_shutdown_timeout", "cluster_edge_http_port"),
    *("nginx_handshakes_burst", "cluster_first_worker_port", "nginx_real_ip_header"),
    *("nginx_handshakes_per_address", "nginx_handshakes_per_address_burst"),
    *("nginx_sockets_per_address", "nginx_keepalive_timeout", "cluster_trusted_proxies"),
    *("cluster_listen_backlog", "nginx_socket_buffer_size"),
]


def test_nginx_takes_what_passed(house: House, edge: Callable[..., str]) -> None:
    for values in together(house, "lb1", NGINX_OPTIONS):
        # Of two that are too much for each other the preflight says so.
        if not house.problems("lb1", **values):
            assert edge(**values) == "", values


@pytest.mark.parametrize("protocol", [False, True])
def test_nginx_takes_the_proxies_that_passed(
    house: House, edge: Callable[..., str], protocol: bool
) -> None:
    names = ["cluster_trusted_proxies", "cluster_edge_inside_port"]
    for values in together(house, "lb1", names):
        values["cluster_proxy_protocol"] = protocol
        if not house.problems("lb1", **values):
            assert edge(**values) == "", values


@pytest.mark.parametrize("name", ["cluster_nofile", "nginx_handshakes_per_second"])
def test_nginx_takes_what_passed_alone(house: House, edge: Callable[..., str], name: str) -> None:
    for value in each(judged(house, name).passed):
        if not house.problems("lb1", **{name: value}):
            assert edge(**{name: value}) == "", value


def test_nginx_takes_a_snippet_that_sets_the_size_of_names(edge: Callable[..., str]) -> None:
    """As people had to before the kit did: nginx refuses a directive that stands there twice."""
    assert edge(nginx_http_snippet="server_names_hash_bucket_size 128;") == ""


@pytest.mark.parametrize("name", ["cluster_workers", "cluster_workers_per_host"])
def test_nginx_takes_as_many_workers_as_passed(
    house: House, edge: Callable[..., str], name: str
) -> None:
    for value in each(judged(house, name).passed):
        workers = house.render("app1", "nginx", "{{ cluster_web_workers | length }}", {name: value})
        assert workers == value
        assert edge("app1", **{name: value}) == ""


def test_nginx_refuses_a_size_that_is_refused(house: House, edge: Callable[..., str]) -> None:
    for value in each(judged(house, "nginx_client_max_body_size").refused):
        # White space, quotes and semicolons around it: nginx reads another value than was written.
        if isinstance(value, int) or (value and re.fullmatch(r"[\w.+-]+", value)):
            assert edge(nginx_client_max_body_size=value) != "", value


TLS_OPTIONS = [
    *("cluster_edge_https_port", "nginx_hsts_max_age", "nginx_redirect_to_https"),
    "cluster_server_names",
]


@pytest.mark.parametrize("tls", ["acme", "files"])
def test_nginx_takes_what_passed_with_tls(
    house: House, edge: Callable[..., str], tmp_path_factory: pytest.TempPathFactory, tls: str
) -> None:
    (place,) = tmp_path_factory.getbasetemp().glob("nginx[0-9]*")
    pair = Store(place / "tls").put(*make("chat.example.org"))
    for values in together(house, "lb1", TLS_OPTIONS):
        if not house.problems("lb1", **values):
            with_tls = {**values, "cluster_tls": tls, "_nginx_certificate": {"id": pair}}
            assert edge(**with_tls) == "", values


def test_a_shell_takes_the_hook_as_one_word(house: House) -> None:
    for value in judged(house, "nginx_acme_dns_hook").passed:
        assert shlex.split(f"{value} present") == ([value] if value else []) + ["present"]


# Who reads it: systemd


UNIT_OPTIONS = [
    *("channels_memory_high", "channels_memory_max"),
    *("channels_celery_application", "channels_ready_timeout", "channels_stop_timeout"),
    *("channels_websocket_max_size", "channels_processes", "cluster_home", "cluster_user"),
    *("channels_writable", "channels_writable_store"),
    *("cluster_nofile", "cluster_edge_addresses", "cluster_address"),
]
RELEASE_OF_CELERY = {**RELEASE, "celery": "config"}


def verify(
    house: House, rows: Sequence[Mapping[str, Any]], directory: Path
) -> list[tuple[str, list[Any]]]:
    """What systemd says of the units with the values of each row, and what is in them."""
    written: list[list[Path]] = []
    for number, values in enumerate(rows):
        written.append([])
        unit_files = house.render(
            "app1",
            "channels",
            "{{ _channels_unit_files }}",
            values,
            channels_release=RELEASE_OF_CELERY,
        )
        for name, content in unit_files.items():
            # Of the units alone; that the programs are there is another matter.
            content = re.sub(r"(?m)^(Exec\w+=)/\S+", r"\1/bin/true", content)
            file = directory / name.replace("channels-", f"channels-{number}-")
            file.write_text(content.replace("@REVISION@", "0"))
            written[-1].append(file)
    files = [file for row in written for file in row]
    ended = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *files)
    lines = ended.stderr.splitlines()
    return [
        (
            "\n".join(line for line in lines if any(file.name in line for file in row)),
            [parse_unit(file.read_text()) for file in row],
        )
        for row in written
    ]


def test_systemd_takes_what_passed(house: House, tmp_path: Path) -> None:
    rows = [
        values
        for values in together(house, "app1", UNIT_OPTIONS)
        if not house.problems("app1", **values)
    ]
    assert len(rows) > 5
    for values, (said, units) in zip(rows, verify(house, rows, tmp_path), strict=True):
        assert said == "", values
        for unit in units:
            service = unit["Service"]
            if "cluster_home" in values:
                assert service["WorkingDirectory"] == [
                    f"{values['cluster_home']}/releases/0123456789ab/app"
                ]
            if "cluster_user" in values:
                assert service["User"] == [values["cluster_user"]]


def test_systemd_refuses_a_home_that_is_refused(house: House, tmp_path: Path) -> None:
    def policy(value: str) -> bool:
        """What stands unquoted in units and in files of the shell; what the units do not see."""
        return (
            not re.fullmatch(r"[A-Za-z0-9._/-]+", value)
            or re.match("/(dev|home|proc|root|run|sys|tmp|var/run|var/tmp)(/|$)", value) is not None
            # The release is below it, and ways that differ in the text only are one directory.
            or value != os.path.normpath(value)
            or value.startswith("//")
            or value == "/"
            or len(value) > 200
        )

    homes = [
        {"cluster_home": value}
        for value in [*judged(house, "cluster_home").refused, "srv/x"]
        if isinstance(value, str) and not policy(value)
    ]
    for values, (said, _) in zip(homes, verify(house, homes, tmp_path), strict=True):
        assert said, values


def test_a_user_that_passes_is_one_for_useradd_and_systemd(
    house: House, systemd: Systemd, tmp_path: Path
) -> None:
    (tmp_path / "etc").mkdir()
    for file in ("passwd", "group", "shadow", "gshadow"):
        (tmp_path / "etc" / file).touch()

    def taken(name: str) -> bool:
        strict: bool = systemd.library.valid_user_group_name(name.encode(), 0)
        made_group = run("groupadd", "--prefix", tmp_path, "--system", "--", name).returncode == 0
        added = ["useradd", "--prefix", str(tmp_path), "--system", "--no-create-home"]
        made_user = run(*added, "--gid", name, "--", name).returncode == 0
        return strict and made_group and made_user

    both = judged(house, "cluster_user")
    for name in set(both.passed):
        assert taken(name), name
    for name in both.refused:
        if isinstance(name, str) and "\n" not in name:
            # Capitals: useradd of Debian takes them, that of others and adduser do not.
            assert not taken(name) or name == "root" or name != name.lower(), name


def test_a_process_that_passes_is_run_as_it_was_written(house: House, systemd: Systemd) -> None:
    looked = 0
    nasty = [{"x": {"command": ["python", text]}} for text in NASTY]
    nasty = [
        each
        for each in nasty
        if not house.problems("app1", "channels_processes", channels_processes=each)
    ]
    for processes in [*judged(house, "channels_processes").passed, *nasty]:
        found = house.render(
            "app1",
            "channels",
            "{{ _channels_unit_files }}",
            {"channels_processes": processes},
            channels_release=RELEASE_OF_CELERY,
        )
        units = house.render(
            "app1", "channels", "{{ _channels_wanted_units }}", {"channels_processes": processes}
        )
        for unit in units:
            assert systemd.unit_name(unit["name"]), unit
            assert len(unit["label"]) <= 100
        for name, process in processes.items():
            several = "@" if process.get("instances", 1) > 1 else ""
            service = parse_unit(found[f"channels-process-{name}{several}.service"])["Service"]
            words = systemd_words(service["ExecStart"][0])
            given = process.get("arguments", process.get("runworker", process.get("command", [])))
            if "manage" in process:
                given = shlex.split(process["manage"])
            if "command" in process:
                given = given[1:]
            looked += len(given)
            assert [word for word in given if word not in words] == [], service["ExecStart"]
    assert looked > 30


def systemd_words(line: str) -> list[str]:
    """The words of a command line as systemd has them; no specifier and no variable is in it."""
    words: list[str] = []
    for quoted, plain in re.findall(r'"((?:\\.|[^"\\])*)"|(\S+)', line):
        text = plain or re.sub(r"\\(.)", r"\1", quoted)
        rest = text.replace("%%", "").replace("$$", "")
        assert not re.search(r"[%$]", rest.replace("%i", "")), line
        words.append(text.replace("%%", "%").replace("$$", "$"))
    return words


def test_a_channel_that_passes_is_a_channel(house: House) -> None:
    for name in each(["thumbnails", "-x", ".x", "a!b", "x" * 99, "x" * 100, "ä", "a b", "a@b", ""]):
        processes = {"mail": {"runworker": [name]}}
        wrong = house.problems("app1", "channels_processes", channels_processes=processes)
        try:
            valid = bool(BaseChannelLayer().require_valid_channel_name(name))
        except TypeError:
            valid = False
        assert valid == (not wrong), name


def test_the_journal_takes_a_size_that_passes(house: House, systemd: Systemd) -> None:
    both = judged(house, "base_journal_max_use")
    for value in each(both.passed):
        file = house.file("app1", "base", "journald.conf.j2", {"base_journal_max_use": value})
        assert systemd.size(parse_unit(file)["Journal"]["SystemMaxUse"][0]), value
    for value in each(both.refused):
        # One number: no fraction, no sum, no spaces, no B.
        if re.fullmatch(r"[0-9]+[A-Za-z]?", str(value)) and not str(value).endswith("B"):
            assert not systemd.size(str(value)), value


# Who reads it: Redis


def redis_takes(house: House, directory: Path, instance: str, **values: Any) -> dict[str, str]:
    """What Redis has of its settings; nothing if it refuses them."""
    content = house.file("cache1", "redis", "redis.conf.j2", values, item=instance)
    socket = directory / "redis.sock"
    lines = [
        line
        for line in content.splitlines()
        # Where it listens and what it keeps is another matter.
        if not line.startswith(("bind ", "port ", "aclfile ", "dir ", "supervised "))
    ]
    lines += [f"dir {directory}", "port 0", f"unixsocket {socket}", 'logfile ""']
    file = directory / "redis.conf"
    file.write_text("\n".join(lines) + "\n")
    with subprocess.Popen(
        ["redis-server", file], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        client = redis.Redis(unix_socket_path=str(socket), retry=Retry(NoBackoff(), 0))
        try:
            while server.poll() is None:
                try:
                    found: Any = client.config_get("*")
                except redis.ConnectionError:
                    time.sleep(0.01)
                else:
                    return dict(found)
            return {}
        finally:
            client.close()
            server.kill()


def test_redis_has_the_memory_that_passes(house: House, tmp_path: Path) -> None:
    both = judged(house, "redis_maxmemory")
    for value in each([*both.passed[:5], "256MB", "1g"]):
        assert not house.problems("cache1", "redis_maxmemory", redis_maxmemory=value)
        number, unit = re.fullmatch(r"(\d+)(\w*)", str(value)).groups()  # type: ignore[union-attr]
        found = redis_takes(house, tmp_path, "layer", redis_maxmemory=value)
        assert int(found["maxmemory"]) == int(number) * REDIS_UNITS[unit.lower()], value
    for value in each([value for value in both.refused if re.fullmatch(r"\d+\w*", str(value))][:6]):
        found = redis_takes(house, tmp_path, "layer", redis_maxmemory=value)
        number = re.match(r"\d+", str(value))[0]  # type: ignore[index]
        # It is refused, or is another number than was written, or is too little to start with.
        assert not found or int(found["maxmemory"]) < max(int(number), 16 * 10**6), value


def test_redis_has_the_buffer_that_passes(house: House, tmp_path: Path) -> None:
    for value in each([*judged(house, "redis_pubsub_buffer_limit").passed[:4], "64mb"]):
        found = redis_takes(house, tmp_path, "layer", redis_pubsub_buffer_limit=value)
        number, unit = re.fullmatch(r"(\d+)(\w*)", str(value)).groups()  # type: ignore[union-attr]
        size = int(number) * REDIS_UNITS[unit.lower()]
        assert f"pubsub {size} 0 0" in found["client-output-buffer-limit"], value


def test_redis_takes_the_instances_that_pass(house: House, tmp_path: Path) -> None:
    both = judged(house, "redis_instances")
    for value in each(both.passed[:6]):
        for name in value:
            assert redis_takes(house, tmp_path, name, redis_instances=value), value[name]
    quiet = {"redis_instances": {**both.passed[0]}}
    quiet["redis_instances"]["layer"] = {
        **quiet["redis_instances"]["layer"],
        "settings": {"appendonly": False},
    }
    assert redis_takes(house, tmp_path, "layer", **quiet)["appendonly"] == "no"


def test_redis_has_the_clients_that_pass(house: House, tmp_path: Path) -> None:
    for value in each(judged(house, "redis_maxclients").passed[:4]):
        assert redis_takes(house, tmp_path, "layer", redis_maxclients=value)


# Who reads it: nft


@pytest.mark.parametrize(
    "name",
    [
        "base_firewall_enabled",
        "cluster_guarded_ports",
        "cluster_app_addresses",
        "cluster_edge_addresses",
    ],
)
def test_nft_takes_what_passed(house: House, tmp_path: Path, name: str) -> None:
    assert shutil.which("nft", path=f"{os.environ['PATH']}:/usr/sbin")
    for value in each(judged(house, name).passed):
        content = house.file("app1", "base", "firewall.nft.j2", {name: value})
        file = tmp_path / "rules.nft"
        file.write_text(content)
        ended = run("nft", "--check", "--file", file)
        assert ended.returncode == 0, f"{value}: {ended.stderr}"


# Who reads it: PostgreSQL


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    with directory_of_postgres() as directory:
        server = Server(directory)
        server.start()
        yield server
        server.stop()


def sql(server: Server, *statements: str) -> "list[str] | None":
    """The lines of the answer; None if the server refuses one."""
    ended = run(*server.psql(), "-v", "ON_ERROR_STOP=1", input=";\n".join(statements) + ";")
    return ended.stdout.rstrip("\n").split("\n") if ended.returncode == 0 else None


def quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


@pytest.mark.parametrize("name", ["cluster_postgres_user", "cluster_postgres_database"])
def test_postgres_has_the_role_and_the_database_that_pass(
    house: House, postgres: Server, name: str
) -> None:
    for value in each(sorted(set(judged(house, name).passed) | {"all", "user"})):
        values = {name: value}
        assert not house.problems("db1", name, **values)
        login = house.render("app1", "channels", "{{ cluster_postgres_login }}", values)
        user = house.render("app1", "channels", "{{ cluster_postgres_user }}", values)
        assert sql(
            postgres,
            f"CREATE ROLE {quoted(user)}",
            f"CREATE ROLE {quoted(login)} LOGIN IN ROLE {quoted(user)}",
            f"SELECT rolname FROM pg_roles WHERE rolname IN ('{user}', '{login}') ORDER BY 1",
            f"DROP ROLE {quoted(user)}, {quoted(login)}",
        ) == sorted([user, login])
        rules = house.file("db1", "postgres", "pg_hba.conf.j2", values)
        former = postgres.rules.read_text()
        postgres.rules.write_text(former + rules)
        try:
            found = sql(
                postgres,
                "SELECT database[1], user_name[1], address, error FROM pg_hba_file_rules"
                " WHERE auth_method = 'scram-sha-256' OR error IS NOT NULL",
            )
        finally:
            postgres.rules.write_text(former)
        database = house.render("app1", "channels", "{{ cluster_postgres_database }}", values)
        assert found == [f"{database}|+{user}|10.0.0.1|"] or found == [
            f'"{database}"|+{user}|10.0.0.1|'
        ], value


def test_postgres_takes_the_rules_of_addresses_that_pass(house: House, postgres: Server) -> None:
    for value in each([value for value in judged(house, "cluster_app_addresses").passed if value]):
        rules = house.file("db1", "postgres", "pg_hba.conf.j2", {"cluster_app_addresses": value})
        former = postgres.rules.read_text()
        postgres.rules.write_text(former + rules)
        try:
            found = sql(
                postgres, "SELECT line_number FROM pg_hba_file_rules WHERE error IS NOT NULL"
            )
        finally:
            postgres.rules.write_text(former)
        assert found == [""], value


def test_postgres_reads_its_settings_as_they_were_written(house: House, postgres: Server) -> None:
    texts_of = [text for text in NASTY if "\n" not in text and text] + [
        "a\nb",
        "\\'",
        "''",
        "\\\\n",
    ]
    settings_of = {f"kit.s{number}": text for number, text in enumerate(texts_of)}
    assert not house.problems("db1", "postgres_settings", postgres_settings=settings_of)
    for values in [settings_of, *judged(house, "postgres_settings").passed]:
        content = house.file("db1", "postgres", "postgresql.conf.j2", {"postgres_settings": values})
        file = postgres.directory / "checked.conf"
        file.write_text(content)
        file.chmod(0o644)
        found = sql(
            postgres,
            "SELECT name || '=' || replace(setting, E'\\n', E'\\x01')"
            " FROM pg_show_all_file_settings() WHERE false",
        )
        assert found == [""]
        lines = content.splitlines()
        assert len([line for line in lines if " = " in line]) >= len(values)
    former = postgres.settings.read_text()
    postgres.settings.write_text(
        house.file("db1", "postgres", "postgresql.conf.j2", {"postgres_settings": settings_of})
    )
    try:
        answer = sql(
            postgres,
            "SELECT to_json(setting) FROM pg_file_settings WHERE name LIKE 'kit.s%' ORDER BY seqno",
        )
    finally:
        postgres.settings.write_text(former)
    assert [json.loads(line) for line in answer or []] == list(settings_of.values())


@pytest.mark.parametrize("name", ["postgres_max_connections", "cluster_postgres_port"])
def test_postgres_takes_the_number_that_passes(house: House, tmp_path: Path, name: str) -> None:
    setting = {"postgres_max_connections": "max_connections", "cluster_postgres_port": "port"}[name]
    for value in each(judged(house, name).passed):
        file = tmp_path / "postgresql.conf"
        file.write_text(house.file("db1", "postgres", "postgresql.conf.j2", {name: value}))
        ended = run(POSTGRES / "postgres", "-C", setting, "-D", tmp_path, f"--config-file={file}")
        assert ended.stdout.strip() == str(value), ended.stderr


# Who reads it: the programs of the controller and the packages' tools


def test_the_proof_takes_the_urls_that_pass(house: House) -> None:
    both = judged(house, "cluster_edge_urls")
    assert [] in both.refused
    for url in each([url for urls in both.passed for url in urls]):
        assert check_base(url) == url


def test_dpkg_takes_the_packages_that_pass(house: House) -> None:
    found = [*judged(house, "base_packages").passed]
    found += [[*chain(*value.values())] for value in judged(house, "cluster_packages").passed]
    for packages_of in each([value for value in found if value]):
        ended = run("dpkg-query", "--show", "--showformat=x", *packages_of)
        assert ended.returncode in (0, 1), ended.stderr


def test_sysctl_reads_the_settings_that_pass(house: House, tmp_path: Path) -> None:
    file = tmp_path / "sysctl.conf"
    for value in each([value for value in judged(house, "base_sysctl").passed if value]):
        file.write_text(house.file("app1", "base", "sysctl.conf.j2", {"base_sysctl": value}))
        ended = run("sysctl", "--dry-run", f"--load={file}")
        known = {key: each for key, each in value.items() if key.startswith("net")}
        printed = {
            line.partition(" = ")[0].replace("/", "."): line.partition(" = ")[2]
            for line in ended.stdout.splitlines()
        }
        for key, setting in known.items():
            assert printed[key.replace("/", ".")] == str(setting).strip(), value


def test_the_users_that_pass_reach_the_application(house: House) -> None:
    for value in each(judged(house, "channels_users").passed):
        sent = house.render(
            "app1", "channels", "{{ channels_users | to_json }}", {"channels_users": value}
        )
        assert parse_users(str(sent)) == value


def test_hooks_that_pass_are_lists_of_tasks(house: House, tmp_path: Path) -> None:
    contents = {
        "tasks": "---\n- name: A\n  ansible.builtin.debug:\n    msg: !unsafe x\n",
        "empty": "[]\n",
        "text": "root:x:0:0\n",
        "broken": "- a: [\n",
        "mapping": "a: 1\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)

    def change(value: Mapping[str, Any]) -> dict[str, Any]:
        """Lists of files, but for some."""
        return {
            hook: file if file in (None, "bare") else [str(tmp_path / file)]
            for hook, file in value.items()
        }

    both = judged(house, "channels_hooks", change)
    for value in each(both.passed):
        assert "before_lunch" not in value
        for file in chain(*value.values()):
            assert isinstance(house.loader.load_from_file(file), list)
    for value in each(both.refused):
        assert "before_lunch" in value or any(
            not isinstance(files, list)
            or files[0].endswith(("text", "broken", "mapping", "missing"))
            for files in value.values()
        )


def test_a_directory_that_passes_can_be_made(house: House, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    both = judged(house, "channels_archive_directory", lambda name: f"{tmp_path}/{name}")
    for value in each(both.passed):
        Path(value).mkdir(parents=True, exist_ok=True)
    for value in each(both.refused):
        with pytest.raises(OSError, match=r"Not a directory|too long"):
            Path(value).mkdir(parents=True, exist_ok=True)
    assert house.problems("app1", "channels_archive_directory", channels_archive_directory="here")


def test_fstab_has_the_mounts_that_pass(house: House, tmp_path: Path) -> None:
    table = tmp_path / "fstab"
    for value in each(judged(house, "base_mounts").passed):
        table.write_text(
            "".join(f"{device} {path} ext4 defaults 0 0\n" for path, device in value.items())
        )
        command = [
            "findmnt",
            "--tab-file",
            str(table),
            "--json",
            "--list",
            "--output",
            "TARGET,SOURCE",
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        found = json.loads(result.stdout or '{"filesystems": []}')["filesystems"]
        assert {each["target"]: each["source"] for each in found} == value


def test_patterns_that_pass_are_read_one_by_one(house: House) -> None:
    for value in each(judged(house, "channels_source_excludes").passed):
        sent = house.render(
            "app1", "channels", '{{ channels_source_excludes | join(",") }}',
            {"channels_source_excludes": value},
        )  # fmt: skip
        assert str(sent).split(",") == (value or [""])


@pytest.mark.parametrize("name", ["channels_canary_seconds", "channels_releases_kept"])
def test_a_number_for_a_module_is_a_number(house: House, name: str) -> None:
    for value in each(judged(house, name).passed):
        assert type(value) is int


def test_a_limit_that_passes_is_a_number_of_workers(house: House) -> None:
    values = judged(house, "channels_roll_limit")
    assert {1, 20, 4} <= {
        roll_limit(value, 20) for value in [*each(values.passed), "1", "100%", "20%"]
    }
    assert all(roll_limit(value, 20) >= 1 for value in each(values.passed))
    for value in ("1.5%", "%", "all", None, True):
        assert house.problems("app1", "channels_roll_limit", channels_roll_limit=value), value


def test_a_file_of_a_package_holds_what_passes(house: House) -> None:
    for groups in each(judged(house, "cluster_package_files").passed):
        for files in groups.values():
            for path, content in files.items():
                item = {"key": path, "value": content}
                made_of = house.file("db1", "base", "package-file.j2", {}, item=item)
                assert content.rstrip("\n") in made_of
