"""The configuration of nginx: from the text of ``nginx -T`` to what holds at each place.

No input and no output here. A directive holds where it stands, and in the blocks below unless one
of them has it too; of ``proxy_set_header`` a block has all of its own or all of the one around it.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

TOKEN = re.compile(
    r"""\s*(?:
        (?P<comment>\#[^\n]*)
      | (?P<mark>[;{}])
      | "(?P<double>(?:[^"\\]|\\.)*)"
      | '(?P<single>(?:[^'\\]|\\.)*)'
      | (?P<word>(?:\$\{|[^\s;{}"'\\]|\\.)(?:\$\{[^}]*\}|[^\s;{}\\]|\\.)*)
    )""",
    re.X | re.S,
)
FILE = re.compile(r"^# configuration file (.+):$", re.M)

DEFAULTS = {
    "proxy_read_timeout": "60s",
    "proxy_send_timeout": "60s",
    "proxy_connect_timeout": "60s",
    "proxy_http_version": "1.0",
    "proxy_buffering": "on",
    "proxy_buffer_size": "4k|8k",
    "proxy_next_upstream": "error timeout",
}
"""What holds where nothing is said. nginx has HTTP 1.1 by default since 1.29.7."""


@dataclass
class Directive:
    """A directive.

    Attributes:
        name: its name.
        values: its arguments.
        block: the directives in its braces; None: it has none.
    """

    name: str
    values: list[str]
    block: list[Directive] | None = None


@dataclass
class Location:
    """A place that passes requests on.

    Attributes:
        path: the path of its location, with its modifier.
        server: the first name of its server.
        passes: where to: the argument of proxy_pass.
        holds: the arguments of each directive that holds, by name.
        headers: the headers that are set, by their names in lower case.
    """

    path: str
    server: str
    passes: str
    holds: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return how an operator knows it."""
        return f"location {self.path} of {self.server}"


class ConfigurationError(Exception):
    """The text is not a configuration of nginx."""


def dumped(text: str) -> dict[str, str]:
    """Return the files in the output of ``nginx -T``, by path, the main one first."""
    parts = FILE.split(text)
    return dict(zip(parts[1::2], parts[2::2], strict=False))


def parse(text: str) -> list[Directive]:
    """Return the directives of a file.

    Raises:
        ConfigurationError: a brace or a semicolon is missing.
    """
    open_blocks: list[list[Directive]] = [[]]
    words: list[str] = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise ConfigurationError(f"unexpected text: {text[position : position + 40]!r}")
        position = match.end()
        mark = match["mark"]
        if match["comment"] is not None:
            continue
        if mark is None:
            words.append(
                next(each for each in match.group("double", "single", "word") if each is not None)
            )
        elif mark == "}":
            open_blocks.pop()
            if not open_blocks:
                raise ConfigurationError("a } closes nothing")
        elif words:
            directive = Directive(words[0], words[1:], [] if mark == "{" else None)
            open_blocks[-1].append(directive)
            words = []
            if directive.block is not None:
                open_blocks.append(directive.block)
    if len(open_blocks) != 1:
        raise ConfigurationError("a { is not closed")
    return open_blocks[0]


def parse_dump(text: str) -> list[Directive]:
    """Return the directives in the output of ``nginx -T``, with the included files in place."""
    files = dumped(text)
    if not files:
        raise ConfigurationError("nginx -T printed no configuration file")
    main = next(iter(files))
    prefix = main.rpartition("/")[0]

    def expanded(directives: Sequence[Directive], depth: int) -> list[Directive]:
        found = []
        for each in directives:
            if each.name == "include" and each.values and depth:
                pattern = each.values[0]
                if not pattern.startswith("/"):
                    pattern = f"{prefix}/{pattern}"
                for path in sorted(fnmatch.filter(files, pattern)):
                    found += expanded(parse(files[path]), depth - 1)
            else:
                block = None if each.block is None else expanded(each.block, depth)
                found.append(Directive(each.name, each.values, block))
        return found

    # Files that include each other are refused by nginx itself.
    return expanded(parse(files[main]), 10)


def value_of(directives: Sequence[Directive], *path: str) -> str | None:
    """Return the arguments of a directive in nested blocks; None where it is not there."""
    for each in directives:
        if each.name == path[0]:
            if len(path) == 1:
                return " ".join(each.values)
            found = value_of(each.block or [], *path[1:])
            if found is not None:
                return found
    return None


def upstreams(directives: Sequence[Directive]) -> dict[str, list[str]]:
    """Return the servers of each upstream, with those that are marked as down left out."""
    found = {}
    for http in named(directives, "http"):
        for upstream in named(http.block or [], "upstream"):
            found[upstream.values[0]] = sorted(
                each.values[0]
                for each in named(upstream.block or [], "server")
                if "down" not in each.values
            )
    return found


def named(directives: Sequence[Directive], name: str) -> Iterator[Directive]:
    """Yield the directives with a name."""
    return (each for each in directives if each.name == name)


def locations(directives: Sequence[Directive]) -> Iterator[Location]:
    """Yield every place that passes requests on, with all that holds there."""
    for http in named(directives, "http"):
        for server in named(http.block or [], "server"):
            names = value_of(server.block or [], "server_name") or "_"
            outer = [http.block or [], server.block or []]
            yield from _below(outer, names.split()[0])


def _below(outer: list[list[Directive]], server: str) -> Iterator[Location]:
    for each in named(outer[-1], "location"):
        blocks = [*outer, each.block or []]
        place = _passing(blocks, each, server)
        if place is not None:
            yield place
        yield from _below(blocks, server)


def _passing(blocks: list[list[Directive]], each: Directive, server: str) -> Location | None:
    """Return a location with all that holds there; None: it passes nothing on."""
    target = value_of(each.block or [], "proxy_pass")
    # proxy_pass is not inherited, except by a block "if" in its location.
    for inner in named(each.block or [], "if"):
        target = target or value_of(inner.block or [], "proxy_pass")
    if target is None:
        return None
    return Location(" ".join(each.values), server, target, _holds(blocks), _headers(blocks))


def location_of(directives: Sequence[Directive], url: str) -> Location | None:
    """Return where nginx passes on what is asked for at a URL; None: it passes it on nowhere."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme in ("https", "wss") else 80)
    for http in named(directives, "http"):
        server = _server_of(list(named(http.block or [], "server")), parts.hostname or "", port)
        if server is None:
            continue
        name = (value_of(server.block or [], "server_name") or "_").split()[0]
        outer = [http.block or [], server.block or []]
        blocks = _matched(outer, parts.path or "/")
        if blocks is None:
            continue
        tried = (value_of(blocks[-1].block or [], "try_files") or "").split()
        if tried and tried[-1].startswith("@"):
            # A file that is not there: what a socket asks for never is.
            blocks = [each for each in named(outer[-1], "location") if each.values == tried[-1:]]
        if blocks:
            return _passing([*outer, *(each.block or [] for each in blocks)], blocks[-1], name)
    return None


def _server_of(servers: Sequence[Directive], host: str, port: int) -> Directive | None:
    """Return the server that answers for a host on a port, as nginx chooses it.

    Behind a load balancer, nginx may listen on another port than people use: then on any.
    """

    def ports(server: Directive) -> set[int]:
        told = [each.values[0] for each in named(server.block or [], "listen")] or ["80"]
        ends = [each.rpartition(":")[2] for each in told]
        return {int(end) if end.isdigit() else 80 for end in ends}

    def names(server: Directive) -> list[str]:
        return [name for each in named(server.block or [], "server_name") for name in each.values]

    there = [each for each in servers if port in ports(each)] or list(servers)
    for fits in (
        lambda name: name == host,
        lambda name: name.startswith(("*", ".")) and fnmatch.fnmatch(f".{host}", f"*{name[1:]}"),
        lambda name: name.startswith("~") and re.search(name[1:], host),
    ):
        for each in there:
            if any(fits(name) for name in names(each)):
                return each
    first = [
        each
        for each in there
        if any("default_server" in listen.values for listen in named(each.block or [], "listen"))
    ]
    return next(iter([*first, *there]), None)


def _matched(outer: list[list[Directive]], path: str) -> list[Directive] | None:
    """Return the location of a path, by prefix or expression; those around it come first."""
    prefix: Directive | None = None
    expressions = []
    for each in named(outer[-1], "location"):
        *modifier, pattern = each.values
        mark = modifier[0] if modifier else ""
        if mark == "=" and path == pattern:
            return [each]
        if mark in ("~", "~*"):
            expressions.append((pattern, re.I if mark == "~*" else 0, each))
        elif (
            mark in ("", "^~")
            and path.startswith(pattern)
            and (prefix is None or len(pattern) > len(prefix.values[-1]))
        ):
            prefix = each
    if prefix is not None:
        below = _matched([*outer, prefix.block or []], path)
        if below is not None:
            return [prefix, *below]
        if prefix.values[0] == "^~":
            return [prefix]
    for pattern, flags, each in expressions:
        try:
            if re.search(pattern, path, flags):
                return [each]
        except re.error:  # of PCRE alone
            continue
    return None if prefix is None else [prefix]


def members_of(directives: Sequence[Directive], passes: str) -> list[str]:
    """Return the servers behind the argument of a proxy_pass, each with its port or its socket."""
    target = passes.partition("://")[2]
    if target.startswith("unix:"):
        return [target.rpartition(":")[0] if target.count(":") > 1 else target]
    name = target.partition("/")[0]
    found = upstreams(directives).get(name, [name])
    plain = "443" if passes.startswith("https") else "80"
    return [
        each if each.startswith("unix:") or re.search(r":\d+$", each) else f"{each}:{plain}"
        for each in found
    ]


def _holds(blocks: Sequence[Sequence[Directive]]) -> dict[str, str]:
    found = dict(DEFAULTS)
    for block in blocks:
        own = {each.name: " ".join(each.values) for each in block if each.block is None}
        found.update({name: value for name, value in own.items() if name != "proxy_set_header"})
    return found


def _headers(blocks: Sequence[Sequence[Directive]]) -> dict[str, str]:
    """Return the headers that are set: those of the innermost block that sets any."""
    for block in reversed(blocks):
        own = {
            each.values[0].lower(): " ".join(each.values[1:])
            for each in named(block, "proxy_set_header")
            if each.values
        }
        if own:
            return own
    return {}


HANDSHAKE = {
    "$request_method": "GET",
    "$http_upgrade": "websocket",
    "$http_connection": "Upgrade",
}
"""The variables of a handshake of a WebSocket."""


def in_a_handshake(directives: Sequence[Directive], text: str, depth: int = 5) -> str:
    """Return what the text of a header comes to when a client asks for a WebSocket.

    Variables that a map sets are looked up there, as nginx does. A variable that is neither set by
    a map nor part of a handshake stays as it is.
    """

    def value(match: re.Match[str]) -> str:
        name = match[0].replace("{", "").replace("}", "")
        if name in HANDSHAKE:
            return HANDSHAKE[name]
        for http in named(directives, "http"):
            for each in named(http.block or [], "map"):
                if each.values[-1] == name and depth:
                    source = in_a_handshake(directives, each.values[0], depth - 1)
                    found = _looked_up(each.block or [], source)
                    return in_a_handshake(directives, found, depth - 1)
        return match[0]

    return re.sub(r"\$\{\w+\}|\$\w+", value, text)


def _looked_up(rows: Sequence[Directive], source: str) -> str:
    """Return what a map makes of its source: literal values, then regular expressions in order."""
    for row in rows:
        if row.name.lower() == source.lower() and row.name != "default":
            return " ".join(row.values)
    for row in rows:
        if row.name.startswith("~"):
            flags = re.I if row.name.startswith("~*") else 0
            try:
                if re.search(row.name.lstrip("~*"), source, flags):
                    return " ".join(row.values)
            except re.error:  # of PCRE alone
                continue
    return next((" ".join(row.values) for row in rows if row.name == "default"), "")


def seconds(text: str) -> float | None:
    """Return a time of nginx in seconds; None for what is none."""
    units = {
        "ms": 0.001,
        "s": 1,
        "m": 60,
        "h": 3600,
        "d": 86400,
        "w": 604800,
        "M": 2592000,
        "y": 31536000,
    }
    found = re.findall(r"(\d+)\s*(ms|[smhdwMy])?", text)
    if not found or not re.fullmatch(r"(\s*\d+\s*(ms|[smhdwMy])?)+", text):
        return None
    return sum(int(number) * units[unit or "s"] for number, unit in found)
