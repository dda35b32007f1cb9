import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from channels_kit.serving.settings import ServingSettings, SettingsError, load_application

REQUIRED = {"CHANNELS_KIT_APPLICATION": "config.asgi:application"}


def test_defaults() -> None:
    settings = ServingSettings.from_environment(REQUIRED)
    assert re.fullmatch(r".+:\d+", settings.worker)
    assert settings.revision == ""
    assert settings.probe_token == ""
    assert (settings.handshake_timeout, settings.ready_timeout) == (10.0, 3.0)
    assert (settings.max_sockets, settings.drain_pace, settings.drain_window) == (
        10_000,
        50.0,
        60.0,
    )


def test_every_variable_is_read() -> None:
    assert ServingSettings.from_environment(
        {
            **REQUIRED,
            "CHANNELS_KIT_WORKER": "app1:8001",
            "CHANNELS_KIT_REVISION": "2026-07-01",
            "CHANNELS_KIT_PROBE_TOKEN": "secret",
            "CHANNELS_KIT_HANDSHAKE_TIMEOUT": "7",
            "CHANNELS_KIT_READY_TIMEOUT": "0.5",
            "CHANNELS_KIT_MAX_SOCKETS": "2500",
            "CHANNELS_KIT_DRAIN_PACE": "12.5",
            "CHANNELS_KIT_DRAIN_WINDOW": "30",
            "CHANNELS_KIT_STREAM_GRACE": "8",
            "CHANNELS_KIT_LEAN_CONSUMERS": "0",
        }
    ) == ServingSettings(
        application="config.asgi:application",
        worker="app1:8001",
        revision="2026-07-01",
        probe_token="secret",
        handshake_timeout=7.0,
        ready_timeout=0.5,
        max_sockets=2500,
        drain_pace=12.5,
        drain_window=30.0,
        stream_grace=8.0,
        lean_consumers=False,
    )


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("CHANNELS_KIT_APPLICATION", "", "module:attribute"),
        ("CHANNELS_KIT_APPLICATION", "config.asgi", "module:attribute"),
        ("CHANNELS_KIT_WORKER", "a=b", "without '='"),
        ("CHANNELS_KIT_WORKER", "a b", "visible ASCII"),
        ("CHANNELS_KIT_LEAN_CONSUMERS", "yes", "0 or 1"),
        ("CHANNELS_KIT_HANDSHAKE_TIMEOUT", "soon", "a number of seconds above 0"),
        ("CHANNELS_KIT_HANDSHAKE_TIMEOUT", "0", "a number of seconds above 0"),
        ("CHANNELS_KIT_READY_TIMEOUT", "-1", "a number of seconds above 0"),
        ("CHANNELS_KIT_READY_TIMEOUT", "inf", "a number of seconds above 0"),
        ("CHANNELS_KIT_READY_TIMEOUT", "nan", "a number of seconds above 0"),
        ("CHANNELS_KIT_MAX_SOCKETS", "0", "a number of sockets above 0"),
        ("CHANNELS_KIT_MAX_SOCKETS", "-1", "a number of sockets above 0"),
        ("CHANNELS_KIT_MAX_SOCKETS", "1.5", "a number of sockets above 0"),
        ("CHANNELS_KIT_MAX_SOCKETS", "many", "a number of sockets above 0"),
        ("CHANNELS_KIT_DRAIN_PACE", "0", "a number of sockets a second above 0, such as 50"),
        ("CHANNELS_KIT_DRAIN_PACE", "slow", "a number of sockets a second above 0"),
        ("CHANNELS_KIT_DRAIN_WINDOW", "0", "a number of seconds above 0, such as 60"),
        ("CHANNELS_KIT_DRAIN_WINDOW", "inf", "a number of seconds above 0"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    variable: str, value: str, allowed: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        ServingSettings.from_environment({**REQUIRED, variable: value})
    text = str(caught.value)
    assert variable in text
    assert (repr(value) if value else "not set") in text
    assert allowed in text


def test_the_token_is_never_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        ServingSettings.from_environment({**REQUIRED, "CHANNELS_KIT_PROBE_TOKEN": "se cret"})
    assert "CHANNELS_KIT_PROBE_TOKEN" in str(caught.value)
    assert "se cret" not in str(caught.value)
    good = ServingSettings.from_environment({**REQUIRED, "CHANNELS_KIT_PROBE_TOKEN": "secret"})
    assert "secret" not in repr(good)


def test_an_application_is_loaded() -> None:
    for reference, named in (
        ("json:loads", json.loads),
        ("json:JSONDecoder.decode", json.JSONDecoder.decode),
    ):
        application: object = load_application(reference)
        assert application is named


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("no_such_module:application", "no module 'no_such_module'"),
        ("json.no_such:application", "no module 'json.no_such'"),
        ("json:application", "no attribute 'application'"),
        ("json:__name__", "ASGI callable"),
    ],
)
def test_an_application_that_is_not_there(reference: str, why: str) -> None:
    with pytest.raises(SettingsError, match=r"CHANNELS_KIT_APPLICATION is '") as caught:
        load_application(reference)
    assert why in str(caught.value)


def test_an_import_error_inside_the_application_passes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_application.py").write_text("import no_such_requirement\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_requirement"):
        load_application("broken_application:application")


@pytest.mark.parametrize(
    ("its_own", "then"),
    [("", (50_000, 20, 100)), ("gc.set_threshold(9, 8, 7)", (9, 8, 7))],
)
def test_the_garbage_collector_looks_seldom_unless_the_application_says_how_often(
    tmp_path: Path, its_own: str, then: tuple[int, ...]
) -> None:
    (tmp_path / "applied.py").write_text(f"import gc\n{its_own}\ndef application(): ...\n")
    (tmp_path / "its_settings.py").write_text("SECRET_KEY = 'of the tests'\n")
    program = (
        "import channels_kit.serving.asgi, gc; print(gc.get_threshold(), gc.get_freeze_count())"
    )
    output = subprocess.run(
        [sys.executable, "-c", program],
        env={
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
            "DJANGO_SETTINGS_MODULE": "its_settings",
            "CHANNELS_KIT_APPLICATION": "applied:application",
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    thresholds, _, frozen = output.strip().rpartition(" ")
    assert thresholds == str(then)
    assert (int(frozen) > 0) == (not its_own)
