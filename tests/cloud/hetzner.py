"""A stand-in of the Hetzner Cloud API: what Terraform's provider asks for, and no more.

It keeps what is created and checks what the API checks: names that are taken, what is in use, what
is protected. What it does not know it answers with 501, so that no test passes by accident.
Servers get machines from a class that makes them: `machines.py` makes staging hosts.
"""

from __future__ import annotations

import ipaddress
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

Thing = dict[str, Any]
CREATED = "2026-11-29T00:00:00+00:00"
ZONES = {"fsn1": "eu-central", "nbg1": "eu-central", "ash": "us-east"}
TYPES = {"cx23": "x86", "cx33": "x86", "cax11": "arm"}
IMAGES = ("debian-12", "debian-13")
COLLECTIONS = (
    "firewalls",
    "load_balancers",
    "networks",
    "placement_groups",
    "servers",
    "ssh_keys",
    "volumes",
)


class ApiError(Exception):
    """An answer of the API that is an error.

    Args:
        status: the HTTP status.
        code: the error's, for programs.
        message: for people.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Machines(Protocol):
    """What makes the machines behind servers, networks and volumes."""

    def create(self, server: Thing, user_data: str) -> str:
        """Make and start a machine; return its public address."""

    def delete(self, server: Thing) -> None:
        """Remove a machine."""

    def shutdown(self, server: Thing) -> None:
        """Stop a machine as its power button does."""

    def connect(self, server: Thing, network: Thing, address: str) -> None:
        """Give a machine an address in a network."""

    def create_subnet(self, network: Thing, subnet: str) -> None:
        """Make a network."""

    def delete_network(self, network: Thing) -> None:
        """Remove a network."""

    def create_volume(self, volume: Thing) -> None:
        """Make a volume, with the file system that it asks for."""

    def attach(self, volume: Thing, server: Thing) -> None:
        """Give a machine a volume."""

    def delete_volume(self, volume: Thing) -> None:
        """Remove a volume."""


class NoMachines:
    """Servers without machines, for what is only planned and kept."""

    def create(self, server: Thing, user_data: str) -> str:
        """Return an address of those for documentation."""
        return f"192.0.2.{server['id'] % 250 + 1}"

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Do nothing."""
        return lambda *_: None


