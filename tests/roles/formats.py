"""Small readers of what the templates write, each after the manual of its format."""

import re
from dataclasses import dataclass, field


@dataclass
class Directive:
    """A directive of nginx: its words, and what is in its braces."""

    words: list[str]
    block: list["Directive"] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.words[0]

    def all(self, *path: str) -> list["Directive"]:
        """The directives of a name in a block of a name ..."""
        found = [self]
        for name in path:
            found = [inner for one in found for inner in one.block if inner.name == name]
        return found

    def values(self, *path: str) -> list[list[str]]:
        return [one.words[1:] for one in self.all(*path)]

    def value(self, *path: str) -> str:
        """The words of the one directive of this path."""
        (words,) = self.values(*path)
        return " ".join(words)

    def below(self) -> list["Directive"]:
        return [self, *(one for inner in self.block for one in inner.below())]


NGINX = re.compile(
    r"""\s*(?: \#[^\n]* | (?P<mark>[;{}]) | '(?P<single>(?:\\.|[^'\\])*)'
    | "(?P<double>(?:\\.|[^"\\])*)"
    | (?P<word>(?:\$\{\w+\}|[^\s;{}'"\#])(?:\$\{\w+\}|[^\s;{}])*) )""",
    re.VERBOSE,
)


def parse_nginx(text: str) -> Directive:
    """Read nginx.conf; braces that do not match are an error."""
    top = Directive(["main"])
    open_blocks, words = [top], list[str]()
    position = 0
    text = text.rstrip()
    while position < len(text):
        token = NGINX.match(text, position)
        assert token, f"not a word of nginx: {text[position : position + 40]!r}"
        position = token.end()
        if mark := token["mark"]:
            if mark == "}":
                assert not words, f"no semicolon after {words}"
                open_blocks.pop()
                assert open_blocks, "a brace too many"
                continue
            assert words, f"{mark} without a directive"
            directive = Directive(words)
            words = []
            open_blocks[-1].block.append(directive)
            if mark == "{":
                open_blocks.append(directive)
        else:
            quoted = token["single"] if token["single"] is not None else token["double"]
            if quoted is not None:
                words.append(quoted)
            elif token["word"]:
                words.append(token["word"])
    assert not words, f"no semicolon after {words}"
    assert open_blocks == [top], "a brace is not closed"
    return top


def parse_environment_file(text: str) -> dict[str, str]:
    """Read a file of EnvironmentFile= as systemd.exec(5) has it.

    "Within double quotes, a backslash followed by one of " \\ ` $ is that character, followed by a
    newline nothing, followed by anything else itself"; nothing else is special there. Lines that
    begin with # or ; are comments. This reads the double-quoted and the bare values of one line.
    """
    variables = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip()[0] in "#;":
            continue
        name, equals, value = line.partition("=")
        assert equals, line
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name), line
        if value.startswith('"'):
            inside = re.fullmatch(r'"((?:\\.|[^"\\])*)"', value)
            assert inside, f"the quotes do not match: {line}"
            value = re.sub(r'\\(["\\`$])', r"\1", inside[1])
        else:
            assert re.fullmatch(r"[A-Za-z0-9._/:,@%+=-]*", value), line
        variables[name] = value
    return variables


def parse_unit(text: str) -> dict[str, dict[str, list[str]]]:
    """Read a unit of systemd: section, key, values in order; a backslash joins lines."""
    unit: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip() or line[0] in "#;":
            continue
        if title := re.fullmatch(r"\[(\w+)\]", line):
            section = unit.setdefault(title[1], {})
        else:
            key, equals, value = line.partition("=")
            assert equals, f"not a line of a unit: {line!r}"
            section.setdefault(key, []).append(" ".join(value.split()))
    return unit


@dataclass(frozen=True)
class Guard:
    """A rule of the firewall about ports."""

    ports: frozenset[int]
    family: str
    sources: frozenset[str]
    verdict: str


GUARD = re.compile(
    r"tcp dport \{ (?P<ports>[\d, ]+) \} (?:(?P<family>ip6?) saddr \{ (?P<sources>[^}]+) \} )?"
    r"(?P<verdict>accept|reject with tcp reset)"
)


def parse_guards(lines: list[str]) -> list[Guard]:
    """The rules about ports, in order."""
    guards = []
    for line in lines:
        if not line.startswith("tcp dport"):
            continue
        rule = GUARD.fullmatch(line)
        assert rule, f"not a rule that is known here: {line}"
        sources = frozenset((rule["sources"] or "").split(", ")) - {""}
        ports = frozenset(int(port) for port in rule["ports"].split(","))
        guards.append(Guard(ports, rule["family"] or "", sources, rule["verdict"]))
    return guards
