from typing import Any

import pytest
from django.utils.module_loading import import_string

from channels_kit import cluster_settings
from channels_kit.cluster_settings import (
    CORE_LAYER,
    LAYERS,
    MEMORY_LAYER,
    REDIS_CACHE,
    OverlayError,
    own_settings,
    parse_database_url,
    table,
)

ENVIRONMENT = {
    "CHANNELS_KIT_DATABASE_URL": "postgresql://chat:p%40ss@10.0.0.1:5432/rooms?sslmode=require",
    "CHANNELS_KIT_LAYER_URL": "redis://chat:hidden@10.0.0.2:6379/0",
    "CHANNELS_KIT_BROKER_URL": "redis://chat:hidden@10.0.0.2:6380/0",
    "CHANNELS_KIT_ALLOWED_HOSTS": "chat.example.org,www.example.org",
    "CHANNELS_KIT_ORIGINS": "https://chat.example.org",
    "CHANNELS_KIT_STATIC_ROOT": "/srv/static",
    "CHANNELS_KIT_MEDIA_ROOT": "/srv/media",
    "SECRET_KEY": "the hidden one",
}
LAYER_URL = ENVIRONMENT["CHANNELS_KIT_LAYER_URL"]
BROKER_URL = ENVIRONMENT["CHANNELS_KIT_BROKER_URL"]
CACHE_URL = "redis://chat:hidden@10.0.0.2:6380/1"
SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": "/app/db.sqlite3"}


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Which packages the application has."""
    names = {"psycopg", "redis", "channels_redis", "django.core.cache.backends.redis"}
    monkeypatch.setattr(cluster_settings, "find_spec", lambda name: name in names or None)
    return names


def owned(_variables: dict[str, str] | None = None, **project: Any) -> dict[str, Any]:
    return own_settings(project, ENVIRONMENT | (_variables or {}))[0]


def shown(**project: Any) -> str:
    return table(own_settings(project, ENVIRONMENT)[1])


def test_what_every_project_gets() -> None:
    settings = owned(DEBUG=True, LANGUAGE_CODE="de")
    assert settings["DEBUG"] is False
    assert settings["LANGUAGE_CODE"] == "de"
    assert settings["SECRET_KEY"] == "the hidden one"
    assert settings["ALLOWED_HOSTS"] == ["chat.example.org", "www.example.org"]
    assert settings["CSRF_TRUSTED_ORIGINS"] == ["https://chat.example.org"]
    assert settings["SECURE_PROXY_SSL_HEADER"] == ("HTTP_X_FORWARDED_PROTO", "https")
    assert settings["STATIC_ROOT"] == "/srv/static"
    assert settings["MEDIA_ROOT"] == "/srv/media"
    assert settings["CELERY_BROKER_URL"] == BROKER_URL
    assert settings["CHANNEL_LAYERS"] == {
        "default": {"BACKEND": CORE_LAYER, "CONFIG": {"hosts": [LAYER_URL]}}
    }
    assert settings["DATABASES"]["default"] == {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "rooms",
        "USER": "chat",
        "PASSWORD": "p@ss",
        "HOST": "10.0.0.1",
        "PORT": "5432",
        "OPTIONS": {"sslmode": "require"},
    }


def test_what_is_not_in_the_environment_stays_the_projects() -> None:
    project = {
        "DATABASES": {"default": SQLITE},
        "ALLOWED_HOSTS": ["own.example.org"],
        "SECRET_KEY": "its own",
        "CHANNEL_LAYERS": {"default": {"BACKEND": MEMORY_LAYER}},
        "CELERY_BROKER_URL": "redis://127.0.0.1",
    }
    settings, changes = own_settings(project, {})
    assert {name: settings[name] for name in project} == project
    assert [change.setting for change in changes] == ["DEBUG", "SECURE_PROXY_SSL_HEADER"]


def test_other_trusted_origins_stay_but_for_those_of_development() -> None:
    former = ["https://partner.example.org", "http://localhost:3000", "chat.example.org"]
    settings = owned(CSRF_TRUSTED_ORIGINS=former)
    assert settings["CSRF_TRUSTED_ORIGINS"] == [
        "https://chat.example.org",
        "https://partner.example.org",
    ]


def test_fallbacks_of_the_secret_key_are_read() -> None:
    settings = owned({"SECRET_KEY_FALLBACKS": "one,two"})
    assert settings["SECRET_KEY_FALLBACKS"] == ["one", "two"]


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ("django_prometheus.db.backends.postgresql", None),
        ("psqlextra.backend", None),
        ("django.contrib.gis.db.backends.postgis", None),
        ("django.contrib.gis.db.backends.spatialite", "django.contrib.gis.db.backends.postgis"),
        ("django.db.backends.mysql", "django.db.backends.postgresql"),
    ],
)
def test_an_engine_for_postgresql_stays_with_its_options(engine: str, expected: str | None) -> None:
    own = {
        "ENGINE": engine,
        "HOST": "127.0.0.1",
        "CONN_MAX_AGE": 60,
        "OPTIONS": {"application_name": "chat", "service": "elsewhere", "sslmode": "disable"},
    }
    project: dict[str, Any] = {"default": own, "archive": SQLITE}
    databases = owned(DATABASES=project)["DATABASES"]
    kept = {"application_name": "chat"} if expected is None else {}
    assert databases["default"]["ENGINE"] == (expected or engine)
    assert databases["default"]["OPTIONS"] == {**kept, "sslmode": "require"}
    assert databases["default"]["HOST"] == "10.0.0.1"
    assert databases["default"]["CONN_MAX_AGE"] == 60
    assert databases["archive"] == SQLITE
    assert project["default"]["HOST"] == "127.0.0.1", "the project's own was changed in place"


def test_an_application_without_a_driver_is_told_which_it_needs(installed: set[str]) -> None:
    installed.discard("psycopg")
    with pytest.raises(OverlayError, match=r"no driver for PostgreSQL; allowed: psycopg\[binary\]"):
        owned(DATABASES={"default": SQLITE})


@pytest.mark.parametrize("url", ["mysql://a:hidden@b/c", "postgresql://a:hidden@b/"])
def test_a_database_url_that_is_none_is_not_shown(url: str) -> None:
    with pytest.raises(OverlayError, match="CHANNELS_KIT_DATABASE_URL") as caught:
        parse_database_url(url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(("kind", "backend"), LAYERS.items())
def test_the_inventory_may_name_another_layer(
    kind: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "CHANNELS_KIT_LAYER_KIND", kind)
    monkeypatch.setitem(ENVIRONMENT, "CHANNELS_KIT_LAYER_EXPIRY", "30")
    config = {"hosts": ["redis://localhost"], "capacity": 5, "prefix": "mine"}
    former = "channels_valkey.core.ValkeyChannelLayer"
    layers = {"default": {"BACKEND": former, "CONFIG": {**config, "of_its_own": 1}}}
    own = owned(CHANNEL_LAYERS=layers)["CHANNEL_LAYERS"]["default"]
    # Workers with core and with fanout hear each other while a cluster is moved.
    more = {"bridge": True} if kind == "fanout" else {}
    expected = {**config, "hosts": [LAYER_URL], "expiry": 30, **more}
    assert own == {"BACKEND": backend, "CONFIG": expected}
    assert f"channels_layer is {kind}" in shown(CHANNEL_LAYERS=layers)
    assert import_string(backend)(**own["CONFIG"])


def test_a_layer_that_the_kit_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "CHANNELS_KIT_LAYER_KIND", "fast")
    with pytest.raises(OverlayError, match="'fast'; allowed: core, pubsub, fanout"):
        owned()


@pytest.mark.parametrize("backend", [CORE_LAYER, "channels_redis.pubsub.RedisPubSubChannelLayer"])
def test_a_layer_keeps_what_it_is_and_how(backend: str) -> None:
    config = {"hosts": [("127.0.0.1", 6379)], "prefix": "x", "capacity": 5, "expiry": 9}
    secret = {"symmetric_encryption_keys": ["hidden"]}
    layers = {"default": {"BACKEND": backend, "CONFIG": {**config, **secret}}, "other": {}}
    assert owned(CHANNEL_LAYERS=layers)["CHANNEL_LAYERS"] == {
        "default": {"BACKEND": backend, "CONFIG": {**config, **secret, "hosts": [LAYER_URL]}},
        "other": {},
    }


def test_options_of_a_host_stay_but_not_where_it_is() -> None:
    host = {
        "address": "rediss://127.0.0.1",
        "password": "other",
        "sentinels": [("127.0.0.1", 26379)],
        "ssl_cert_reqs": None,
        "socket_timeout": 30,
    }
    layers = {"default": {"BACKEND": CORE_LAYER, "CONFIG": {"hosts": [host]}}}
    [own] = owned(CHANNEL_LAYERS=layers)["CHANNEL_LAYERS"]["default"]["CONFIG"]["hosts"]
    assert own == {"address": LAYER_URL, "socket_timeout": 30}


def test_a_layer_in_memory_is_replaced_with_its_limits() -> None:
    layers = {"default": {"BACKEND": MEMORY_LAYER, "CONFIG": {"capacity": 5}}}
    own = owned(CHANNEL_LAYERS=layers)["CHANNEL_LAYERS"]["default"]
    assert own == {"BACKEND": CORE_LAYER, "CONFIG": {"capacity": 5, "hosts": [LAYER_URL]}}
    assert "processes do not share a layer in memory" in shown(CHANNEL_LAYERS=layers)


def test_a_layer_in_memory_without_channels_redis_is_refused(installed: set[str]) -> None:
    installed.discard("channels_redis")
    with pytest.raises(OverlayError, match="allowed: channels-redis in its requirements"):
        owned()


def test_a_layer_in_postgresql_follows_the_database() -> None:
    backend = "channels_postgres.core.PostgresChannelLayer"
    layers = {"default": {"BACKEND": backend, "CONFIG": {"HOST": "127.0.0.1", "expiry": 9}}}
    config = owned(CHANNEL_LAYERS=layers)["CHANNEL_LAYERS"]["default"]["CONFIG"]
    assert (config["HOST"], config["NAME"], config["expiry"]) == ("10.0.0.1", "rooms", 9)


def test_an_unknown_layer_is_kept_and_said() -> None:
    layers = {"default": {"BACKEND": "channels_rabbitmq.core.RabbitmqChannelLayer"}}
    assert owned(CHANNEL_LAYERS=layers)["CHANNEL_LAYERS"] == layers
    assert "RabbitmqChannelLayer is not supported; the project's setting is kept" in shown(
        CHANNEL_LAYERS=layers
    )


def test_a_cache_in_redis_moves_and_keeps_its_options() -> None:
    own = {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": "redis://127.0.0.1:6379/1",
        "OPTIONS": {"CLIENT_CLASS": "django_redis.client.DefaultClient"},
    }
    caches = owned(CACHES={"default": own, "sessions": own})["CACHES"]
    assert caches["default"] == {**own, "LOCATION": CACHE_URL}
    assert caches["sessions"] == {**own, "LOCATION": CACHE_URL, "KEY_PREFIX": "sessions"}


def test_a_cache_of_one_process_becomes_one_of_all() -> None:
    assert owned()["CACHES"] == {"default": {"BACKEND": REDIS_CACHE, "LOCATION": CACHE_URL}}


def test_a_url_for_the_cache_counts_most() -> None:
    url = "redis://10.0.0.9/4"
    assert owned({"CHANNELS_KIT_CACHE_URL": url})["CACHES"]["default"]["LOCATION"] == url


@pytest.mark.parametrize(
    "kind", ["dummy.DummyCache", "db.DatabaseCache", "filebased.FileBasedCache"]
)
def test_a_cache_that_harms_nobody_stays(kind: str) -> None:
    caches = {"default": {"BACKEND": f"django.core.cache.backends.{kind}", "LOCATION": "x"}}
    assert owned(CACHES=caches)["CACHES"] == caches


def test_a_cache_of_one_process_stays_without_a_client_and_it_is_said(
    installed: set[str],
) -> None:
    installed.discard("redis")
    assert "CACHES" not in owned()
    assert "CACHES  (not shared by processes: replacing a cache in memory needs" in shown()


def test_celery_under_either_name_and_its_results_in_redis() -> None:
    settings = owned(BROKER_URL="redis://localhost", CELERY_RESULT_BACKEND="redis://localhost/1")
    assert settings["BROKER_URL"] == settings["CELERY_RESULT_BACKEND"] == BROKER_URL
    assert "CELERY_BROKER_URL" not in settings
    assert owned(CELERY_RESULT_BACKEND="django-db")["CELERY_RESULT_BACKEND"] == "django-db"


def test_files_of_the_log_go_to_the_journal() -> None:
    logging = {
        "version": 1,
        "handlers": {
            "mail": {"class": "django.utils.log.AdminEmailHandler"},
            "file": {
                "class": "logging.handlers.RotatingFileHandler",
                "filename": "/var/log/chat.log",
                "maxBytes": 9,
                "formatter": "verbose",
                "level": "INFO",
            },
        },
        "root": {"handlers": ["file"]},
    }
    own = owned(LOGGING=logging)["LOGGING"]
    assert own["root"] == {"handlers": ["file"]}
    assert own["handlers"] == {
        "mail": {"class": "django.utils.log.AdminEmailHandler"},
        "file": {"class": "logging.StreamHandler", "formatter": "verbose", "level": "INFO"},
    }
    assert "LOGGING" not in owned()


def test_no_secret_is_shown() -> None:
    said = shown(
        SECRET_KEY="hidden",
        DATABASES={"default": {"ENGINE": "x", "HOST": "h", "PASSWORD": "hidden"}},
        CACHES={"default": {"BACKEND": "r.RedisCache", "OPTIONS": {"PASSWORD": "hidden"}}},
        CHANNEL_LAYERS={
            "default": {
                "BACKEND": CORE_LAYER,
                "CONFIG": {"symmetric_encryption_keys": ["hidden"], "hosts": ["redis://:hidden@h"]},
            }
        },
        CELERY_BROKER_URL="amqp://user:hidden@h",
    )
    assert "(hidden)" in said
    assert "hidden" not in said.replace("(hidden)", "")
    assert "p@ss" not in said
    assert "p%40ss" not in said
    assert "  is   default: django.db.backends.postgresql chat@10.0.0.1:5432/rooms" in said
