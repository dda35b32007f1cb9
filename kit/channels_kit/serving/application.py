"""What comes before the application: its Django, and words for what stands in its way."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import django
from django.apps import apps

from channels_kit.cluster_settings import OverlayError
from channels_kit.serving.packages import PackageError
from channels_kit.serving.settings import SettingsError

SETTINGS_MODULE = "DJANGO_SETTINGS_MODULE"

GC_THRESHOLDS = (50_000, 20, 100)
"""New objects after which the garbage collector looks at them, such looks after which it looks at
those that have survived one, and such looks after which it looks at all: docs/tuning.md."""


def set_up_django() -> None:
    """Load the settings and the applications that the environment names, once.

    An error from inside the settings or an application passes through: its traceback says more than
    the kit could.

    Raises:
        SettingsError: there is no such settings module.
    """
    module = os.environ.get(SETTINGS_MODULE, "")
    if not module or apps.ready:
        # Without the variable the application's module has to do it.
        return
    try:
        django.setup()
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        allowed = f"a settings module, such as project.settings (no module {error.name!r})"
        raise SettingsError(SETTINGS_MODULE, repr(module), allowed) from error


def collect_seldom() -> None:
    """Have the garbage collector look at what has just been loaded never, at the rest seldom.

    A look at all objects takes as long as there are many: a second with the sockets of a busy
    worker, in which it does nothing else, and with Python's own thresholds there is one every few
    seconds. Reference counts free all that is in no cycle at once, whatever the thresholds are.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


@contextmanager
def explained() -> Iterator[None]:
    """End the process with one line where what is wrong needs no traceback."""
    try:
        yield
    except (SettingsError, PackageError, OverlayError) as error:
        sys.exit(f"error: {error}")
