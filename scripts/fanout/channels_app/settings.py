"""The Django settings of the rooms in rooms.py; which channel layer, says the environment."""

import json
import os

SECRET_KEY = "of no use outside a measurement"  # noqa: S105
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
CHANNEL_LAYERS = {"default": json.loads(os.environ["BENCH_LAYER"])}
