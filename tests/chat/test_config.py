import logging
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from config.environment import Environment
from config.logs import WithoutQueryStrings

APP = Path(__file__).parents[2] / "app"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, False), ({"V": ""}, False), ({"V": "0"}, False), ({"V": "1"}, True)],
)
def test_flag(variables: dict[str, str], expected: bool) -> None:
    assert Environment(variables).flag("V") is expected


def test_words() -> None:
    assert Environment({"V": " a, b ,,c"}).words("V") == ["a", "b", "c"]
    assert Environment({}).words("V") == []


def test_hosts_and_origins() -> None:
    variables = {
        "HOSTS": "chat.example.com,.example.org,[::1],*",
        "ORIGINS": "https://a.example:8443",
    }
    assert len(Environment(variables).hosts("HOSTS")) == 4
    assert Environment(variables).origins("ORIGINS") == ["https://a.example:8443"]


def test_database_without_a_url_is_sqlite() -> None:
    database = Environment({}).database("V", default=Path("/srv/db.sqlite3"), pool_size=4)
    assert database["ENGINE"] == "django.db.backends.sqlite3"
    assert database["NAME"] == "/srv/db.sqlite3"


def test_database_postgres() -> None:
    url = "postgres://ada:p%40ss@db1:5433/chat?sslmode=require"
    database = Environment({"V": url}).database("V", default=Path("/x"), pool_size=7)
    assert database["ENGINE"] == "django.db.backends.postgresql"
    assert (database["USER"], database["PASSWORD"]) == ("ada", "p@ss")
    assert (database["HOST"], database["PORT"], database["NAME"]) == ("db1", 5433, "chat")
    assert database["CONN_MAX_AGE"] == 0
    assert database["CONN_HEALTH_CHECKS"] is True
    pool = database["OPTIONS"].pop("pool")
    assert (pool["min_size"], pool["max_size"]) == (0, 7)
    assert database["OPTIONS"] == {
        "connect_timeout": 5,
        "keepalives_count": 3,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "sslmode": "require",
        "tcp_user_timeout": 15000,
    }


