"""What packs an application into a release, on the controller."""


class PackError(Exception):
    """A release cannot be packed; the message says why, and what to do."""
