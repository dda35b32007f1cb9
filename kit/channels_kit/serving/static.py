"""Serves the static files that were collected for a release, whatever the application does.

What the edge does not have in its cache, a worker answers here, before the application. An
application with WhiteNoise has the same files. The files of a release never change.
"""

import asyncio
import mimetypes
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from urllib.parse import urlsplit

from channels_kit.serving.types import ASGIApplication, Receive, Scope, Send

ROOT = "CHANNELS_KIT_STATIC_ROOT"
"""The variable with the directory that the files were collected into."""

CHUNK = 64 * 1024
# Seconds that browsers keep a file; as WhiteNoise has it.
FOR_EVER = 315_360_000
MINUTE = 60

ENCODINGS = {b"br": ".br", b"gzip": ".gz"}
"""Compressed files beside the original, as WhiteNoise's storages make them; the best first."""

# As Django's ManifestStaticFilesStorage names files after their content.
_HASHED = re.compile(r"\.[0-9a-f]{12}\.[^/]+$")


@dataclass(frozen=True)
class Found:
    """A file that answers a request."""

    path: Path
    name: str
    """The original's path below the root."""
    size: int
    modified: float
    encoding: bytes = b""
    varies: bool = False

    @property
    def etag(self) -> bytes:
        """What changes with the file."""
        return f'"{int(self.modified):x}-{self.size:x}"'.encode()


class StaticFiles:
    """Answers GET and HEAD for files below a prefix; all else is the application's.

    Args:
        application: who answers what is no file.
        root: the directory of the files.
        prefix: the path of STATIC_URL, with a slash at its end.
    """

    def __init__(self, application: ASGIApplication, root: Path, prefix: str) -> None:
        self.application = application
        self.root = root.resolve()
        self.prefix = prefix
        self.immutable = (self.root / "staticfiles.json").is_file()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            path: str = scope["path"]
            if path.startswith(self.prefix):
                accepted = dict(scope["headers"]).get(b"accept-encoding", b"")
                name = path[len(self.prefix) :]
                if found := await asyncio.to_thread(self.find, name, accepted):
                    await self.answer(found, scope, send)
                    return
        await self.application(scope, receive, send)

    def find(self, name: str, accepted: bytes = b"") -> Found | None:
        """Return the file of a name; none where there is none, or it is outside of the root."""
        if not name or "\0" in name:
            return None
        try:
            path = Path(os.path.realpath(self.root / name.lstrip("/")))
            if not path.is_relative_to(self.root) or not path.is_file():
                return None
            varies = False
            for encoding, suffix in ENCODINGS.items():
                beside = path.with_name(path.name + suffix)
                if not beside.is_file():
                    continue
                varies = True
                if encoding in accepted:
                    status = beside.stat()
                    return Found(beside, name, status.st_size, status.st_mtime, encoding, True)
            status = path.stat()
        except OSError:  # a name that is too long
            return None
        return Found(path, name, status.st_size, status.st_mtime, varies=varies)

    def headers(self, found: Found) -> list[tuple[bytes, bytes]]:
        """Return the headers of a file."""
        kind = mimetypes.guess_type(found.name)[0] or "application/octet-stream"
        if kind.startswith("text/") or kind == "application/javascript":
            kind += '; charset="utf-8"'
        for_ever = self.immutable and _HASHED.search(found.name)
        keep = f"max-age={FOR_EVER}, public, immutable" if for_ever else f"max-age={MINUTE}, public"
        headers = [
            (b"content-type", kind.encode()),
            (b"cache-control", keep.encode()),
            (b"etag", found.etag),
            (b"last-modified", formatdate(found.modified, usegmt=True).encode()),
            # Fonts and modules of another origin's pages; they are public.
            (b"access-control-allow-origin", b"*"),
            (b"x-content-type-options", b"nosniff"),
        ]
        if found.encoding:
            headers.append((b"content-encoding", found.encoding))
        if found.varies:
            headers.append((b"vary", b"Accept-Encoding"))
        return headers

    async def answer(self, found: Found, scope: Scope, send: Send) -> None:
        """Send a file, or that the client has it."""
        headers = self.headers(found)
        if found.etag in dict(scope["headers"]).get(b"if-none-match", b""):
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        headers.append((b"content-length", str(found.size).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] == "GET":
            file = await asyncio.to_thread(found.path.open, "rb")
            with file:
                while chunk := await asyncio.to_thread(file.read, CHUNK):
                    body = {"type": "http.response.body", "body": chunk, "more_body": True}
                    await send(body)
        await send({"type": "http.response.body", "body": b""})


def with_static_files(
    application: ASGIApplication, environment: Mapping[str, str] = os.environ
) -> ASGIApplication:
    """Return an application behind the static files of its release, or as it is without any."""
    root = Path(environment.get(ROOT) or "/nowhere")
    if not root.is_dir() or not any(root.iterdir()):
        return application
    from django.conf import settings

    url = urlsplit(str(settings.STATIC_URL or ""))
    # Those of another host are served there.
    if url.netloc or not url.path.strip("/"):
        return application
    # The project has none, or one that is not there; its storage looks for the manifest in it.
    if not settings.STATIC_ROOT or not Path(settings.STATIC_ROOT).is_dir():
        settings.STATIC_ROOT = str(root)
    prefix = url.path if url.path.startswith("/") else f"/{url.path}"
    return StaticFiles(application, root, prefix if prefix.endswith("/") else f"{prefix}/")
