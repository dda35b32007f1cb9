"""Messages as bytes, and bytes as messages.

What Redis carries of a message is an *entry*: `EPOCH OFFSET ` in ASCII, which Redis itself writes,
then the *body*: who sent it (8 bytes), the sender's own number (8 bytes), and the payload.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgpack  # type: ignore[import-untyped]

_HEAD = struct.Struct("!8sQ")


class CodecError(Exception):
    """Bytes that are no message, or encrypted with a key that is not known."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One message as it comes out of Redis.

    Attributes:
        epoch: of the Redis that has taken it.
        offset: its place among the messages of its topic in that epoch.
        sender: who has sent it.
        number: the sender's own; a higher one was sent later.
        payload: the message; encrypted, where there are keys.
    """

    epoch: bytes
    offset: int
    sender: bytes
    number: int
    payload: bytes

    @classmethod
    def parse(cls, data: bytes) -> Entry:
        """Read an entry.

        Raises:
            CodecError: it is none.
        """
        try:
            epoch, offset, body = data.split(b" ", 2)
            sender, number = _HEAD.unpack_from(body)
            return cls(epoch, int(offset), sender, number, body[_HEAD.size :])
        except (ValueError, struct.error) as error:
            raise CodecError("not an entry of this layer") from error


def body_of(sender: bytes, number: int, payload: bytes) -> bytes:
    """Return what is sent of a message."""
    return _HEAD.pack(sender, number) + payload


def pack(message: Any) -> bytes:
    """Return a message as bytes.

    Raises:
        TypeError: it holds what msgpack does not know.
    """
    packed: bytes = msgpack.packb(message, use_bin_type=True)
    return packed


def unpack(packed: bytes) -> Any:
    """Return a message of its own for each that calls.

    Raises:
        CodecError: it is none.
    """
    try:
        return msgpack.unpackb(packed, raw=False)
    except Exception as error:  # whatever msgpack raises for what is no msgpack
        raise CodecError("not a message") from error


class Cipher:
    """Encrypts messages, if there are keys.

    Args:
        keys: the first encrypts, all decrypt.

    Raises:
        ValueError: it is no list of keys.
    """

    def __init__(self, keys: Sequence[str | bytes] = ()) -> None:
        # None where there are no keys.
        self._fernet: Any = None
        if isinstance(keys, str | bytes):
            raise ValueError("symmetric_encryption_keys must be a list of keys")
        if keys:
            # Needed with keys alone.
            from cryptography.fernet import Fernet, MultiFernet

            self._fernet = MultiFernet([Fernet(_fernet_key(key)) for key in keys])

    def seal(self, packed: bytes) -> bytes:
        """Return what may be seen in Redis."""
        return packed if self._fernet is None else self._fernet.encrypt(packed)

    def open(self, payload: bytes) -> bytes:
        """Return what was sealed.

        Raises:
            CodecError: no key opens it.
        """
        if self._fernet is None:
            return payload
        from cryptography.fernet import InvalidToken

        try:
            packed: bytes = self._fernet.decrypt(payload)
        except InvalidToken as error:
            raise CodecError("no key decrypts it") from error
        return packed


def _fernet_key(key: str | bytes) -> bytes:
    text = key.encode() if isinstance(key, str) else key
    return base64.urlsafe_b64encode(hashlib.sha256(text).digest())
