import time
from typing import Any

from django.conf import settings

from chat import layer, protocol
from chat.consumers import PersonConsumer
from chat.local_rooms import REJOIN_SECONDS
from chat.protocol import ErrorCode, ProtocolError


class NotificationConsumer(PersonConsumer):
    """One socket for all that concerns one person, in whatever page they are."""

    async def enter(self) -> None:
        """Listen for what concerns the person."""
        self.group = layer.user_group(self.person.id)
        # When this socket has last joined its group, by the monotonic clock.
        self.joined_at = time.monotonic()
        await self.join_group()
        await self._send_frame({"type": "ready", "worker": settings.CHANNELS_KIT_WORKER})

    async def act(self, text: str | None, content: bytes | None) -> None:
        """Answer a sign of life, the only thing a client says here."""
        action = protocol.parse_frame(text) if text is not None else None
        if not isinstance(action, protocol.Ping):
            raise ProtocolError(ErrorCode.UNKNOWN_ACTION, 'Only "ping" is understood here.')
        # The layer forgets a member after a day; a client that stays has long sent a ping by then.
        if time.monotonic() - self.joined_at >= REJOIN_SECONDS:
            self.joined_at = time.monotonic()
            await self.join_group()
        await self._send_frame({"type": "pong"})

    async def person_frame(self, event: dict[str, Any]) -> None:
        """Pass on what concerns the person."""
        await self.send(text_data=event["frame"])
