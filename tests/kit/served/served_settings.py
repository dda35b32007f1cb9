"""The Django settings of the application that the tests of the kit serve."""

import os

SECRET_KEY = "of no use outside the tests"
USE_TZ = True

DATABASES = (
    {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["SERVED_DATABASE"]}}
    if "SERVED_DATABASE" in os.environ
    else {}
)

if "SERVED_LOGS_ALL" in os.environ:
    LOGGING = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"stderr": {"class": "logging.StreamHandler"}},
        "root": {"handlers": ["stderr"], "level": "INFO"},
        "loggers": {"uvicorn.error": {"level": "DEBUG"}},
    }

CHANNEL_LAYERS = {
    "default": (
        {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {
                "hosts": [
                    {
                        "address": os.environ["SERVED_REDIS"],
                        # What redis 8 sets to 5 s, where nobody else does.
                        **(
                            {"socket_timeout": float(os.environ["SERVED_REDIS_TIMEOUT"])}
                            if "SERVED_REDIS_TIMEOUT" in os.environ
                            else {}
                        ),
                    }
                ]
            },
        }
        if "SERVED_REDIS" in os.environ
        else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    )
}

if "SERVED_FANOUT" in os.environ:
    CHANNEL_LAYERS["default"] = {
        "BACKEND": "channels_kit.layer.RedisFanoutLayer",
        "CONFIG": {
            "hosts": [os.environ["SERVED_FANOUT"]],
            "socket_buffer": int(os.environ.get("SERVED_SOCKET_BUFFER", 1 << 20)),
        },
    }
