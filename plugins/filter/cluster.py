"""Filters that read the cluster's layout from the inventory."""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import ansible.module_utils
from ansible.errors import AnsibleFilterError
from ansible.inventory.manager import InventoryManager, split_host_pattern
from ansible.parsing.dataloader import DataLoader

# Outside of collections, Ansible makes its own module_utils importable on hosts alone.
_OWN_MODULE_UTILS = str(Path(__file__).parents[1] / "module_utils")
if _OWN_MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_OWN_MODULE_UTILS)

from ansible.module_utils.capacity import nginx_connections


def cluster_addresses(hosts: Sequence[str], hostvars: Mapping[str, Any]) -> list[str]:
    """Return each host's address as the others reach it; one without is preflight's to refuse."""
    return [
        canonical(hostvars[host]["cluster_address"])
        for host in hosts
        if "cluster_address" in hostvars[host]
    ]


def cluster_web_workers(
    hosts: Sequence[str], hostvars: Mapping[str, Any], workers_per_host: int, first_port: int
) -> list[dict[str, Any]]:
    """Return every worker: one a port, ports in a row, as many as its host is set to run."""
    workers = []
    for host in hosts:
        address = canonical(hostvars[host].get("cluster_address", ""))
        count = int(hostvars[host].get("cluster_workers", workers_per_host))
        for port in range(int(first_port), int(first_port) + count):
            workers.append(
                {
                    "name": f"{host}:{port}",
                    "host": host,
                    "address": address,
                    "port": port,
                    "url": worker_url(address, port),
                }
            )
    return workers


def carrying_workers(workers: Sequence[Mapping[str, Any]], spare_hosts: int) -> int:
    """Return how many workers are left when hosts are lost, those with the most workers; 1 or more.

    Args:
        workers: all workers of the cluster.
        spare_hosts: the number of app hosts that may be lost.
    """
    counts = sorted(Counter(worker["host"] for worker in workers).values())
    return max(1, sum(counts[: max(0, len(counts) - int(spare_hosts))]))


