"""What an ASGI server is told to serve: `channels_kit.serving.asgi:application`."""

import gc

from channels_kit.serving.application import collect_seldom, set_up_django
from channels_kit.serving.dispatch import make_lean
from channels_kit.serving.settings import ServingSettings, load_application
from channels_kit.serving.static import with_static_files
from channels_kit.serving.wrapper import Serving

thresholds = gc.get_threshold()
settings = ServingSettings.from_environment()
# An application's module may import its models before it calls get_asgi_application.
set_up_django()
if settings.lean_consumers:
    make_lean()
application = Serving(with_static_files(load_application(settings.application)), settings)
if gc.get_threshold() == thresholds:
    # The application has none of its own.
    collect_seldom()
