"""Stand-ins for modules that cannot be imported, so that the examination goes on without them."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Any


class Stub:
    """Is whatever the application takes it for, and says nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Return another one."""
        return Stub()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return Stub()

    def __getitem__(self, _: Any) -> Any:
        return Stub()

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        return False

    def __mro_entries__(self, _: Any) -> tuple[type, ...]:
        return ()

    def __or__(self, other: Any) -> Any:
        return other

    __add__ = __radd__ = __ror__ = __or__

    def __enter__(self) -> Any:
        return Stub()

    def __exit__(self, *_: object) -> None:
        pass


STARRED: list[str] = []
"""Stand-ins of which ``from MODULE import *`` took nothing: what it would have set is not known."""


class StubModule(types.ModuleType):
    """A module that has every name."""

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":
            STARRED.append(self.__name__)
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return Stub()


class StubFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds stand-ins for the modules named, and for all below them.

    Args:
        names: full names of modules.
        directory: an empty one, which stands for the directory of each.
    """

    def __init__(self, names: Sequence[str], directory: str) -> None:
        self._names = names
        self._directory = directory

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a stand-in's spec, or None for any other module."""
        del path, target
        if not any(fullname == name or fullname.startswith(f"{name}.") for name in self._names):
            return None
        spec = importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        spec.submodule_search_locations = [self._directory]
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Return an empty module that has every name."""
        return StubModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Do nothing: the module has no code."""


def install(names: Sequence[str], directory: str) -> None:
    """Let the modules named be stand-ins."""
    if names:
        sys.meta_path.insert(0, StubFinder(names, directory))


def is_stub(value: Any) -> bool:
    """Return whether a value is one of a stand-in's, or holds one."""
    if isinstance(value, Stub | StubModule):
        return True
    if isinstance(value, dict):
        return any(is_stub(each) for each in value.values())
    return isinstance(value, list | tuple) and any(is_stub(each) for each in value)
