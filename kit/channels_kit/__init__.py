"""Serve a Django Channels application from several workers, and prove that messages arrive.

Nothing is imported here, so that `channels_kit.serving.wait` starts at once.
"""
