from typing import Any

from django.conf import settings

from chat import layer, protocol
from chat.consumers import PersonConsumer
from chat.protocol import ErrorCode, ProtocolError


class NotificationConsumer(PersonConsumer):
    """One socket for all that concerns one person, in whatever page they are."""

    async def enter(self) -> None:
        """Listen for what concerns the person."""
        self.group = layer.user_group(self.person.id)
        await self.join_group()
        await self._send_frame({"type": "ready", "worker": settings.CHANNELS_KIT_WORKER})

    async def act(self, text: str | None, content: bytes | None) -> None:
        """Answer a sign of life, the only thing a client says here."""
        action = protocol.parse_frame(text) if text is not None else None
        if not isinstance(action, protocol.Ping):
            raise ProtocolError(ErrorCode.UNKNOWN_ACTION, 'Only "ping" is understood here.')
        # Nothing else would tell that the layer has forgotten this socket, as it does after a day
        # and when its Redis restarts: most of the time nothing is to be heard here.
        await self.rejoin_group()
        await self._send_frame({"type": "pong"})

    async def person_frame(self, event: dict[str, Any]) -> None:
        """Pass on what concerns the person."""
        await self.send(text_data=event["frame"])
