"""Whether a page of the application is answered: one request, and what it redirects to."""

import asyncio
import http.client
import io
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from channels_kit.probe.address import Place, is_path
from channels_kit.probe.asking import forwarded_headers
from channels_kit.probe.result import PageResult
from channels_kit.probe.socket import delay_of, explain

MAX_REDIRECTS = 5
"""Redirects that are followed; one more counts as an answer, as the first did."""

MAX_BODY = 4096
"""Bytes that are read of the body of a refusal."""

MAX_HEAD = 2**16
"""Bytes of status line and headers."""


REFUSED_NAME = b"Bad Request (400)"
"""What Django answers where a request's Host is not in ALLOWED_HOSTS."""


@dataclass(frozen=True)
class Answer:
    """A response.

    Attributes:
        status: its status.
        headers: its headers.
        body: the beginning of its body; empty, but for a status of 400.
    """

    status: int
    headers: http.client.HTTPMessage
    body: bytes = b""


async def check_page(place: Place, path: str, seconds: float) -> PageResult:
    """Ask a server for a page; a status of 500 or above, or no answer in time, is a failure.

    A redirect is an answer. It is followed where it leads to another path of the same site, so that
    `/` which leads to a login page that fails is no success. Cookies are not kept.
    """
    asked = [path]
    status: int | None = None
    failure: str | None
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            while True:
                answer = await _ask(place, asked[-1])
                status = answer.status
                delay = delay_of(status, answer.headers.get("Retry-After", ""))
                if delay is not None:
                    # Busy for a moment, and it says so.
                    await asyncio.sleep(delay)
                    continue
                target = followed(place, asked[-1], answer)
                if target is None or target in asked or len(asked) > MAX_REDIRECTS:
                    break
                asked.append(target)
    except Exception as error:
        failure = explain(error)
        if deadline.expired():
            busy = f"answered {status}; tried again for" if status else "no answer within"
            failure = f"{busy} {seconds:g} s"
        status = None
    else:
        failure = failure_of(answer)
    way = asked[-1] if len(asked) > 1 else None
    return PageResult(path, place.label, place.base, place.direct, way, status, failure)


async def status_of(place: Place, path: str) -> int:
    """Return the status of one request; redirects are not followed.

    Raises:
        Exception: there was no answer.
    """
    return (await _ask(place, path)).status


def failure_of(answer: Answer) -> str | None:
    """Return why an answer is none of the page's; None: it is one."""
    if answer.status == http.client.MISDIRECTED_REQUEST:
        return "answered 421: the edge does not serve the name of the site"
    if answer.status == http.client.BAD_REQUEST and REFUSED_NAME in answer.body:
        return "answered 400: the name of the site may be missing in ALLOWED_HOSTS"
    if answer.status >= http.client.INTERNAL_SERVER_ERROR:
        return f"answered {answer.status}"
    return None


def followed(place: Place, path: str, answer: Answer) -> str | None:
    """Return the path that a redirect leads to; None: there is none, or it leads elsewhere."""
    location = answer.headers.get("Location")
    if not 300 <= answer.status < 400 or not location:
        return None
    site = place.asked
    try:
        parts = urlsplit(urljoin(f"{site.origin}{path}", location))
    except ValueError:
        return None
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    same = (parts.scheme, parts.netloc.lower()) == (site.scheme, site.netloc.lower())
    return target if same and is_path(target) else None


async def _ask(place: Place, path: str) -> Answer:
    """Send one request and read the head of its answer."""
    host, port = place.dialled
    site = place.asked
    reader, writer = await asyncio.open_connection(
        host,
        port,
        limit=MAX_HEAD,
        ssl=place.tls,
        server_hostname=site.host if place.is_encrypted else None,
    )
    try:
        headers = {
            "Host": site.netloc,
            "User-Agent": "channels-kit-probe",
            "Accept": "text/html,*/*;q=0.8",
            "Connection": "close",
            **forwarded_headers(place),
        }
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {text}" for name, text in headers.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode("ascii"))
        await writer.drain()
        return await _read_answer(reader)
    finally:
        writer.transport.abort()


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the connection was closed without an answer") from error
        line, _, rest = head.partition(b"\r\n")
        version, status, *_ = line.split(b" ", 2)
        if not version.startswith(b"HTTP/1."):
            raise ValueError("no answer of HTTP/1.1")
        # 103 Early Hints, and others that come before the answer.
        if int(status) >= http.client.OK:
            body = await reader.read(MAX_BODY) if int(status) == http.client.BAD_REQUEST else b""
            return Answer(int(status), http.client.parse_headers(io.BytesIO(rest)), body)
