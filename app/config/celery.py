"""Celery: what is done later, in processes of its own (``celery -A config worker``)."""

import logging.config
import os
from typing import Any

from celery import Celery  # type: ignore[import-untyped]
from celery.signals import setup_logging  # type: ignore[import-untyped]

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("config")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@setup_logging.connect  # type: ignore[untyped-decorator]
def configure_logging(**_: Any) -> None:
    """Log as the rest of the application does: a receiver keeps Celery from its own way."""
    from django.conf import settings

    logging.config.dictConfig(settings.LOGGING)
