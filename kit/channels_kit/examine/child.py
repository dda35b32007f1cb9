"""Starts the application, step by step, and tells what happens: runs in a process of its own.

``python -m channels_kit.examine.child IN OUT``: reads a request, a JSON object, from one file
descriptor, and writes JSON objects to another, a line each: the application may print what it likes
to standard output, end the process, or not end at all.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from channels_kit.examine import stubs
from channels_kit.examine.failures import Failure, TookTooLongError, connects, explain, frames
from channels_kit.examine.finding import Finding
from channels_kit.examine.guards import Guards
from channels_kit.examine.reads import Reads
from channels_kit.examine.scrub import Scrubber
from channels_kit.examine.snapshot import ABSENT, located, of_settings, secrets_of

BROKEN = 70
"""The exit status of a child that fails by itself, and not by the application."""

OVERLAY_MODULE = "channels_kit.overlay"
OWNED = frozenset(
    {
        "ALLOWED_HOSTS",
        "BROKER_URL",
        "CACHES",
        "CELERY_BROKER_URL",
        "CELERY_RESULT_BACKEND",
        "CHANNEL_LAYERS",
        "CSRF_TRUSTED_ORIGINS",
        "DATABASES",
        "DEBUG",
        "LOGGING",
        "SECRET_KEY",
    }
)
"""Settings that the kit's own set."""