def test_channel_layer() -> None:
    url = "redis://layer:p%40ss@redis1:6380/0"
    assert Environment({"V": url}).channel_layer("V") == {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {
            "hosts": [
                {
                    "address": url,
                    "socket_connect_timeout": 5,
                    "socket_keepalive": True,
                    "socket_keepalive_options": {
                        socket.TCP_KEEPIDLE: 30,
                        socket.TCP_KEEPINTVL: 10,
                        socket.TCP_KEEPCNT: 3,
                        socket.TCP_USER_TIMEOUT: 15000,
                    },
                }
            ],
            "capacity": 2000,
            "expiry": 60,
            "group_expiry": 86400,
        },
    }
    fanout = Environment({"V": url, "CHANNEL_LAYER_KIND": "fanout"}).channel_layer("V")
    assert import_string(fanout["BACKEND"])(**fanout["CONFIG"]).get_capacity("any") == 2000
    with pytest.raises(ImproperlyConfigured, match=r"'fast' is not allowed.*core, pubsub, fanout"):
        Environment({"V": url, "CHANNEL_LAYER_KIND": "fast"}).channel_layer("V")
    assert Environment({}).channel_layer("V") == {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    limits = {
        "CHANNEL_LAYER_CAPACITY": "500",
        "CHANNEL_LAYER_EXPIRY": "30",
        "CHANNEL_LAYER_GROUP_EXPIRY": "3600",
    }
    config = Environment({"V": url, **limits}).channel_layer("V")["CONFIG"]
    assert (config["capacity"], config["expiry"], config["group_expiry"]) == (500, 30, 3600)


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("flag", "yes", r"V='yes'.*0 and 1"),
        ("hosts", "https://a.example", r"V='https://a.example'.*without scheme"),
        ("hosts", "a.example:80", r"V='a.example:80'.*without scheme"),
        ("hosts", "a.example/chat", r"V='a.example/chat'.*without scheme"),
        ("origins", "a.example", r"V='a.example'.*https://chat.example.com"),
        ("database", "mysql://u:hidden@h/n", r"V has the scheme 'mysql'.*postgres://"),
        ("database", "unknown", r"V has the scheme 'unknown'"),
        ("database", "postgres://u:hidden@h:port/n", r"V is not a URL.*postgres://"),
        ("database", "postgres://u:hidden@h", r"V names no database.*postgres://"),
        ("channel_layer", "amqp://u:hidden@h", r"V has the scheme 'amqp'.*redis://"),
        ("channel_layer", "redis://u:hidden@", r"V is not the URL.*redis://"),
        ("channel_layer", "redis://u:hidden@h:x/0", r"V is not the URL.*redis://"),
        ("channel_layer", "redis://u:hidden@h/zero", r"V is not the URL.*redis://"),
        ("broker", "amqp://u:hidden@h", r"V has the scheme 'amqp'.*redis://"),
        ("secret", "hidden", r"V has a secret of 6 characters.*7 or more"),
        ("secrets", "long enough,hidden", r"V has a secret of 6 characters.*7 or more"),
        ("number", "0", r"V='0'.*from 1 to 100"),
        ("number", "101", r"V='101'.*from 1 to 100"),
        ("number", "-1", r"V='-1'.*from 1 to 100"),
        ("number", "1.5", r"V='1.5'.*from 1 to 100"),
        ("number", "9" * 5000, r"V='9+'.*from 1 to 100"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(kind: str, value: str, words: str) -> None:
    needed: dict[str, dict[str, Any]] = {
        "database": {"default": Path("/x"), "pool_size": 4},
        "secret": {"default": "", "min_length": 7},
        "secrets": {"min_length": 7},
        "number": {"default": 1, "lowest": 1, "highest": 100},
    }
    with pytest.raises(ImproperlyConfigured, match=words) as error:
        getattr(Environment({"V": value}), kind)("V", **needed.get(kind, {}))
    if "hidden" in value:
        assert "hidden" not in str(error.value)


def test_a_text_may_be_too_long() -> None:
    with pytest.raises(ImproperlyConfigured, match="V='abc' has 3 characters; at most 2"):
        Environment({"V": "abc"}).text("V", "", max_length=2)


def serve(**variables: str) -> subprocess.CompletedProcess[str]:
    """Import the application as a server does, with nothing but these variables."""
    return subprocess.run(
        [sys.executable, "-c", "import config.asgi"],
        cwd=APP,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_serving_needs_a_secret_key() -> None:
    refused = serve()
    assert refused.returncode == 1
    assert "ImproperlyConfigured: SECRET_KEY is not set" in refused.stderr
    assert serve(SECRET_KEY="x", JWT_KEY="y" * 32).returncode == 0


def test_serving_needs_a_key_for_tokens() -> None:
    refused = serve(SECRET_KEY="x")
    assert refused.returncode == 1
    assert "ImproperlyConfigured: JWT_KEY is not set" in refused.stderr


def test_development_needs_no_keys() -> None:
    assert serve(DJANGO_DEBUG="1").returncode == 0


def test_django_finds_nothing_to_warn_of_but_what_the_edge_does() -> None:
    checked = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy"],
        cwd=APP,
        env={
            "PATH": os.environ["PATH"],
            "SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyz" * 2,
            "JWT_KEY": "y" * 32,
            "ALLOWED_HOSTS": "chat.example",
            "SECURE_COOKIES": "1",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    # W004: Strict-Transport-Security. W008: the redirect from http.
    assert set(re.findall(r"security\.[A-Z]\d+", checked.stderr)) == {
        "security.W004",
        "security.W008",
    }, checked.stderr


def test_number() -> None:
    assert Environment({"V": "7"}).number("V", 3, lowest=1, highest=9) == 7
    assert Environment({}).number("V", 3, lowest=1, highest=9) == 3


def test_secrets() -> None:
    variables = {"KEY": "0123456789", "KEYS": "abcdefghij, klmnopqrst"}
    assert Environment(variables).secret("KEY", "", min_length=10) == "0123456789"
    assert Environment({}).secret("KEY", "", min_length=10) == ""
    assert Environment(variables).secrets("KEYS", min_length=10) == ["abcdefghij", "klmnopqrst"]


def test_broker() -> None:
    assert Environment({"V": "redis://r:6379/1"}).broker("V") == "redis://r:6379/1"
    assert Environment({}).broker("V") == ""


def test_query_strings_stay_out_of_the_log() -> None:
    record = logging.LogRecord(
        "uvicorn.error",
        logging.INFO,
        __file__,
        1,
        '%s - "WebSocket %s" [accepted] %d',
        ("10.0.0.1:1234", "/ws/chat/lobby/?token=secret", 1),
        None,
    )
    assert WithoutQueryStrings().filter(record)
    assert record.getMessage() == '10.0.0.1:1234 - "WebSocket /ws/chat/lobby/" [accepted] 1'
