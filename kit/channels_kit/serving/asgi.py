"""What an ASGI server is told to serve: `channels_kit.serving.asgi:application`."""

from channels_kit.serving.settings import ServingSettings, load_application
from channels_kit.serving.wrapper import Serving

settings = ServingSettings.from_environment()
application = Serving(load_application(settings.application), settings)
