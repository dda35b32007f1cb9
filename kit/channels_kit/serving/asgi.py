"""What an ASGI server is told to serve: `channels_kit.serving.asgi:application`."""

from channels_kit.serving.application import set_up_django
from channels_kit.serving.dispatch import make_lean
from channels_kit.serving.settings import ServingSettings, load_application
from channels_kit.serving.static import with_static_files
from channels_kit.serving.wrapper import Serving

settings = ServingSettings.from_environment()
# An application's module may import its models before it calls get_asgi_application.
set_up_django()
if settings.lean_consumers:
    make_lean()
application = Serving(with_static_files(load_application(settings.application)), settings)
