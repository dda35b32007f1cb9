"""Write prices.yml from Hetzner's price list. Needs HCLOUD_TOKEN in the environment."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

ENDPOINT = "https://api.hetzner.cloud/v1"
TABLE = Path(__file__).with_name("prices.yml")
HEADER = """\
---
# What one costs a month, without VAT. terraform/hcloud/prices.py writes this file from Hetzner's
# own price list; it needs HCLOUD_TOKEN.
"""


def read(endpoint: str, token: str) -> dict[str, Any]:
    """Return Hetzner's price list."""
    request = urllib.request.Request(  # noqa: S310 - the operator's own address
        f"{endpoint}/pricing", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request) as response:  # noqa: S310
        pricing: dict[str, Any] = json.load(response)["pricing"]
    return pricing


def table(pricing: Mapping[str, Any], location: str, date: datetime.date) -> dict[str, Any]:
    """Return the table of a location.

    Args:
        pricing: Hetzner's price list.
        location: which prices are taken; others that have the same are listed with it.
        date: of the list.
    """
    servers = _by_type(pricing["server_types"])
    balancers = _by_type(pricing["load_balancer_types"])
    addresses = _by_type(
        {**each, "name": each["type"]} for each in pricing["primary_ips"] if each["type"] == "ipv4"
    )
    places = sorted({place for prices in servers.values() for place in prices})
    if location not in places:
        allowed = ", ".join(places)
        sys.exit(f"--location is '{location}'; allowed: {allowed}. Nothing changed.")

    def at(place: str) -> dict[str, Any]:
        return {
            "servers": {name: prices[place] for name, prices in servers.items() if place in prices},
            "ipv4": addresses["ipv4"].get(place),
            "load_balancers": {
                name: prices[place] for name, prices in balancers.items() if place in prices
            },
        }

    here = at(location)
    return {
        "date": date.isoformat(),
        "currency": pricing["currency"],
        "note": "Without VAT.",
        "locations": [place for place in places if at(place) == here],
        "volume_gigabyte": float(pricing["volume"]["price_per_gb_month"]["net"]),
        **here,
    }


def _by_type(types: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return monthly prices without VAT by type and location."""
    return {
        each["name"]: {
            price["location"]: float(price["price_monthly"]["net"]) for price in each["prices"]
        }
        for each in types
    }


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description="Write prices.yml from Hetzner's price list.")
    parser.add_argument("--location", default="fsn1", help="whose prices to write, such as ash")
    parser.add_argument("--table", type=Path, default=TABLE, help="the file to write")
    options = parser.parse_args()
    token = os.environ.get("HCLOUD_TOKEN", "").strip()
    if not token:
        sys.exit("HCLOUD_TOKEN is not set; allowed: a token of a project. Nothing changed.")
    try:
        pricing = read(os.environ.get("HCLOUD_ENDPOINT", ENDPOINT), token)
    except OSError as error:
        # Also an answer such as 401.
        sys.exit(
            f"Cannot read Hetzner's price list: {error}. Check HCLOUD_TOKEN and the connection."
            " Nothing changed."
        )
    found = table(pricing, options.location, datetime.datetime.now(tz=datetime.UTC).date())
    options.table.write_text(HEADER + yaml.safe_dump(found, sort_keys=False))
    print(f"Wrote {options.table}: {len(found['servers'])} server types, {found['date']}.")


if __name__ == "__main__":
    main()
