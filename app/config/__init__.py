# Here, so that every process knows the broker in which chat.tasks puts its tasks.
from config.celery import app as celery_app

__all__ = ["celery_app"]
