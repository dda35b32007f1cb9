"""Tests for the preflight: does the software that gets a value accept it?

The software is Django, nginx, systemd, Redis, PostgreSQL, nft, apt or Python. Each test checks the
value in the form in which the roles write it.
"""

from __future__ import annotations

import datetime
import ipaddress
import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_SERVER_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
# Browsers and resolvers read a name whose last label is a number as an IPv4 address.
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_PACKAGE = re.compile(r"[a-z0-9*?][a-z0-9+.*?-]*(:[a-z0-9-]+)?([=/][A-Za-z0-9.+~:*-]+)?")
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# fstab(5) separates fields by white space. No directory above another one: ".".
_MOUNT_PATH = re.compile(r"(/(?!\.{1,2}(/|\Z))[A-Za-z0-9._-]{1,200}){1,20}")
_DEVICE = re.compile(r"/dev(/(?!\.{1,2}(/|\Z))[A-Za-z0-9._:-]{1,200}){1,20}")
_SYSCTL_NAME = re.compile(r"[a-z0-9_][a-z0-9_-]*([./][A-Za-z0-9_:@-]+)+")
_REDIS_INSTANCE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_REDIS_SETTING = re.compile(r"[a-z][a-z0-9-]*")
_POSTGRES_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*")
_CHECKED_PATH = re.compile(r"/([A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")
_HTTP_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,200}")
_HTTP_VALUE = re.compile(r"([!-~]([ -~]*[!-~])?)?")
_HANDSHAKE_HEADER = re.compile(
    r"host|connection|upgrade|content-length|transfer-encoding|sec-websocket-.*|x-forwarded-.*"
    r"|x-real-ip",
    re.IGNORECASE,
)
_PRINTABLE = re.compile(r"[!-~]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# The units set these variables. The environment file would override them.
_UNIT_VARIABLES = {"CHANNELS_KIT_REVISION", "CHANNELS_KIT_WORKER", "MAINPID", "PYTHONPATH"}
# The kernel's limit for one NAME=VALUE string with its final null byte. The limit for all strings
# leaves room for other variables.
_MAX_ENVIRONMENT_STRING = 131072
_MAX_ENVIRONMENT = 2**20

# The application cannot read these (ProtectHome=, PrivateTmp=, PrivateDevices=), or a reboot
# empties them.
_NOT_FOR_RELEASES = (
    "/dev",
    "/home",
    "/proc",
    "/root",
    "/run",
    "/sys",
    "/tmp",  # noqa: S108
    "/var/run",
    "/var/tmp",  # noqa: S108
)

# Settings of postgresql.conf and redis.conf that other variables of the roles set.
_POSTGRES_OF_VARIABLES = {"port", "max_connections"}
_REDIS_OF_VARIABLES = {"aclfile", "bind", "daemonize", "maxclients", "port"}

_REDIS_SIZE = re.compile(r"([0-9]{1,19})(|b|k|kb|m|mb|g|gb)", re.IGNORECASE)
REDIS_UNITS = {
    "": 1,
    "b": 1,
    "k": 1000,
    "kb": 2**10,
    "m": 10**6,
    "mb": 2**20,
    "g": 10**9,
    "gb": 2**30,
}
# An empty instance with some clients takes a few megabytes.
_REDIS_MIN_MEMORY = 16 * 10**6
_NGINX_SIZE = re.compile(r"([0-9]{1,19})([kKmMgG]?)")
# The largest networks that have private addresses alone: 10.0.0.0/8 and fc00::/7.
_LARGEST_PROXIES_V4 = 8
_LARGEST_PROXIES_V6 = 7
_JOURNAL_SIZE = re.compile(r"([0-9]{1,19})([KMGTPE]?)")
_BINARY_UNITS = {
    unit: 2 ** (10 * power) for power, unit in enumerate(("", "k", "m", "g", "t", "p", "e"))
}


def ip_address(value: Any) -> bool:
    """Return whether a value is an IPv4 or IPv6 address without a scope, port or mask."""
    return _address(value) is not None


def host_address(value: Any) -> bool:
    """Return whether a host can listen at an address and be reached there by others."""
    address = _address(value)
    if address is None or address.is_unspecified or address.is_multicast:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        # A link-local address needs an interface. An IPv4-mapped address must be written as IPv4.
        return not address.is_link_local and address.ipv4_mapped is None
    return address != ipaddress.IPv4Address("255.255.255.255")


def server_name(value: Any) -> bool:
    """Return whether Django, nginx and the Origin check take a name or address of the site.

    A leading dot stands for the domain and all names below it. IPv6 may stand in brackets.
    """
    if not isinstance(value, str):
        return False
    inner = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    if ":" in inner:
        return host_address(inner)
    if value != inner:
        return False
    return host_address(value) or _host_name(value.removeprefix("."), _LABEL)


def server_address(value: Any) -> bool:
    """Return whether a value is the address of a server, or a host name that DNS can resolve."""
    if not isinstance(value, str):
        return False
    address = _address(value)
    if address is not None:
        return not address.is_unspecified and not address.is_multicast
    return _host_name(value.removesuffix("."), _SERVER_LABEL)


def base_url(value: Any) -> bool:
    """Return whether a value is a URL with scheme, host and optionally port, as the proof needs."""
    if not isinstance(value, str) or not _PRINTABLE.fullmatch(value):
        return False
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    bare = f"[{host}]" if ":" in host else host
    netloc = bare if port is None else f"{bare}:{port}"
    return (
        parts.scheme in {"http", "https"}
        and port != 0
        and server_address(host)
        and parts.netloc.lower() == netloc
        and value.removesuffix("/").lower() == f"{parts.scheme}://{netloc}"
    )


def python_module(value: Any) -> bool:
    """Return whether a value is the dotted name of a Python module."""
    return isinstance(value, str) and all(_identifier(part) for part in value.split("."))


def python_object(value: Any) -> bool:
    """Return whether a value is `module:attribute`."""
    if not isinstance(value, str):
        return False
    module, _, attribute = value.partition(":")
    return value.isascii() and python_module(module) and python_module(attribute)


def absolute_path(value: Any) -> bool:
    """Return whether a value is an absolute path in one line."""
    return isinstance(value, str) and value.startswith("/") and not _CONTROL.search(value)


def release_home(value: Any) -> bool:
    """Return whether systemd and the application find the releases below a directory."""
    if not isinstance(value, str) or not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", value):
        return False
    if len(value) > 200 or {".", ".."} & set(value.split("/")):
        return False
    return not any(f"{value}/".startswith(f"{place}/") for place in _NOT_FOR_RELEASES)


def nginx_size(value: Any) -> bool:
    """Return whether nginx reads a value as a size."""
    read = _NGINX_SIZE.fullmatch(str(value))
    return read is not None and int(read[1]) * _BINARY_UNITS[read[2].lower()] < 2**63


def certificate(value: Any) -> bool:
    """Return whether a value is a certificate that has not expired, as PEM text or its file."""
    content = _pem(value)
    if content is None:
        return False
    # Imported here: other values need no cryptography.
    from cryptography import x509

    try:
        first, *_ = x509.load_pem_x509_certificates(content.encode())
    except ValueError:
        return False
    return first.not_valid_after_utc > datetime.datetime.now(datetime.UTC)


def certificate_key(value: Any, of: Any) -> bool:
    """Return whether a value is the private key of a certificate, as PEM text or its file.

    A file of Ansible Vault is not read; nginx checks what is in it. Any other file must be private.
    """
    content = _pem(value)
    if content is None:
        return False
    if content.startswith("$ANSIBLE_VAULT;"):
        return True
    if not _is_pem(value) and Path(value).stat().st_mode & 0o077:
        return False
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        own = load_pem_private_key(content.encode(), password=None).public_key()
        first, *_ = x509.load_pem_x509_certificates((_pem(of) or "").encode())
    # A key with a passphrase is a TypeError.
    except (TypeError, ValueError):
        return False
    return own == first.public_key()


def journal_size(value: Any) -> bool:
    """Return whether systemd reads a value as a size."""
    read = _JOURNAL_SIZE.fullmatch(str(value))
    return read is not None and int(read[1]) * _BINARY_UNITS[read[2].lower()] < 2**64 - 1


def redis_size(value: Any) -> bool:
    """Return whether a value is a memory limit that Redis reads and can work with."""
    read = _REDIS_SIZE.fullmatch(str(value))
    if not read:
        return False
    size = int(read[1]) * REDIS_UNITS[read[2].lower()]
    return size == 0 or _REDIS_MIN_MEMORY <= size < 2**63


FIGURES = (
    "socket_kib",
    "edge_socket_kib",
    "worker_mib",
    "handshakes_per_second",
    "deliveries_per_second",
    "delivery_microseconds",
)
"""The measured figures from which limits follow."""


def cluster_figures(value: Any) -> bool:
    """Return whether a value has every figure, each with a range around it."""
    return isinstance(value, Mapping) and all(_is_figure(value.get(name)) for name in FIGURES)


def _is_figure(figure: Any) -> bool:
    if not isinstance(figure, Mapping):
        return False
    numbers: list[Any] = [figure.get(key) for key in ("low", "value", "high")]
    if not all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in numbers):
        return False
    return bool(0 < numbers[0] <= numbers[1] <= numbers[2] < float("inf"))


