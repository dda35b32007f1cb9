"""What the layer raises beside `channels.exceptions.ChannelFull`.

Exception
+-- LayerUnavailableError    Redis has been away for too long
+-- ConsumerOverflowError    a consumer is too slow, and the policy is to close it
"""


class LayerUnavailableError(Exception):
    """Redis did not answer within `send_timeout` seconds, or `send_buffer` bytes wait for it.

    Redis may have the message nevertheless, if the connection ended after it was sent.
    """


class ConsumerOverflowError(Exception):
    """A consumer's mailbox was full, with the policy `close`; its channel has left its groups."""
