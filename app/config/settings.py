"""Settings of the sample application: every choice of the operator is an environment variable.

| variable | value | unset |
|---|---|---|
| SECRET_KEY | long, random, the same on every worker | needed unless DJANGO_DEBUG=1 |
| SECRET_KEY_FALLBACKS | former SECRET_KEYs that still verify, comma between | none |
| JWT_KEY | signs tokens; random, from 32 characters, the same on every worker | as SECRET_KEY |
| JWT_KEY_FALLBACKS | former JWT_KEYs that still verify, comma between | none |
| JWT_LIFETIME | seconds in which a token is valid, 1 to 2592000 | 3600 |
| DJANGO_DEBUG | 0 or 1 | 0 |
| ALLOWED_HOSTS | host names, comma between | none (with DJANGO_DEBUG=1: this machine) |
| CSRF_TRUSTED_ORIGINS | origins with scheme, comma between | none |
| DATABASE_URL | postgres://user:password@host:port/name | SQLite, app/db.sqlite3 |
| DATABASE_POOL_SIZE | connections of one process to PostgreSQL, 1 to 100 | 4 |
| CHANNEL_LAYER_URL | redis://user:password@host:port/0 | in memory: one process only |
| CHANNEL_LAYER_KIND | core, pubsub or fanout: which layer that is | core |
| BROKER_URL | redis://user:password@host:port/0, for Celery | tasks run at once, in the process |
| CHANNELS_KIT_WORKER | the name messages carry of the worker that took them | hostname:pid |
| SECURE_COOKIES | 1 where the edge speaks TLS | 0 |
| STATIC_ROOT | where collectstatic writes and WhiteNoise reads | app/staticfiles |
"""

import os
import socket
from pathlib import Path

from config.environment import Environment

BASE_DIR = Path(__file__).resolve().parent.parent

_env = Environment(os.environ)

DEBUG = _env.flag("DJANGO_DEBUG")
# Not demanded here: what signs nothing (collectstatic while a release is built, type checks, tests)
# needs no secret. Django refuses an empty key on its first use, and config.asgi at the start.
SECRET_KEY = _env.text("SECRET_KEY", "only-for-development" if DEBUG else "")
SECRET_KEY_FALLBACKS = _env.words("SECRET_KEY_FALLBACKS")
# Shorter ones are weaker than the hash they are used with, SHA-256.
_JWT_KEY_MIN_LENGTH = 32
JWT_KEY = _env.secret(
    "JWT_KEY",
    "only-for-development-and-never-elsewhere" if DEBUG else "",
    min_length=_JWT_KEY_MIN_LENGTH,
)
JWT_KEY_FALLBACKS = _env.secrets("JWT_KEY_FALLBACKS", min_length=_JWT_KEY_MIN_LENGTH)
JWT_LIFETIME = _env.number("JWT_LIFETIME", 3600, lowest=1, highest=30 * 86400)
ALLOWED_HOSTS = _env.hosts("ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = _env.origins("CSRF_TRUSTED_ORIGINS")
DATABASES = {
    "default": _env.database(
        "DATABASE_URL",
        default=BASE_DIR / "db.sqlite3",
        pool_size=_env.number("DATABASE_POOL_SIZE", 4, lowest=1, highest=100),
    )
}
CHANNEL_LAYERS = {"default": _env.channel_layer("CHANNEL_LAYER_URL")}
CHANNELS_KIT_WORKER = _env.text(
    "CHANNELS_KIT_WORKER", f"{socket.gethostname()}:{os.getpid()}", max_length=100
)
STATIC_ROOT = Path(_env.text("STATIC_ROOT", str(BASE_DIR / "staticfiles")))
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _env.flag("SECURE_COOKIES")

# The edge sets this header on every request, whatever the client sent; without such an edge in
# front, a client could claim TLS.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

INSTALLED_APPS = [
    "chat",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "channels",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "config.middleware.ContentSecurityPolicyMiddleware",
    "config.middleware.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    # Every page is for members; one that is not says so with login_not_required.
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "rooms"
LOGOUT_REDIRECT_URL = "login"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

CELERY_BROKER_URL = _env.broker("BROKER_URL")
CELERY_TASK_ALWAYS_EAGER = not CELERY_BROKER_URL
if CELERY_BROKER_URL.startswith("redis:"):
    CELERY_BROKER_TRANSPORT = "config.broker:Transport"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# For ever; the default gives up after 100 times.
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # A task that is not acknowledged in this time is run again: its worker was killed, or the
    # broker restarted. No task takes as long, and none waits in a worker for its time to come:
    # what is to be done later is a row in the database (chat.later).
    "visibility_timeout": 30,
    # Seconds; of these looks every tenth is one. The default is a look in 100 s.
    "unacked_restore_interval": 1,
    # A worker that is killed while it looks keeps the others from it for so long.
    "unacked_mutex_expire": 20,
    "socket_connect_timeout": 5,
    # A broker that takes the connection and never answers is away, too.
    "socket_timeout": 5,
}
# Once it is done, not before: a task whose worker dies is run again, and is made for that.
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
# The logging below is for all processes.
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_REDIRECT_STDOUTS = False

LANGUAGE_CODE = "en"
USE_TZ = True

# In development WhiteNoise finds files in their applications, as DEBUG is its own default for that.
STATIC_URL = "/static/"
STORAGES = {
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "config.storage.HashedStaticFilesStorage",
    },
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"without_query_strings": {"()": "config.logs.WithoutQueryStrings"}},
    "formatters": {"line": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        # Without its own handlers: Django's default prints to a console only with DEBUG.
        "django": {"level": "INFO"},
        # Uvicorn writes the paths of sockets here, --no-access-log or not.
        "uvicorn.error": {"filters": ["without_query_strings"]},
        # In production the edge writes the access log.
        "uvicorn.access": {"filters": ["without_query_strings"], "propagate": DEBUG},
    },
}