class Hetzner:
    """The project of an account.

    Args:
        machines: makes the machines of servers.
        token: what requests must carry: 64 characters.
    """

    def __init__(self, machines: Machines, token: str) -> None:
        self.machines = machines
        self.token = token
        self.things: dict[str, dict[int, Thing]] = {name: {} for name in COLLECTIONS}
        self.actions: dict[int, Thing] = {}
        # What was asked and not known: the tests look that there is none.
        self.unknown: list[str] = []
        # What the tests do before a request is done, and before what was done is answered.
        self.before: Callable[[str, str], None] = lambda _method, _path: None
        self.after: Callable[[str, str], None] = lambda _method, _path: None
        self.last_id = 100
        self.lock = threading.RLock()

    # Requests

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Thing) -> Thing:
        """Return the answer to a request.

        Raises:
            ApiError: it is refused.
        """
        catalog = self.catalog()
        parts = path.removeprefix("/v1/").split("/")
        match method, parts:
            case "GET", ["actions"]:
                wanted = [int(each) for each in query.get("id", [])]
                return {"actions": [self.finished(each) for each in wanted]}
            case "GET", ["actions", number]:
                return {"action": self.finished(int(number))}
            case "GET", ["pricing"]:
                return {"pricing": pricing()}
            case "GET", [collection] if collection in catalog:
                return self.page(collection, catalog[collection], query)
            case "GET", [collection, number] if collection in catalog and number.isdigit():
                found = [each for each in catalog[collection] if each["id"] == int(number)]
                if not found:
                    raise ApiError(404, "not_found", f"{singular(collection)} not found")
                return {singular(collection): found[0]}
            case "POST", [collection] if collection in COLLECTIONS:
                return self.create(collection, body)
            case "PUT", [collection, number] if collection in COLLECTIONS:
                thing = self.get(collection, number)
                thing.update(body)
                return {singular(collection): thing}
            case "DELETE", [collection, number] if collection in COLLECTIONS:
                return self.delete(collection, self.get(collection, number))
            case "POST", [collection, number, "actions", command] if collection in COLLECTIONS:
                return self.act(collection, self.get(collection, number), command, body)
        self.unknown.append(f"{method} {path}")
        raise ApiError(501, "not_implemented", f"the stand-in does not know {method} {path}")

    def catalog(self) -> dict[str, list[Thing]]:
        """Return all that can be listed."""
        return {
            "locations": [location(name) for name in ZONES],
            "server_types": [server_type(name) for name in TYPES],
            "load_balancer_types": [load_balancer_type()],
            "images": [
                image(name, architecture) for name in IMAGES for architecture in ("x86", "arm")
            ],
            **{name: list(things.values()) for name, things in self.things.items()},
        }

    def page(self, collection: str, things: list[Thing], query: dict[str, list[str]]) -> Thing:
        """Return what a list was asked for, all on one page."""
        for key in ("name", "architecture"):
            if key in query:
                things = [each for each in things if each.get(key) in query[key]]
        count = len(things)
        pagination = {
            "page": 1,
            "per_page": max(count, 1),
            "total_entries": count,
            "last_page": 1,
            "previous_page": None,
            "next_page": None,
        }
        return {collection: things, "meta": {"pagination": pagination}}

    def get(self, collection: str, number: str | int) -> Thing:
        """Return what has an id."""
        try:
            return self.things[collection][int(number)]
        except KeyError:
            message = f"{singular(collection)} with ID '{number}' not found"
            raise ApiError(404, "not_found", message) from None

    def action(self, command: str, finished: bool = True) -> Thing:
        """Return a new action; one that is not finished is so when it is asked for."""
        action: Thing = {
            "id": self.next_id(),
            "command": command,
            "progress": 100,
            "started": CREATED,
            "status": "success",
            "finished": CREATED,
            "error": None,
            "resources": [],
        }
        self.actions[action["id"]] = action
        return action if finished else {**action, "status": "running", "finished": None}

    def finished(self, number: int) -> Thing:
        """Return an action."""
        return self.actions[number]

    def next_id(self) -> int:
        """Return the next id; each is given once."""
        with self.lock:
            self.last_id += 1
            return self.last_id

    # What is created and deleted

    def create(self, collection: str, body: Thing) -> Thing:
        """Create something."""
        with self.lock:
            self.refuse_taken(collection, body)
            thing = {
                "id": self.next_id(),
                "created": CREATED,
                "labels": {},
                "protection": {"delete": False},
                **body,
            }
            self.things[collection][thing["id"]] = thing
        answer: Thing = {singular(collection): thing}
        match collection:
            case "ssh_keys":
                thing["fingerprint"] = f"{thing['id']:032x}"
            case "placement_groups":
                thing["servers"] = []
                answer["action"] = None
            case "firewalls":
                thing |= {"applied_to": [], "rules": body.get("rules", [])}
                answer["actions"] = []
            case "networks":
                thing |= {"subnets": [], "routes": [], "servers": [], "load_balancers": []}
            case "volumes":
                thing |= {
                    "server": None,
                    "status": "available",
                    "location": location(body["location"]),
                    "linux_device": f"/dev/disk/by-id/scsi-0HC_Volume_{thing['id']}",
                }
                self.machines.create_volume(thing)
                answer |= {"action": self.action("create_volume"), "next_actions": []}
            case "load_balancers":
                thing |= {
                    "location": location(body["location"]),
                    "private_net": [],
                    "load_balancer_type": load_balancer_type(),
                    "services": [],
                    "targets": [],
                    "included_traffic": 0,
                    "outgoing_traffic": 0,
                    "ingoing_traffic": 0,
                    "public_net": {
                        "enabled": True,
                        "ipv4": {"ip": "192.0.2.254", "dns_ptr": ""},
                        "ipv6": {"ip": "2001:db8::fe", "dns_ptr": ""},
                    },
                }
                answer["action"] = self.action("create_load_balancer")
            case "servers":
                answer |= self.create_server(thing, body)
        return answer

    def create_server(self, server: Thing, body: Thing) -> Thing:
        """Make a server of what it was asked for, and its machine."""
        images = self.catalog()["images"]
        group = body.pop("placement_group", None)
        server.pop("user_data", None)
        server |= {
            "status": "running",
            "server_type": server_type(body["server_type"]),
            "image": next(each for each in images if each["id"] == body["image"]),
            "datacenter": {
                "id": 1,
                "name": f"{body['location']}-dc1",
                "description": "",
                "location": location(body["location"]),
                "server_types": {"supported": [], "available": [], "available_for_migration": []},
            },
            "private_net": [],
            "volumes": [],
            "load_balancers": [],
            "iso": None,
            "backup_window": None,
            "rescue_enabled": False,
            "locked": False,
            "included_traffic": 0,
            "outgoing_traffic": 0,
            "ingoing_traffic": 0,
            "protection": {"delete": False, "rebuild": False},
            "primary_disk_size": 40,
            "placement_group": self.get("placement_groups", group) if group else None,
            "public_net": {
                "ipv4": {"id": self.next_id(), "ip": "", "blocked": False, "dns_ptr": ""},
                "ipv6": {
                    "id": self.next_id(),
                    "ip": f"2001:db8:{server['id']:x}::/64",
                    "blocked": False,
                    "dns_ptr": [],
                },
                "floating_ips": [],
                "firewalls": [
                    {"id": each["firewall"], "status": "applied"}
                    for each in body.get("firewalls", [])
                ],
            },
        }
        for key in ("firewalls", "networks", "ssh_keys", "start_after_create", "location"):
            server.pop(key, None)
        server["public_net"]["ipv4"]["ip"] = self.machines.create(server, body.get("user_data", ""))
        # As the API: it answers before the machine has started.
        return {
            "action": self.action("create_server", finished=False),
            "next_actions": [],
            "root_password": None,
        }

    def refuse_taken(self, collection: str, body: Thing) -> None:
        """Refuse a name that something of this kind has, and a key that is known."""
        for other in self.things[collection].values():
            if other["name"] == body["name"]:
                raise ApiError(
                    409, "uniqueness_error", f"{singular(collection)} name is already used"
                )
            if collection == "ssh_keys" and other["public_key"] == body["public_key"]:
                raise ApiError(
                    409, "uniqueness_error", "SSH key with the same fingerprint already exists"
                )

    def delete(self, collection: str, thing: Thing) -> Thing:
        """Delete something, as far as it may be."""
        if thing["protection"]["delete"]:
            raise ApiError(423, "protected", f"{singular(collection)} deletion is protected")
        number = thing["id"]
        servers = self.things["servers"].values()
        match collection:
            case "servers":
                for volume in self.things["volumes"].values():
                    if volume["server"] == number:
                        volume["server"] = None
                for balancer in self.things["load_balancers"].values():
                    balancer["targets"] = [
                        each for each in balancer["targets"] if each["server"]["id"] != number
                    ]
                self.machines.delete(thing)
            case "volumes":
                if thing["server"]:
                    raise ApiError(423, "locked", "volume is attached to a server")
                self.machines.delete_volume(thing)
            case "firewalls":
                if any(
                    number == each["id"]
                    for host in servers
                    for each in host["public_net"]["firewalls"]
                ):
                    raise ApiError(422, "resource_in_use", "firewall is still in use")
            case "networks":
                for host in servers:
                    host["private_net"] = [
                        each for each in host["private_net"] if each["network"] != number
                    ]
                self.machines.delete_network(thing)
            case "placement_groups":
                if any((host["placement_group"] or {}).get("id") == number for host in servers):
                    raise ApiError(422, "resource_in_use", "placement group is still in use")
        del self.things[collection][number]
        return (
            {"action": self.action(f"delete_{singular(collection)}")}
            if collection == "servers"
            else {}
        )

    # Actions

    def act(self, collection: str, thing: Thing, command: str, body: Thing) -> Thing:
        """Do what an action of the API does."""
        match collection, command:
            case _, "change_protection":
                thing["protection"] |= body
            case "networks", "add_subnet":
                gateway = str(ipaddress.ip_network(body["ip_range"])[1])
                thing["subnets"].append({**body, "gateway": gateway})
                self.machines.create_subnet(thing, body["ip_range"])
            case "networks", "delete_subnet":
                thing["subnets"] = [
                    each for each in thing["subnets"] if each["ip_range"] != body["ip_range"]
                ]
            case "servers", "attach_to_network":
                network = self.get("networks", body["network"])
                thing["private_net"].append(
                    {
                        "network": body["network"],
                        "ip": body["ip"],
                        "alias_ips": [],
                        "mac_address": "86:00:00:00:{:02x}:{:02x}".format(
                            *divmod(thing["id"], 256)
                        ),
                    }
                )
                self.machines.connect(thing, network, body["ip"])
            case "servers", "shutdown":
                self.machines.shutdown(thing)
                thing["status"] = "off"
            case "volumes", "attach":
                thing["server"] = body["server"]
                self.machines.attach(thing, self.get("servers", body["server"]))
            case "volumes", "detach":
                thing["server"] = None
            case "volumes", "resize":
                thing["size"] = body["size"]
            case "firewalls", "set_rules":
                thing["rules"] = body["rules"]
                return {"actions": [self.action(command)]}
            case "firewalls", "apply_to_resources" | "remove_from_resources":
                for resource in body.get("apply_to") or body["remove_from"]:
                    public = self.get("servers", resource["server"]["id"])["public_net"]
                    left = [each for each in public["firewalls"] if each["id"] != thing["id"]]
                    new = [{"id": thing["id"], "status": "applied"}] if "apply_to" in body else []
                    public["firewalls"] = left + new
                return {"actions": [self.action(command)]}
            case "load_balancers", "attach_to_network":
                thing["private_net"].append({"network": body["network"], "ip": body["ip"]})
            case "load_balancers", "enable_public_interface":
                thing["public_net"]["enabled"] = True
            case "load_balancers", "detach_from_network":
                thing["private_net"] = []
            case "load_balancers", "add_service":
                check = {
                    "protocol": "tcp",
                    "port": body["destination_port"],
                    "interval": 15,
                    "timeout": 10,
                    "retries": 3,
                }
                thing["services"].append({"health_check": check, **body})
            case "load_balancers", "delete_service":
                thing["services"] = [
                    each for each in thing["services"] if each["listen_port"] != body["listen_port"]
                ]
            case "load_balancers", "add_target":
                thing["targets"].append({**body, "health_status": []})
            case "load_balancers", "remove_target":
                thing["targets"] = [
                    each for each in thing["targets"] if each["server"] != body["server"]
                ]
            case _:
                self.unknown.append(f"{collection} {command}")
                raise ApiError(501, "not_implemented", f"the stand-in does not know {command}")
        return {"action": self.action(command)}


