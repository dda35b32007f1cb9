"""The ASGI wrapper around an operator's application; `channels_kit.serving.asgi` is its entry.

Nothing is imported here: `channels_kit.serving.wait` runs beside every start of a worker.
"""
