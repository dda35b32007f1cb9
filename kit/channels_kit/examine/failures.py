"""What an exception means that an application raises while it starts."""

from __future__ import annotations

import ast
import errno
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from channels_kit.examine.finding import Finding
from channels_kit.examine.guards import ConnectionAtImportError, RefusedError
from channels_kit.examine.reads import Reads, lacking, misread
from channels_kit.examine.sources import package_of, syntax_finding

CHECKS = "the system checks run"
LIBRARY = ("cannot open shared object file", "cannot load library", "Could not find the GDAL")


class TookTooLongError(BaseException):
    """The application has not started in the time it has."""


@dataclass(frozen=True)
class Failure:
    """An exception of the application, explained.

    Args:
        finding: what to say of it.
        variable: the variable without which it was raised; a placeholder shows what comes next.
        stub: the module that cannot be imported; a stand-in shows what comes next.
        sure: whether it is not the consequence of an earlier failure.
    """

    finding: Finding
    variable: str = ""
    stub: str = ""
    sure: bool = True


@dataclass(frozen=True)
class Place:
    """A line of the application."""

    name: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.name}:{self.number}" if self.name else ""


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that it was raised from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )


def frames(error: BaseException, root: Path) -> list[tuple[FrameType, int]]:
    """Return the frames of the project that an exception went through, the innermost last."""
    prefix = str(root) + "/"
    return [
        (frame, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename.startswith(prefix)
    ]


def place(error: BaseException, root: Path) -> Place:
    """Return the innermost line of the project that an exception went through."""
    found = frames(error, root)
    if not found:
        return Place("", 0, "")
    frame, number = found[-1]
    file = Path(frame.f_code.co_filename)
    try:
        text = statement(file.read_text(errors="replace"), number)
    except (OSError, SyntaxError, ValueError):
        text = ""
    return Place(file.relative_to(root).as_posix(), number, text)


def statement(source: str, number: int) -> str:
    """Return the whole simple statement of a line, or the line of a compound one."""
    lines = source.splitlines()
    found = lines[number - 1 : number]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt) and not hasattr(node, "body"):
            end = node.end_lineno or node.lineno
            if node.lineno <= number <= end:
                found = lines[node.lineno - 1 : end]
    return "\n".join(found)


def failed_module(error: BaseException, root: Path, settings_module: str) -> str:
    """Return the module of the project whose import has failed; never one of the settings."""
    for frame, _ in reversed(frames(error, root)):
        if frame.f_code.co_name == "<module>":
            name = str(frame.f_globals.get("__name__", ""))
            is_settings = f"{name}.".startswith((f"{settings_module}.", "__main__."))
            return "" if is_settings else name
    return ""