# What an account finds


def singular(collection: str) -> str:
    """Return the name of one of a collection."""
    return collection.removesuffix("s")


def location(name: str) -> Thing:
    """Return a location."""
    if name not in ZONES:
        raise ApiError(422, "invalid_input", f"location {name} not found")
    return {
        "id": list(ZONES).index(name) + 1,
        "name": name,
        "network_zone": ZONES[name],
        "description": "",
        "country": "",
        "city": "",
        "latitude": 0,
        "longitude": 0,
    }


def server_type(name: str) -> Thing:
    """Return a server type."""
    if name not in TYPES:
        raise ApiError(422, "invalid_input", f"server type {name} not found")
    return {
        "id": list(TYPES).index(name) + 1,
        "name": name,
        "architecture": TYPES[name],
        "description": name,
        "cores": 2,
        "memory": 4.0,
        "disk": 40,
        "prices": [],
        "storage_type": "local",
        "cpu_type": "shared",
        "deprecated": False,
        "deprecation": None,
    }


def load_balancer_type() -> Thing:
    """Return the one load balancer type that there is."""
    return {
        "id": 1,
        "name": "lb11",
        "description": "LB11",
        "max_connections": 10000,
        "max_services": 5,
        "max_targets": 25,
        "max_assigned_certificates": 10,
        "prices": [],
        "deprecated": None,
    }


