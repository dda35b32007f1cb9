"""A channel layer on Redis for many sockets in a group: docs/layer.md.

It needs Channels, redis-py and msgpack, and no other part of the kit.
"""

from channels_kit.layer.consumer import FanoutConsumer
from channels_kit.layer.errors import ConsumerOverflowError, LayerUnavailableError
from channels_kit.layer.layer import RedisFanoutLayer

__all__ = ["ConsumerOverflowError", "FanoutConsumer", "LayerUnavailableError", "RedisFanoutLayer"]
