"""The Django settings of the applications in stock_apps.py, whose memory is measured."""

import os

SECRET_KEY = "of no use outside a measurement"  # noqa: S105
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["MEMORY_DATABASE"]}
}
CHANNEL_LAYERS = (
    {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": [os.environ["MEMORY_REDIS"]]},
        }
    }
    if "MEMORY_REDIS" in os.environ
    else {}
)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