class Child:
    """One attempt to start the application.

    Args:
        request: root, scratch, writable, application, settings_module, stubs, limit.
        tell: takes what the parent is to know.
    """

    def __init__(self, request: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> None:
        self.root = Path(request["root"])
        self.application: str = request["application"]
        self.settings_module: str = request["settings_module"]
        self.stubs: list[str] = request["stubs"]
        self.limit: float = request["limit"]
        self.step = ""
        self.failed = False
        self._scratch = Path(request["scratch"])
        self._tell = tell
        self._scrub = Scrubber(os.environ)
        self._refused: list[tuple[str, str, str]] = []
        self.reads = Reads(self.root)
        self.guards = Guards(
            self.root,
            [self._scratch, *(self.root / each for each in request["writable"])],
            self._note,
        )

    def prepare(self) -> None:
        """Guard the process and limit its time."""
        empty = self._scratch / "empty"
        empty.mkdir(exist_ok=True)
        stubs.install(self.stubs, str(empty))
        self.reads.install()
        os._exit = os.abort = _exit_as_an_exception
        signal.signal(signal.SIGALRM, self._too_long)
        # What worker processes are called: some applications look.
        sys.argv = ["channels_kit.serving"]
        self.guards.install()

    def run(self) -> None:
        """Do every step that the ones before it allow."""
        if not self.settings():
            return
        if not self.setup():
            return
        # Imported here: these modules import Django, and the settings come first.
        from channels_kit.examine import steps

        for name, step in steps.STEPS:
            with self.doing(name):
                step(self)
        self.report_connections()

    def settings(self) -> bool:
        """Import the settings; return whether that was possible."""
        module = os.environ.get("DJANGO_SETTINGS_MODULE", self.settings_module)
        namespace: dict[str, Any] = {}
        owned: frozenset[str] = frozenset()
        done = False
        with self.doing("the settings are imported"):
            try:
                namespace = vars(importlib.import_module(self.settings_module))
                if module == OVERLAY_MODULE:
                    owned = self._overlay(module)
                from django.conf import settings

                _ = settings.DEBUG
                done = True
            except ModuleNotFoundError as error:
                if error.name and f"{self.settings_module}.".startswith(f"{error.name}."):
                    self.tell_finding(self._no_settings(error.name))
                    return False
                namespace = self._so_far(error)
                raise
            except BaseException as error:
                # What fails in a module of their own could have set the rest.
                if not frames(error, self.root) or self._fails_in_settings(error):
                    namespace = self._so_far(error)
                raise
            finally:
                self._tell({"reads": dict(self.reads.names)})
                if namespace and not done:
                    self.snapshot(lambda name: namespace.get(name, ABSENT))
        if done and not stubs.STARRED:
            self.snapshot(
                lambda name: ABSENT if name in owned else getattr(settings, name, ABSENT),
                explicit=namespace,
            )
        return done

    def _overlay(self, module: str) -> frozenset[str]:
        """Import the kit's settings; return which ones are not known, because they cannot be."""
        try:
            importlib.import_module(module)
        except Exception as error:
            if type(error).__name__ != "OverlayError":
                raise
            said, _, allowed = str(error).partition("; allowed: ")
            self.tell_finding(
                Finding(
                    name="settings-overlay",
                    what="channels_settings_overlay",
                    value=said,
                    why="channels_kit.overlay cannot set the cluster's values in the settings.",
                    line=f"In the application: {allowed}" if allowed else "",
                )
            )
            os.environ["DJANGO_SETTINGS_MODULE"] = self.settings_module
            return OWNED
        return frozenset()

    def setup(self) -> bool:
        """Do what django.setup() does; return whether the models are there."""
        from django.apps import apps
        from django.conf import settings
        from django.utils.log import configure_logging

        with self.doing("the log is configured"):
            configure_logging(settings.LOGGING_CONFIG, settings.LOGGING)
        with self.doing("the applications are loaded"):
            try:
                apps.populate(settings.INSTALLED_APPS)
            except BaseException as error:
                self.tell_failure(error)
        if apps.models_ready and not apps.ready:
            for config in apps.get_app_configs():
                with self.doing("the applications are loaded"):
                    config.ready()
            apps.ready = True
            apps.ready_event.set()
        return apps.models_ready

    def snapshot(self, get: Callable[[str], Any], explicit: dict[str, Any] | None = None) -> None:
        """Tell what the settings say."""

        def careful(name: str) -> Any:
            # An empty SECRET_KEY is an exception of Django's.
            try:
                return get(name)
            except Exception:
                return "" if name == "SECRET_KEY" else ABSENT

        self._scrub = Scrubber(os.environ, secrets_of(careful))
        found = located(of_settings(careful, self.root), self.root)
        if explicit is not None and "CACHES" in explicit:
            for cache in found.get("CACHES", {}).values():
                cache["chosen"] = True
        self._tell({"settings": found})

    def report_connections(self) -> None:
        """Tell of connections that the application tried and went on without."""
        for kind, what, where in dict.fromkeys(self._refused):
            if kind == "connect" and where:
                self.tell_finding(connects(what, where).as_advice())

    @contextmanager
    def doing(self, step: str) -> Iterator[None]:
        """Do a step; an exception in it is explained to the parent, and the next step follows."""
        self.step = step
        self._tell({"step": step})
        signal.setitimer(signal.ITIMER_REAL, self.limit)
        try:
            yield
        except BaseException as error:
            self.tell_failure(error)

    def tell_failure(self, error: BaseException) -> None:
        """Tell the parent what an exception means."""
        failure = explain(error, self.step, self.root, self.settings_module, self.reads)
        self.failed = True
        if failure.finding.name == "connects-at-import":
            self._refused = [each for each in self._refused if each[2] != failure.finding.what]
        elif not failure.sure and frames(error, self.root):
            failure = self._by_a_database(failure)
        self.tell_finding(failure.finding, failure)

    def tell_finding(self, finding: Finding, failure: Failure | None = None) -> None:
        """Tell the parent what was found, without secrets."""
        told: dict[str, Any] = {
            "finding": {
                "name": finding.name,
                "what": self._scrub.foreign(finding.what),
                "value": self._scrub.foreign(finding.value),
                "why": self._scrub.foreign(finding.why),
                "line": self._scrub.own(finding.line),
                "obstacle": finding.obstacle,
            }
        }
        if failure:
            told |= {"variable": failure.variable, "stub": failure.stub, "sure": failure.sure}
        self._tell(told)

    def tell_facts(self, **facts: Any) -> None:
        """Tell the parent what the rules read beside the settings."""
        self._tell({"facts": facts})

    def _by_a_database(self, failure: Failure) -> Failure:
        """Return a failure as one of a connection, if a library of C tried to connect."""
        text = failure.finding.value
        if "OperationalError" in text and "refused" in text.lower():
            return Failure(connects("the database", failure.finding.what), stub=failure.stub)
        return failure

    def _note(self, kind: str, what: str, where: str) -> None:
        self._refused.append((kind, what, where))

    def _so_far(self, error: BaseException) -> dict[str, Any]:
        """Return the names that the settings have defined before they failed."""
        for frame, _ in frames(error, self.root):
            if frame.f_globals.get("__name__") == self.settings_module:
                return dict(frame.f_globals)
        return {}

    def _fails_in_settings(self, error: BaseException) -> bool:
        """Return whether it is the settings module itself whose import fails."""
        modules = [
            frame.f_globals.get("__name__")
            for frame, _ in frames(error, self.root)
            if frame.f_code.co_name == "<module>"
        ]
        return bool(modules) and modules[-1] == self.settings_module

    def _no_settings(self, missing: str) -> Finding:
        from channels_kit.examine.sources import settings_modules

        found = settings_modules(self.root)
        return Finding(
            name="no-settings",
            what="channels_settings_module",
            value=self.settings_module,
            why=f"The project has no module {missing}.",
            line=f"channels_settings_module: {found[0] if found else '...'}",
        )

    def _too_long(self, *_: Any) -> NoReturn:
        raise TookTooLongError(f"{self.limit:g} s")


def _exit_as_an_exception(status: int = 1) -> NoReturn:
    """Stand in for os._exit(): this process still has to tell where it was called."""
    raise SystemExit(status)


def main() -> None:
    """Read the request, start the application, tell what happens, and end at once."""
    exit_now = os._exit
    status = 0
    reading, writing = map(int, sys.argv[1:3])
    with os.fdopen(reading) as file:
        request = json.load(file)

    def tell(what: dict[str, Any]) -> None:
        content = (json.dumps(what) + "\n").encode()
        while content:
            content = content[os.write(writing, content) :]

    child = Child(request, tell)
    try:
        child.prepare()
        child.run()
        tell({"done": True})
    except BaseException:
        traceback.print_exc()
        status = BROKEN
    finally:
        # Threads of the application may run on, and what it has registered may connect.
        exit_now(status)


if __name__ == "__main__":
    main()
