"""Reports of make verify, as the tests need them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "20261128T211500Z.json"


def check(host: str = "app1", term: str = "open files", **values: Any) -> dict[str, Any]:
    """Return a check that is ok, but for what is given."""
    return {
        "host": host,
        "subject": "channels-web@8001.service",
        "term": term,
        "expected": "65536",
        "effective": "65536",
        "source": "/proc/812/limits",
        "status": "ok",
        "message": "",
        **values,
    }


def matrix(
    workers: list[str], failed: Mapping[tuple[str, str], str] | None = None
) -> dict[str, Any]:
    """Return a matrix in which the given pairs failed, with their messages."""
    failed = failed or {}
    return {
        "workers": workers,
        "edges": ["https://10.0.0.10"],
        "cells": [
            {"from": one, "to": two, "status": "failed", "message": failed[one, two]}
            if (one, two) in failed
            else {"from": one, "to": two, "status": "ok", "seconds": 0.004, "message": ""}
            for one in workers
            for two in workers
        ],
    }


def names(hosts: int, workers: int = 2) -> list[str]:
    """Return the names of workers."""
    return [f"app{host}:{8000 + each}" for host in range(1, hosts + 1) for each in (1, 2)[:workers]]


def report(**values: Any) -> dict[str, Any]:
    """Return a report in which everything is ok, but for what is given."""
    return {
        "format": 1,
        "kit": "0.5.0",
        "environment": "production",
        "began": "2026-11-28T21:15:00Z",
        "seconds": 12.3,
        "verdict": "verified",
        "checks": [check()],
        "matrix": matrix(names(2)),
        "behaviour": [
            {
                "name": "handshake through the edge",
                "subject": "https://chat.example.org",
                "status": "ok",
                "seconds": 0.02,
                "message": "",
            }
        ],
        **values,
    }


def write(directory: Path, name: str = NAME, **values: Any) -> Path:
    """Write a report into a directory; return its file."""
    file = directory / name
    file.write_text(json.dumps(report(**values)))
    return file
