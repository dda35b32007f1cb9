"""What the layer raises beside `channels.exceptions.ChannelFull`.

Exception
+-- LayerUnavailableError    Redis has been away for too long
+-- ConsumerOverflowError    a consumer is too slow, and the policy is to close it
"""


class LayerUnavailableError(Exception):
    """Redis did not answer within `send_timeout`, or more than `send_buffer` bytes wait for it.

    The message may have been sent nevertheless, if the connection ended while it was under way.
    """


class ConsumerOverflowError(Exception):
    """A consumer's mailbox was full and the policy is `close`; its channel has left all groups."""
