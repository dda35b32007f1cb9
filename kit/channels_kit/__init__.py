"""Serve a Django Channels application from several workers, and prove that messages arrive.

Nothing is imported here, so that `channels_kit.serving.wait` starts at once.
"""

import os
import sys

SITE_PACKAGES = os.path.join(os.path.dirname(os.path.dirname(__file__)), "site-packages")  # noqa: PTH118, PTH120 - pathlib takes longer to import than the rest
"""What a release has for the kit itself. It does not exist where the kit is installed."""

# At the end: what the application has in a version of its own is found first.
if SITE_PACKAGES not in sys.path and os.path.isdir(SITE_PACKAGES):  # noqa: PTH112 - as above
    sys.path.append(SITE_PACKAGES)
