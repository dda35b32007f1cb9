"""What every test of the application and of its library stands on.

pytest-django loads the settings before any conftest, from the environment as it is: so the
settings are adjusted here, not the environment. DATABASE_URL keeps its meaning, which lets the same
tests run against PostgreSQL.
"""

from django.conf import settings


def pytest_configure() -> None:
    settings.SECRET_KEY = "only-for-tests"
    settings.ALLOWED_HOSTS = ["testserver"]
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    # Hashes that are quick to make.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    # Static files as they lie in the applications; none is collected for a test.
    settings.STORAGES = {
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    }
    settings.WHITENOISE_AUTOREFRESH = settings.WHITENOISE_USE_FINDERS = True
