"""Celery: what is done later, in processes of its own (``celery -A config worker``)."""

import logging.config
import os
from typing import Any

from celery import Celery, bootsteps  # type: ignore[import-untyped]
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


# Seconds between two runs of a task. Beat would be one more process, on one host; here every worker
# looks, for as long as it is connected to the broker.
PERIODIC = {
    "chat.tasks.deliver_later_messages": 1.0,
    "chat.tasks.ask_for_lost_thumbnails": 10.0,
}


class Periodic(bootsteps.StartStopStep):  # type: ignore[misc]
    """Has tasks run every few seconds while a worker is connected to its broker."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self.timers: list[Any] = []

    def start(self, consumer: Any) -> None:
        """Begin, after each connect."""
        for task, seconds in PERIODIC.items():
            self.timers.append(consumer.timer.call_repeatedly(seconds, _send, (task, seconds)))

    def stop(self, consumer: Any) -> None:
        """End, after each loss of the connection."""
        while self.timers:
            self.timers.pop().cancel()


def _send(task: str, seconds: float) -> None:
    # One that is not begun before the next one is of no use any more.
    app.send_task(task, expires=max(seconds, 5.0), retry=False)


app.steps["consumer"].add(Periodic)