def image(name: str, architecture: str) -> Thing:
    """Return an image."""
    number = 10 * (IMAGES.index(name) + 1) + (architecture == "arm")
    return {
        "id": number,
        "name": name,
        "architecture": architecture,
        "type": "system",
        "status": "available",
        "description": name,
        "os_flavor": "debian",
        "os_version": "12",
        "disk_size": 5,
        "image_size": None,
        "created": CREATED,
        "created_from": None,
        "bound_to": None,
        "rapid_deploy": True,
        "deprecated": None,
        "deleted": None,
        "labels": {},
        "protection": {"delete": False},
    }


def pricing() -> Thing:
    """Return a price list, in the form of the API; the prices are made up."""

    def price(net: str, place: str = "fsn1") -> Thing:
        amount = {"net": net, "gross": net}
        return {"location": place, "price_hourly": amount, "price_monthly": amount}

    return {
        "currency": "EUR",
        "vat_rate": "19.00",
        "server_types": [
            {"id": 1, "name": name, "prices": [price("7.0000000000"), price("9.00", "ash")]}
            for name in TYPES
        ],
        "primary_ips": [{"type": "ipv4", "prices": [price("0.5000")]}],
        "load_balancer_types": [{"id": 1, "name": "lb11", "prices": [price("6.00")]}],
        "volume": {"price_per_gb_month": {"net": "0.0600", "gross": "0.07"}},
    }


# The server


@contextmanager
def serve(hetzner: Hetzner) -> Iterator[str]:
    """Serve the API on this machine; yield the value of HCLOUD_ENDPOINT."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            url = urlsplit(self.path)
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length) or "{}")
            status = 200
            try:
                if self.headers.get("Authorization") != f"Bearer {hetzner.token}":
                    raise ApiError(401, "unauthorized", "unable to authenticate")
                path = re.sub("//+", "/", url.path)
                hetzner.before(self.command, path)
                answer = hetzner.answer(self.command, path, parse_qs(url.query), body)
                hetzner.after(self.command, path)
            except ApiError as error:
                status = error.status
                answer = {"error": {"code": error.code, "message": str(error), "details": None}}
            except Exception as error:
                # The provider prints it; a dropped connection it would try again, for minutes.
                status = 501
                hetzner.unknown.append(repr(error))
                answer = {"error": {"code": "stand-in", "message": repr(error), "details": None}}
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            # An interrupted client has gone.
            with suppress(ConnectionError):
                self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
