"""Settings of the tests: nothing outside of the process, and nothing that is slow on purpose.

Where the environment names a database or a Redis, the tests run on these.
"""

import os

from config.settings import *  # noqa: F403

SECRET_KEY = "only-for-tests"  # noqa: S105
SECRET_KEY_FALLBACKS = []
JWT_KEY = "only-for-tests-and-never-anywhere-else"
JWT_KEY_FALLBACKS = []
ALLOWED_HOSTS = ["testserver"]
if "DATABASE_URL" not in os.environ:
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
if "CHANNEL_LAYER_URL" not in os.environ:
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
CELERY_BROKER_URL = ""
CELERY_TASK_ALWAYS_EAGER = True
# Hashes that are quick to make.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# Static files as they lie in the applications; none is collected for a test.
STORAGES = {
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
WHITENOISE_AUTOREFRESH = WHITENOISE_USE_FINDERS = True
