"""The packages of others that serve: whether their versions fit, and what to do where not.

An application pins what it needs. Two of its pins can stand in the way of the server: a server
that the kit does not know, and `websockets` in a version that Uvicorn cannot use.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from channels_kit import SITE_PACKAGES

WEBSOCKETS_LEAST = "13.0"
"""The oldest `websockets` that Uvicorn's WebSocket protocol names (its extra `standard`)."""


class PackageError(Exception):
    """A package is missing, or too old; the message says what to do."""


def require(package: str, least: str) -> None:
    """Check that a package is installed in a version that the kit can use.

    Raises:
        PackageError: it is not.
    """
    found = installed(package)
    if found is None:
        raise PackageError(f"{package} is not installed; install {package}>={least}")
    if numbers(found) < numbers(least):
        raise PackageError(
            f"{package} {found} is too old for this kit; allowed: {package}>={least}."
            " Change the application's requirement, or select another server: channels_server"
        )


def installed(package: str) -> str | None:
    """Return the version of a package that an import would find; None: there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def numbers(text: str) -> tuple[int, ...]:
    """Return a version's numbers, up to the first part that has none: 0.52.1rc1 is 0.52.1."""
    match = re.match(r"\d+(\.\d+)*", text)
    parts = [int(part) for part in match[0].split(".")] if match else []
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def import_with_websockets(module: str) -> None:
    """Import a module that needs `websockets`.

    Where the application has one that is too old, the module gets the kit's. It keeps that one for
    itself: the application imports its own, before and after.

    Raises:
        PackageError: there is none that fits.
    """
    found = installed("websockets")
    if found is not None and numbers(found) >= numbers(WEBSOCKETS_LEAST):
        import_module(module)
        return
    with _kit_first("websockets"):
        try:
            import_module(module)
        except ImportError as error:
            raise PackageError(
                f"Uvicorn needs websockets>={WEBSOCKETS_LEAST}; the application has"
                f" {found or 'none'}, and {SITE_PACKAGES} has none that can be used ({error})"
            ) from error


@contextmanager
def _kit_first(package: str) -> Iterator[None]:
    """Have imports find the kit's version of a package; forget it afterwards."""
    own = _take_out(package)
    sys.path.insert(0, SITE_PACKAGES)
    try:
        yield
    finally:
        sys.path.remove(SITE_PACKAGES)
        _take_out(package)
        sys.modules.update(own)


def _take_out(package: str) -> dict[str, ModuleType]:
    """Remove a package's modules from those that are imported, and return them."""
    names = [name for name in sys.modules if f"{name}.".startswith(f"{package}.")]
    return {name: sys.modules.pop(name) for name in names}
