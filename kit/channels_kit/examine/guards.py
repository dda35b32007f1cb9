"""What an application may not do while it is examined: connect, write, start programs.

Installed in the child process before anything of the application is imported. What is refused
fails as it would on a host: a release cannot be written to, and no program is installed there.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import logging.handlers
import os
import platform
import re
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Note = Callable[[str, str, str], None]
"""Takes what was tried (connect, write, start), with what, and where in the application."""

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    "os.chmod": 0,
    "os.chown": 0,
    "os.link": 1,
    "os.mkdir": 0,
    "os.remove": 0,
    "os.rename": 1,
    "os.rmdir": 0,
    "os.symlink": 1,
    "os.truncate": 0,
    "os.utime": 0,
    "sqlite3.connect": 0,
}
"""Audit events that change the file system, and which argument is the path."""

STARTS = {"os.exec", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"}
HARMLESS = {"ldconfig", "uname"}
"""Programs that the standard library itself asks about the machine."""


class RefusedError(OSError):
    """What the application tried is not allowed here."""


class ConnectionAtImportError(RefusedError, ConnectionRefusedError):
    """The application tried to connect to something while it was examined."""


class Guards:
    """Refuses what an application under examination may not do.

    Args:
        root: the project, to tell where in it something was tried.
        writable: the directories that may be written to, the temporary one and those of a host.
        note: is told of what was refused.
    """

    def __init__(self, root: Path, writable: Iterable[Path], note: Note) -> None:
        self._root = str(root) + os.sep
        self._writable = tuple(str(each) + os.sep for each in writable)
        self._note = note
        self.log_files: list[str] = []

    def install(self) -> None:
        """Guard this process, for good."""
        self._silence_log_files()
        sys.addaudithook(self._audit)
        deny_connections()

    def where(self) -> str:
        """Return the line of the application that is executed now; empty if it is none."""
        for frame, line in traceback.walk_stack(sys._getframe(1)):
            name = frame.f_code.co_filename
            if name.startswith(self._root):
                return f"{name.removeprefix(self._root)}:{line}"
        return ""

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = flags & WRITING if isinstance(flags, int) else False
            if not isinstance(path, int) and (writes or set(mode or "") & set("wax+")):
                self._refuse_writing(path)
        elif event in CHANGES:
            path = arguments[CHANGES[event]]
            if event == "os.mkdir" and os.path.isdir(path):  # noqa: PTH112 - bytes, too
                return  # fails by itself
            if not (event == "sqlite3.connect" and re.search(r"^:memory:|mode=ro", str(path))):
                self._refuse_writing(path)
        elif event in ("socket.connect", "socket.sendto"):
            self._refuse_connecting(arguments[0], arguments[1])
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            self._refuse_connecting(None, arguments[:2])
        elif event in STARTS:
            program = os.fsdecode(arguments[0] or b"")
            if Path(program.split(" ")[0]).name not in HARMLESS:
                self._note("start", program, self.where())
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), program)

    def _refuse_writing(self, path: Any) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return
        name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - also of what is not there
        if (name + os.sep).startswith((*self._writable, "/dev/")):
            return
        self._note("write", name, self.where())
        raise RefusedError(errno.EROFS, os.strerror(errno.EROFS), name)

    def _refuse_connecting(self, which: Any, address: Any) -> None:
        if which is not None and which.family not in (socket.AF_INET, socket.AF_INET6):
            place = address if isinstance(address, str) else os.fsdecode(bytes(address or b""))
        else:
            host, port = (*address, "")[:2]
            host = os.fsdecode(host) if isinstance(host, bytes) else host
            place = f"{host}:{port}" if port else str(host)
            if which is None and host in (None, "", socket.gethostname()):
                return
        self._note("connect", place, self.where())
        raise ConnectionAtImportError(errno.ECONNREFUSED, f"not connected to {place}")

    def _silence_log_files(self) -> None:
        """Let handlers of log files write to nothing, and note which files they would open."""
        files = self.log_files

        def open_nothing(handler: logging.FileHandler) -> Any:
            if handler.baseFilename not in files:
                files.append(handler.baseFilename)
            return open(os.devnull, "a")  # noqa: PTH123 - what a handler keeps open

        def connect_nothing(handler: logging.handlers.SysLogHandler) -> None:
            vars(handler)["socket"] = None

        replaced: list[tuple[Any, str, Any]] = [
            (logging.FileHandler, "_open", open_nothing),
            (logging.handlers.SysLogHandler, "createSocket", connect_nothing),
        ]
        for kind, name, method in replaced:
            setattr(kind, name, method)


_CALLS = {"x86_64": (0xC000003E, 42), "aarch64": (0xC00000B7, 203)}
"""How seccomp knows an architecture, and its number of connect(2)."""


def deny_connections() -> bool:
    """Deny this process connect(2), for good; return whether the kernel does.

    For libraries that connect without Python, such as libpq. Without it the audit hook still
    refuses what Python itself does.
    """
    if sys.platform != "linux" or platform.machine() not in _CALLS:
        return False
    architecture, call = _CALLS[platform.machine()]
    load, equal, give = 0x20, 0x15, 0x06
    allow, deny = 0x7FFF0000, 0x00050000 | errno.ECONNREFUSED
    program = [
        (load, 0, 0, 4),  # the architecture
        (equal, 0, 2, architecture),
        (load, 0, 0, 0),  # the number of the call
        (equal, 1, 0, call),
        (give, 0, 0, allow),
        (give, 0, 0, deny),
    ]
    code = b"".join(struct.pack("HBBI", *each) for each in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    pointer = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    filter_program = ctypes.create_string_buffer(pointer, len(pointer))
    library = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, mode_filter = 38, 22, 2
    if library.prctl(no_new_privileges, 1, 0, 0, 0):
        return False
    return bool(library.prctl(set_seccomp, mode_filter, filter_program, 0, 0) == 0)