def redis_instances(value: Any) -> bool:
    """Return whether redis_instances has layer and broker, and each instance is valid."""
    if not isinstance(value, Mapping) or not {"layer", "broker"} <= set(value):
        return False
    ports = [each.get("port") for each in value.values() if isinstance(each, Mapping)]
    return len(set(ports)) == len(value) and all(
        isinstance(name, str)
        and _REDIS_INSTANCE.fullmatch(name)
        and isinstance(each, Mapping)
        and _port(each.get("port"), 1024)
        and isinstance(each.get("password"), str)
        and bool(re.fullmatch(r"[!-~]{16,1000}", each["password"]))
        and isinstance(each.get("settings"), Mapping)
        and all(_redis_setting(key, setting) for key, setting in each["settings"].items())
        for name, each in value.items()
    )


def postgres_settings(value: Any) -> bool:
    """Return whether postgresql.conf can be made of settings."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str)
        and bool(_POSTGRES_SETTING.fullmatch(name))
        and name.lower() not in _POSTGRES_OF_VARIABLES
        and _scalar(setting)
        and "\0" not in str(setting)
        for name, setting in value.items()
    )


def kernel_settings(value: Any) -> bool:
    """Return whether sysctl.conf can be made of settings."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str)
        and bool(_SYSCTL_NAME.fullmatch(name))
        and _scalar(setting)
        and not isinstance(setting, bool)
        and str(setting).strip() != ""
        and not _CONTROL.search(str(setting).replace("\t", " "))
        for name, setting in value.items()
    )