def explain(
    error: BaseException, step: str, root: Path, settings_module: str, reads: Reads
) -> Failure:
    """Return what an exception means.

    Args:
        error: what was raised.
        step: what was done: "the settings are imported".
        root: the project.
        settings_module: its settings.
        reads: the variables that it asked for.
    """
    where = place(error, root)
    stub = failed_module(error, root, settings_module)
    at = f"{where} " if where.name else ""
    if isinstance(error, SyntaxError) and error.filename:
        return _syntax(error, root)
    if variable := lacking(error, reads.unset(), where.text):
        return Failure(
            Finding(
                name="missing-variable",
                what=variable,
                value="not set",
                why=f"{at}needs this environment variable: {_said(error)}",
                line=variable,
            ),
            variable=variable,
        )
    if variable := misread(error, reads.given(), where.text):
        return Failure(
            Finding(
                name="variable-form",
                what=variable,
                value="cannot be read",
                why=f"{at}cannot read the value of this environment variable: {_said(error)}",
                line=variable,
            ),
            variable=variable,
        )
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _module(error, error.name, str(where), root)
    if isinstance(error, ImportError | OSError) and any(text in str(error) for text in LIBRARY):
        return Failure(
            Finding(
                name="system-library",
                what=str(where),
                value=str(error),
                why="A library of the operating system is missing on this machine, so the"
                " application was examined only in part. The hosts need it, too.",
                line="base_packages: [...]  # Debian's package with this library",
                obstacle=False,
            ),
            stub=stub,
        )
    for each in chain(error):
        if isinstance(each, ConnectionAtImportError):
            return Failure(
                connects(str(each.strerror).removeprefix("not connected to "), str(where)),
                stub=stub,
            )
        if isinstance(each, RefusedError):
            return Failure(writes(each, str(where), root), stub=stub)
    if isinstance(error, SystemExit):
        return Failure(
            Finding(
                name="exits-at-import",
                what=str(where) or step,
                value=f"exit status {error.code if isinstance(error.code, int) else 1}",
                why=f"The process ends while {step}. No worker can start.",
                line=f"In {where.name or 'the application'}: raise an exception, or move the exit"
                " into a function that runs only as a program.",
            ),
            stub=stub,
        )
    if isinstance(error, TookTooLongError):
        return Failure(
            Finding(
                name="endless-start",
                what=str(where) or step,
                value=str(error),
                why=f"The start does not end: it hangs while {step}. No worker can start.",
                line=f"In {where.name or 'the application'}: move this into a task or a command. Do"
                " not run it while the module is imported.",
            ),
            stub=stub,
        )
    return Failure(
        Finding(
            name="fails-at-import" if stub or step != CHECKS else "check-fails",
            what=str(where) or step,
            value=_said(error),
            why=f"This exception is raised while {step}. No worker can start.",
            line=f"In {where.name}: fix line {where.number}."
            if where.name
            else "In the application: fix this error.",
        ),
        stub=stub,
        sure=False,
    )


def connects(address: str, where: str) -> Finding:
    """Return what to say of an application that connects while it starts."""
    return Finding(
        name="connects-at-import",
        what=where,
        value=address,
        why="The application connects while it is imported. While that server is down, no worker"
        " and no command of the application can start.",
        line="In the application: connect on first use.",
    )


def writes(error: OSError, where: str, root: Path) -> Finding:
    """Return what to say of an application that writes while it starts."""
    path = str(error.filename)
    if path.startswith(("/tmp/", "/var/tmp/")) and not Path(path).is_relative_to(root):  # noqa: S108
        return Finding(
            name="writes-to-tmp",
            what=where,
            value=path,
            why="The application writes there while it is imported. A host allows this. The"
            " examination does not, so the application was examined only in part.",
            line="",
            obstacle=False,
        )
    return Finding(
        name="writes-at-import",
        what=where,
        value=path,
        why=f"The application writes there while it is imported, but cannot on a host:"
        f" {error.strerror if error.errno != errno.EROFS else 'a release is read-only'}.",
        line=path,
    )


def _module(error: ModuleNotFoundError, name: str, where: str, root: Path) -> Failure:
    top = name.partition(".")[0]
    path = Path(*name.split("."))
    own = (root / top).is_dir() or (root / f"{top}.py").is_file()
    if own:
        finding = Finding(
            name="missing-module",
            what=name,
            value="not in the release",
            why=f"{where or 'The application'} imports it, but {path}.py is not in the release."
            " A release contains no file that Git ignores.",
            line=f"Add {path}.py to the project's repository.",
        )
    else:
        finding = Finding(
            name="missing-module",
            what=name,
            value="not installed",
            why=f"{where or 'The application'} imports it, but it is not among the application's"
            " packages.",
            line=f"In the project's requirements: add {package_of(name)}",
        )
    return Failure(finding, stub=name if own else top)


def _syntax(error: SyntaxError, root: Path) -> Failure:
    file = Path(str(error.filename))
    if not file.is_relative_to(root):
        finding = Finding(
            name="syntax-error",
            what=f"{file}:{error.lineno or 1}",
            value=str(error.msg),
            why="Python cannot parse this file of a package.",
            line="In the project's requirements: use a version of the package for this Python.",
        )
        return Failure(finding)
    name = file.relative_to(root)
    parts = name.with_suffix("").parts
    stub = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Failure(syntax_finding(error, name.as_posix(), imported=True), stub=stub)


def _said(error: BaseException) -> str:
    """Return an exception in a line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