def most_workers(workers: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of workers of the host that has the most."""
    return max(Counter(worker["host"] for worker in workers).values(), default=0)


def figure(figures: Any, name: str) -> float:
    """Return a measured figure.

    Raises:
        AnsibleFilterError: there is none, or it is no number.
    """
    try:
        return float(figures[name]["value"])
    except (KeyError, TypeError, ValueError):
        raise AnsibleFilterError(f"cluster_figures has no figure {name}") from None


def port_count(port_range: str) -> int:
    """Return how many ports a range such as ``10240 65535`` has."""
    first, last = map(int, str(port_range).split())
    return last - first + 1


def mib(size: Any) -> int:
    """Return a size of redis.conf, such as ``256mb``, in MiB; rounded up."""
    number, unit, is_binary = re.fullmatch(r"(\d+)([kmgt]?)(b?)", str(size).lower()).groups()  # type: ignore[union-attr]
    # 1kb is 1024 bytes, 1k is 1000.
    factor: int = (1024 if is_binary else 1000) ** " kmgt".index(unit or " ")
    return math.ceil(int(number) * factor / 2**20)


def short_terms(read: Mapping[str, Any]) -> list[str]:
    """Return what hosts do not have, each once, with the hosts.

    Args:
        read: what the action ``capacity_terms`` returned, by host.
    """
    hosts_by_problem: dict[str, list[str]] = defaultdict(list)
    for host, found in read.items():
        for problem in found.get("short", ()):
            hosts_by_problem[problem].append(host)
    return [f"{', '.join(hosts)}: {problem}" for problem, hosts in hosts_by_problem.items()]


def twice(size: str) -> str:
    """Return twice a size of systemd, such as ``300M``; ``infinity`` stays."""
    return size if size == "infinity" else f"{2 * int(size[:-1])}{size[-1]}"


def power_of_two(number: float) -> int:
    """Return the smallest power of two that is not below a number."""
    return int(2 ** max(0, math.ceil(math.log2(max(1, number)))))


def worker_url(address: str, port: int | str) -> str:
    """Return where a worker answers, without a path."""
    return f"http://{in_url(address)}:{port}"


def worker_arguments(workers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the arguments that name workers to the proof."""
    return [f"--worker={worker['name']}={worker['url']}" for worker in workers]


def canonical(address: Any) -> str:
    """Return an address as browsers, servers and the kernel write it; anything else as it is.

    An IPv6 address has many spellings. Programs that compare addresses as text need this one.
    """
    text = str(address)
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def in_url(address: str) -> str:
    """Return an address as a URL, ALLOWED_HOSTS and nginx write it: IPv6 in brackets."""
    bare = canonical(address.removeprefix("[").removesuffix("]"))
    return f"[{bare}]" if ":" in bare else address


def certificate_names(names: Sequence[str]) -> list[str]:
    """Return the names among those of a site for which a certificate authority signs.

    These are host names, not addresses. A leading dot stands for the domain and a wildcard below
    it.
    """
    found: dict[str, None] = {}
    for name in names:
        bare = name.lower().removeprefix(".")
        if canonical(bare.strip("[]")) != bare or ":" in bare or "." not in bare:
            continue
        try:
            ipaddress.ip_address(bare)
        except ValueError:
            found[bare] = None
            if name.startswith("."):
                found[f"*.{bare}"] = None
    return list(found)


def in_userinfo(text: Any) -> str:
    """Return a name or password as a URL holds it; a slash would end it."""
    return quote(str(text), safe="")


def url(server: Mapping[str, Any], scheme: str, path: str) -> str:
    """Return the URL of a server, with its user and password.

    Args:
        server: its host, port, user and password, as they are.
        scheme: the protocol.
        path: the database, as it is named.
    """
    login = f"{in_userinfo(server['user'])}:{in_userinfo(server['password'])}"
    return f"{scheme}://{login}@{in_url(server['host'])}:{server['port']}/{in_userinfo(path)}"


def origins(
    names: Sequence[str], http_port: int | str, tls: bool = False, https_port: int | str = 443
) -> list[str]:
    """Return the origins that browsers send, as Django's CSRF_TRUSTED_ORIGINS has them.

    Without TLS at the edge, something in front of it may have it: then both schemes are named.

    Args:
        names: the names of the site; one that begins with a dot stands for all below it, too.
        http_port: the port of the edge without TLS.
        tls: whether the edge has TLS.
        https_port: its port with TLS.
    """
    hosts = []
    for name in names:
        hosts += [name[1:], f"*{name}"] if name.startswith(".") else [in_url(name)]
    if tls:
        port = "" if int(https_port) == 443 else f":{https_port}"
        return [f"https://{host}{port}" for host in hosts]
    port = "" if int(http_port) == 80 else f":{http_port}"
    return [each for host in hosts for each in (f"http://{host}{port}", f"https://{host}")]


def redis_value(value: Any) -> str:
    """Return a setting's value as redis.conf has it: YAML reads yes and no as true and false."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def postgres_string(value: Any) -> str:
    """Return a setting's value between the quotes of postgresql.conf."""
    text = str(value).replace("\\", "\\\\").replace("'", "''")
    # A string ends at the end of its line.
    return text.replace("\n", "\\n").replace("\r", "\\r")


def unmatched(limit: str, groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the parts of ``--limit`` that match no host or group. Ansible only warns of them.

    Args:
        limit: the value of ``--limit``: names, groups and patterns, some with ``!`` or ``&``.
        groups: the hosts of every group of the inventory.
    """
    inventory = InventoryManager(loader=DataLoader(), parse=False)
    for group, hosts in groups.items():
        inventory.add_group(group)
        for host in hosts:
            inventory.add_host(host, group)
    # @FILE is a list that Ansible wrote after a failed run.
    terms = [term for term in split_host_pattern(limit) if not term.startswith("@")]
    return [term for term in terms if not inventory.get_hosts(term.lstrip("!&"))]


class FilterModule:
    """What Ansible asks for filters."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "cluster_addresses": cluster_addresses,
            "cluster_carrying_workers": carrying_workers,
            "cluster_figure": figure,
            "cluster_mib": mib,
            "cluster_twice": twice,
            "cluster_short_terms": short_terms,
            "cluster_port_count": port_count,
            "cluster_nginx_connections": nginx_connections,
            "cluster_most_workers": most_workers,
            "cluster_power_of_two": power_of_two,
            "cluster_certificate_names": certificate_names,
            "cluster_in_url": in_url,
            "cluster_origins": origins,
            "cluster_url": url,
            "cluster_in_userinfo": in_userinfo,
            "cluster_unmatched": unmatched,
            "cluster_postgres_string": postgres_string,
            "cluster_redis_value": redis_value,
            "cluster_web_workers": cluster_web_workers,
            "cluster_worker_arguments": worker_arguments,
        }