def mounts(value: Any) -> bool:
    """Return whether volumes can be mounted: devices by directory."""
    return isinstance(value, Mapping) and all(
        isinstance(path, str)
        and bool(_MOUNT_PATH.fullmatch(path))
        and isinstance(device, str)
        and bool(_DEVICE.fullmatch(device))
        for path, device in value.items()
    )


def environment_variables(value: Any) -> bool:
    """Return whether systemd reads variables from an environment file as they are."""
    if not isinstance(value, Mapping):
        return False
    total = 0
    for name, text in value.items():
        if not isinstance(name, str) or not _ENVIRONMENT_NAME.fullmatch(name):
            return False
        if name in _UNIT_VARIABLES or not _scalar(text) or isinstance(text, bool):
            return False
        if _CONTROL.search(re.sub(r"[\t\n]", " ", str(text))):
            return False
        size = len(f"{name}={text}".encode(errors="surrogatepass"))
        total += size
        if size >= _MAX_ENVIRONMENT_STRING:
            return False
    return total < _MAX_ENVIRONMENT


def packages(value: Any) -> bool:
    """Return whether apt takes names of packages, and no option."""
    return isinstance(value, Sequence) and all(
        isinstance(name, str) and bool(_PACKAGE.fullmatch(name)) for name in value
    )


def package_files(value: Any) -> bool:
    """Return whether files can be written: absolute path and content, by group."""
    return isinstance(value, Mapping) and all(
        isinstance(files, Mapping)
        and all(
            absolute_path(path) and not path.endswith("/") and isinstance(content, str)
            for path, content in files.items()
        )
        for files in value.values()
    )


def guarded_ports(value: Any) -> bool:
    """Return whether nft takes rules: ports, and addresses or networks, by group."""
    return isinstance(value, Mapping) and all(
        isinstance(guard, Mapping)
        and set(guard) == {"ports", "sources"}
        and isinstance(guard["ports"], list)
        and all(_port(port, 1) for port in guard["ports"])
        and isinstance(guard["sources"], list)
        and all(_network(source) for source in guard["sources"])
        for guard in value.values()
    )


