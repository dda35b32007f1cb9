"""What comes before the application: its Django, and words for what stands in its way."""

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


@contextmanager
def explained() -> Iterator[None]:
    """End the process with one line where what is wrong needs no traceback."""
    try:
        yield
    except (SettingsError, PackageError, OverlayError) as error:
        sys.exit(f"error: {error}")
