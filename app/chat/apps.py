from django.apps import AppConfig


class ChatConfig(AppConfig):
    """The sample application."""

    name = "chat"

    def ready(self) -> None:
        """Listen for changes to users and members."""
        from chat import authenticated, signals  # noqa: F401

        authenticated.connect_signals()