def proxy_network(value: Any) -> bool:
    """Return whether a value is an address or network of proxies that nginx can trust.

    A network with bits beyond its mask is a mistake: the address or the mask is wrong.
    """
    if not isinstance(value, str) or not re.fullmatch(r"[^/%]+(/[0-9]{1,3})?", value):
        return False
    try:
        network = ipaddress.ip_network(value)
    except ValueError:
        return False
    if isinstance(network, ipaddress.IPv4Network):
        return network.prefixlen >= _LARGEST_PROXIES_V4
    mapped = network.network_address.ipv4_mapped is not None
    return network.prefixlen >= _LARGEST_PROXIES_V6 and not mapped


def check_paths(value: Any) -> bool:
    """Return whether the proof can ask for a list of pages."""
    return isinstance(value, list) and all(_checked_path(path) for path in value)


def roll_limit(value: Any) -> bool:
    """Return whether a value is a number of workers, or a share of them."""
    text = str(value)
    if isinstance(value, bool):
        return False
    if match := re.fullmatch(r"([0-9]{1,3})%", text):
        return 1 <= int(match[1]) <= 100
    return bool(re.fullmatch(r"[0-9]{1,5}", text)) and int(text) >= 1


def check_sockets(value: Any) -> bool:
    """Return whether the proof can open a list of sockets of the application."""
    return isinstance(value, list) and all(
        _checked_path(each) or _checked_socket(each) for each in value
    )


def users(value: Any) -> bool:
    """Return whether names and passwords reach the application as they are."""
    return isinstance(value, Mapping) and all(
        isinstance(text, str) and text != "" and not _CONTROL.search(text)
        for pair in value.items()
        for text in pair
    )


def hooks(value: Any) -> bool:
    """Return whether every hook is a list of task files on this machine."""
    names = {"before_migrate", "after_migrate", "before_restart", "after_restart"}
    return (
        isinstance(value, Mapping)
        and set(value) <= names
        and all(
            isinstance(files, list) and all(_task_file(file) for file in files)
            for files in value.values()
        )
    )


def creatable(value: Any) -> bool:
    """Return whether a value is an absolute path of a directory that exists or can be created."""
    if not absolute_path(value):
        return False
    path = Path(value)
    try:
        found = next(each for each in (path, *path.parents) if each.exists())
        return found.is_dir()
    except OSError:
        # A name may be too long.
        return False


def patterns(value: Any) -> bool:
    """Return whether names or patterns can be joined with commas."""
    return isinstance(value, Sequence) and all(
        isinstance(each, str) and each != "" and not re.search(r"[,/\x00-\x1f\x7f]", each)
        for each in value
    )


def source(value: Any) -> bool:
    """Return whether a value names a directory, a wheel, an sdist or a Git repository."""
    if not isinstance(value, str) or re.search(r"[\x00-\x1f\x7f]", value):
        return False
    if re.fullmatch(r"(https|ssh|file)://([^:@/\s]+@)?[^@\s]+", value):
        return True
    if re.fullmatch(r"[\w.-]+@[\w.-]+:[^:\s]+", value):
        return True
    path = Path(value)
    try:
        packed = value.endswith((".whl", ".tar.gz", ".zip")) and path.is_file()
        return path.is_absolute() and (path.is_dir() or packed)
    except OSError:
        return False


def paths(value: Any) -> bool:
    """Return whether a value is a list of paths that stay below the directory they start from."""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(
            isinstance(each, str)
            and re.fullmatch(r"[^/\x00-\x1f\x7f-][^\x00-\x1f\x7f]*", each) is not None
            and ".." not in each.split("/")
            for each in value
        )
    )


def _is_pem(value: str) -> bool:
    return "-----BEGIN" in value


def _pem(value: Any) -> str | None:
    """Return PEM text, or the text of a file with some."""
    if not isinstance(value, str) or (not _is_pem(value) and not absolute_path(value)):
        return None
    try:
        return value if _is_pem(value) else Path(value).read_text()
    except (OSError, UnicodeDecodeError):
        return None


def _address(value: Any) -> Address | None:
    if not isinstance(value, str) or "%" in value:
        return None
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        return None


def _network(value: Any) -> bool:
    if not isinstance(value, str) or "%" in value:
        return False
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    # nft does not read masks such as 255.0.0.0.
    return "." not in value.partition("/")[2]


def _host_name(value: str, label: re.Pattern[str]) -> bool:
    labels = value.split(".")
    return (
        len(value) <= 253
        and all(label.fullmatch(each) for each in labels)
        and not _NUMBER.fullmatch(labels[-1])
    )


def _identifier(value: str) -> bool:
    return value.isascii() and value.isidentifier() and not keyword.iskeyword(value)


