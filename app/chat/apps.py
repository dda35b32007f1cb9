from django.apps import AppConfig


class ChatConfig(AppConfig):
    """The sample application."""

    name = "chat"
