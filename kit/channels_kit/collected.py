"""Settings with which static files are collected: the project's, with a place of the release.

For ``manage.py collectstatic --settings=channels_kit.collected`` alone. Prints where the project
itself would have them, as JSON.
"""

import json
import os
import sys
from importlib import import_module

_project = import_module(os.environ["CHANNELS_KIT_COLLECTS_FROM"])
globals().update({name: getattr(_project, name) for name in dir(_project) if name.isupper()})

_own = json.dumps({"static_root": str(getattr(_project, "STATIC_ROOT", "") or "")})
sys.stdout.write(f"{_own}\n")
STATIC_ROOT = os.environ["CHANNELS_KIT_STATIC_ROOT"]