def _port(value: Any, lowest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= 65535


def _scalar(value: Any) -> bool:
    return isinstance(value, (str, int, float))


def _checked_path(value: Any) -> bool:
    return (
        isinstance(value, str)
        and len(value) <= 2000
        and _CHECKED_PATH.fullmatch(value) is not None
        # The workers themselves answer these.
        and not value.startswith("/-/")
    )


def _checked_socket(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    known = {"path", "close", "status", "subprotocol", "headers"}
    close, status = value.get("close"), value.get("status")
    subprotocol, headers = value.get("subprotocol"), value.get("headers", {})
    return (
        set(value) <= known
        and not any(each is None for each in value.values())
        and _checked_path(value.get("path"))
        and (close is None or _close_code(close))
        and (status is None or (_integer(status) and 300 <= status <= 499))
        and (close is None or status is None)
        and (subprotocol is None or _matches(_HTTP_TOKEN, subprotocol))
        and isinstance(headers, Mapping)
        and all(_header(name, text) for name, text in headers.items())
    )


def _close_code(value: Any) -> bool:
    """Return whether a server may close a socket with a code: RFC 6455, section 7.4."""
    return _integer(value) and (
        1000 <= value <= 1003 or 1007 <= value <= 1014 or 3000 <= value <= 4999
    )


def _header(name: Any, value: Any) -> bool:
    return (
        _matches(_HTTP_TOKEN, name)
        and not _matches(_HANDSHAKE_HEADER, name)
        and _matches(_HTTP_VALUE, value)
        and len(value) <= 4000
    )


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _redis_setting(name: Any, value: Any) -> bool:
    return (
        isinstance(name, str)
        and bool(_REDIS_SETTING.fullmatch(name))
        and name not in _REDIS_OF_VARIABLES
        and _scalar(value)
        and _redis_arguments(str(value))
    )


def _redis_arguments(text: str) -> bool:
    """Return whether Redis splits a line into one argument or more; after sdssplitargs()."""
    if _CONTROL.search(text.replace("\t", " ")):
        return False
    word = (
        r"""(?:"(?:\\.|[^"\\])*"|'(?:\\'|[^'])*'|[^\s"']+(?:"(?:\\.|[^"\\])*"|'(?:\\'|[^'])*')?)"""
    )
    return bool(re.fullmatch(rf"\s*{word}(?:\s+{word})*\s*", text))


class _Tasks(yaml.SafeLoader):
    """Reads task files. It reads values with a tag of Ansible as None."""


_Tasks.add_multi_constructor("!", lambda loader, suffix, node: None)


def _task_file(value: Any) -> bool:
    if not absolute_path(value) or not Path(value).is_file():
        return False
    try:
        tasks = yaml.load(Path(value).read_text(), _Tasks)  # noqa: S506 - a safe loader
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return isinstance(tasks, list) and all(isinstance(task, dict) for task in tasks)


class TestModule:
    """What Ansible asks for tests."""

    def tests(self) -> dict[str, Callable[..., bool]]:
        """Return the tests by name."""
        return {
            "channels_check_paths": check_paths,
            "channels_check_sockets": check_sockets,
            "channels_environment_variables": environment_variables,
            "channels_hooks": hooks,
            "channels_paths": paths,
            "channels_roll_limit": roll_limit,
            "channels_source": source,
            "channels_users": users,
            "cluster_absolute_path": absolute_path,
            "cluster_base_url": base_url,
            "cluster_certificate": certificate,
            "cluster_certificate_key": certificate_key,
            "cluster_creatable": creatable,
            "cluster_guarded_ports": guarded_ports,
            "cluster_host_address": host_address,
            "cluster_ip_address": ip_address,
            "cluster_journal_size": journal_size,
            "cluster_kernel_settings": kernel_settings,
            "cluster_mounts": mounts,
            "cluster_nginx_size": nginx_size,
            "cluster_proxy_network": proxy_network,
            "cluster_package_files": package_files,
            "cluster_packages": packages,
            "cluster_patterns": patterns,
            "cluster_postgres_settings": postgres_settings,
            "cluster_python_module": python_module,
            "cluster_python_object": python_object,
            "cluster_redis_instances": redis_instances,
            "cluster_figures": cluster_figures,
            "cluster_redis_size": redis_size,
            "cluster_release_home": release_home,
            "cluster_server_address": server_address,
            "cluster_server_name": server_name,
        }
