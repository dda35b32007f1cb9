"""What is for the clients of a whole group, as the bytes that each of them gets.

A server's frames are not masked: the bytes are the same for every client.
"""

from __future__ import annotations

from channels_kit.layer import codec
from channels_kit.layer.codec import CodecError

EXTENSION = "channels_kit.websocket.frames"
"""The server's, in `scope["extensions"]`."""

EVENT = "layer.broadcast"
"""The type of an event whose `text` or `bytes` go to the client as they are."""

_PACKED_TYPE = codec.pack({"type": EVENT, "text": ""})[: len(codec.pack({"type": EVENT}))]

_TEXT, _BINARY = 0x81, 0x82


def frame_of(packed: bytes) -> bytes | None:
    """Return the WebSocket frame of a message that is for the client as it is; else None."""
    if not packed.startswith(_PACKED_TYPE):
        return None
    try:
        content = codec.unpack(packed)
    except CodecError:
        return None
    text, data = content.get("text"), content.get("bytes")
    if isinstance(text, str):
        return _frame(_TEXT, text.encode())
    return _frame(_BINARY, data) if isinstance(data, bytes) else None


def _frame(opcode: int, content: bytes) -> bytes:
    """Return a whole frame without a mask: RFC 6455, section 5.2."""
    size = len(content)
    if size < 126:
        return bytes((opcode, size)) + content
    if size < 1 << 16:
        return bytes((opcode, 126)) + size.to_bytes(2) + content
    return bytes((opcode, 127)) + size.to_bytes(8) + content
