"""Which line of inventory gives an application what it asks its environment for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection

from channels_kit.examine.finding import OVERLAY, of_inventory

# Variables of applications by their names, and what they want. The first that fits counts.
_DATABASE = r"(?:POSTGRES(?:QL)?|PG|DB|DATABASE|SQL|RDS)_?"
_MEANINGS = (
    ("database.url", rf"(?:DJANGO_)?{_DATABASE}(?:URL|URI|DSN)"),
    ("database.host", rf"(?:DJANGO_)?{_DATABASE}(?:HOST|HOSTNAME|SERVER|ADDR(?:ESS)?)"),
    ("database.port", rf"(?:DJANGO_)?{_DATABASE}PORT"),
    ("database.name", rf"(?:DJANGO_)?{_DATABASE}(?:DB|NAME|DATABASE|DB_?NAME)"),
    ("database.user", rf"(?:DJANGO_)?{_DATABASE}(?:USER|USERNAME|LOGIN)"),
    ("database.password", rf"(?:DJANGO_)?{_DATABASE}(?:PASS|PASSWD|PASSWORD|PWD)"),
    ("broker.url", r"(?:DJANGO_)?(?:CELERY_)?(?:BROKER|RESULT_BACKEND)(?:_URL|_URI)?"),
    ("broker.url", r"(?:DJANGO_)?CELERY_(?:BROKER|RESULT_BACKEND|URL)(?:_URL|_URI)?"),
    ("layer.url", r"(?:\w+_)?(?:REDIS|LAYERS?|CACHE)\w*_(?:URLS?|URI|DSN)"),
    ("layer.host", r"(?:\w+_)?REDIS\w*_(?:HOST|HOSTNAME|SERVER|ADDR(?:ESS)?)"),
    ("layer.port", r"(?:\w+_)?REDIS\w*_PORT"),
    ("layer.user", r"(?:\w+_)?REDIS\w*_USER(?:NAME)?"),
    ("layer.password", r"(?:\w+_)?REDIS\w*_(?:AUTH|PASS|PASSWD|PASSWORD|PWD)"),
    ("secret", r"(?:DJANGO_|APP_)?SECRET_?KEY|DJANGO_SECRET"),
    ("hosts", r"(?:DJANGO_)?(?:ALLOWED_HOSTS?|SERVER_NAMES?)"),
    ("origins", r"(?:DJANGO_)?(?:CSRF_)?(?:TRUSTED_|ALLOWED_)?ORIGINS?"),
    ("debug", r"(?:DJANGO_|APP_)?DEBUG"),
)
_KNOWN = re.compile(r"DJANGO|APP|REDIS|CELERY|CSRF|EMAIL|AWS|" + _DATABASE[:-2])
FEW = 4
"""Variables that must begin alike before that is the project's prefix."""
_MEANS = tuple((meaning, re.compile(pattern)) for meaning, pattern in _MEANINGS)

_VALUES = {
    "secret": '"{{ cluster.secret_key }}"',
    "hosts": '"{{ cluster.hosts }}"',
    "origins": '"{{ cluster.origins }}"',
    "debug": '"0"',
}


def meaning(variable: str, prefix: str = "") -> str:
    """Return what a variable is for, such as database.host; empty if its name does not tell.

    Args:
        variable: its name.
        prefix: what the names of the project's variables begin with.
    """
    name = variable.upper()
    for each in dict.fromkeys((name, name.removeprefix(prefix))):
        for means, pattern in _MEANS:
            if pattern.fullmatch(each):
                return means
    return ""


def common_prefix(variables: Collection[str]) -> str:
    """Return what most names begin with, such as SHOP_ of SHOP_DB_HOST; empty if nothing."""
    firsts = Counter(name.upper().partition("_")[0] for name in variables if "_" in name)
    for first, count in firsts.most_common(1):
        if count >= FEW and count > len(variables) / 2 and not _KNOWN.fullmatch(first):
            return f"{first}_"
    return ""


def value_of(variable: str, prefix: str = "") -> str:
    """Return what stands in the inventory for a variable, as YAML; ``...`` if only you know."""
    means = meaning(variable, prefix)
    if means in _VALUES:
        return _VALUES[means]
    return f'"{{{{ cluster.{means} }}}}"' if means else "..."


class Remedies:
    """Chooses between a variable that the settings read, and the kit's settings in front.

    Args:
        reads: the variables that the application asked for, and whether each was set.
        overlay: whether the kit's settings are in front already.
    """

    def __init__(self, reads: dict[str, bool], overlay: bool) -> None:
        self._reads = reads
        self._overlay = overlay
        self._prefix = common_prefix(reads)

    def for_setting(self, setting: str, *meanings: str) -> str:
        """Return what gives a setting the cluster's value.

        Args:
            setting: the name of the setting, for a change in the application.
            meanings: what its parts are, as ``meaning`` tells.
        """
        unset = [name for name, is_set in self._reads.items() if not is_set]
        names = {
            means: [each for each in unset if meaning(each, self._prefix) == means]
            for means in meanings
        }
        found = [name for means in meanings for name in names[means]]
        if found:
            lines = [f"  {name}: {value_of(name, self._prefix)}" for name in found]
            return "\n".join(["channels_environment:", *lines])
        if not self._overlay:
            return OVERLAY
        return f"In the settings: read {setting} from the environment."

    def for_variable(self, variable: str) -> str:
        """Return the lines that set a variable."""
        return of_inventory(variable, value_of(variable, self._prefix))


def placeholders(variable: str) -> list[str]:
    """Return values with which an application may start that lacks a variable, likely ones first.

    None of them is a place on any network: ``.invalid`` is nobody's.
    """
    means = meaning(variable)
    filler = "placeholder-0123456789abcdef0123456789abcdef"
    url = "https://placeholder.invalid/"  # Django wants MEDIA_URL to end with a slash
    if means.startswith("database.url"):
        url = "postgresql://placeholder:placeholder@placeholder.invalid:5432/placeholder"
    elif means.endswith(".url"):
        url = "redis://placeholder.invalid:6379/0"
    upper = variable.upper()
    if means == "debug" or re.match(r"(?:ENABLE|DISABLE|USE|IS|HAS)_|.*_ENABLED$", upper):
        first = "0"
    elif re.search(r"(?:^|_)(?:URL|URI|DSN)$", upper) or means.endswith(".url"):
        first = url
    elif re.search(r"(?:^|_)PORT$", upper):
        first = "6379"
    elif re.search(r"(?:^|_)HOST(?:NAME)?S?$", upper):
        first = "placeholder.invalid"
    elif re.search(r"_(?:COUNT|SIZE|TIMEOUT|SECONDS|LIMIT|DAYS|HOURS|MAX|MIN|AGE)$", upper):
        first = "1"
    else:
        first = filler
    return list(dict.fromkeys([first, filler, "1", url, "true", "[]", "{}"]))
