"""The hosts of a calibration: what the inventory says of them, and programs that run there."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from commands import ROOT, run
from management import ManageError, reach

PROGRAM = Path(__file__).with_name("remote.py")

# Reads the program from standard input, whose rest are its requests.
BOOTSTRAP = "import sys,os;n=int(sys.argv[1]);b=b''\nwhile len(b)<n:b+=os.read(0,n-len(b))\nexec(b)"

CONNECT = "-o ConnectTimeout=10"
"""A host that is down is one for Ansible after as long."""


class CalibrationError(Exception):
    """A message for the operator; printed without a traceback."""


def read_values(
    inventory: Path, groups: Sequence[str], needed: Sequence[str], **variables: Any
) -> dict[str, Any]:
    """Return the values of an inventory, as Ansible evaluates them: playbooks/values.yml.

    Args:
        inventory: its path.
        groups: those that must have a host.
        needed: values without which there is no answer.
        variables: of the playbook.

    Raises:
        CalibrationError: Ansible cannot read it, the preflight would refuse it, or a group or value
            is missing.
    """
    with tempfile.TemporaryDirectory(prefix="channels-kit-") as directory:
        file = Path(directory, "values.json")
        command = [
            *(str(ROOT / "scripts" / "ansible-playbook"), "--inventory", str(inventory)),
            *(str(ROOT / "playbooks" / "values.yml"), "--extra-vars"),
            json.dumps({"values_file": str(file), **variables}),
        ]
        quiet = {**os.environ, "ANSIBLE_NOCOLOR": "1"}
        ended = run(command, env=quiet)
        # A host that does not answer is no error: its own values are there.
        if not file.exists():
            raise CalibrationError(
                f"Ansible cannot read {inventory}:\n{ended.stdout}{ended.stderr}"
            )
        content: dict[str, Any] = json.loads(file.read_text())
        if content["refused"]:
            raise CalibrationError(
                "\n".join(["The preflight would refuse this inventory:", *content["refused"]])
            )
        for group in groups:
            if not content["groups"].get(group):
                raise CalibrationError(
                    f"{inventory}: the group {group} is empty; allowed: at least one host."
                )
        unknown = [name for name in needed if name in content["errors"]]
        if unknown:
            raise CalibrationError(
                "\n".join(
                    [
                        f"{inventory} lacks values, or has values that cannot be evaluated:",
                        *(f"{name}: {content['errors'][name]}" for name in unknown),
                    ]
                )
            )
        return content


class Host:
    """A program that answers requests on a host, over SSH; see `remote`.

    Args:
        values: what the inventory says of the host.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.name = str(values["host"])
        self.values = values
        self.process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Host:
        """Start the program.

        Raises:
            CalibrationError: it cannot be started.
        """
        program = PROGRAM.read_bytes()
        words = ["python3", "-c", BOOTSTRAP, str(len(program))]
        values = {**self.values, "arguments": f"{self.values.get('arguments', '')} {CONNECT}"}
        try:
            command = reach(values, words, terminal=False)
            self.process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=2**24,
            )
        except (ManageError, OSError) as error:
            raise CalibrationError(f"{self.name} cannot be asked: {error}") from error
        assert self.process.stdin is not None  # noqa: S101
        self.process.stdin.write(program)
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the program, which closes its sockets."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            try:
                await asyncio.wait_for(self.process.wait(), 10)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()

    async def ask(self, kind: str, **request: Any) -> Any:
        """Return the answer to a request.

        Raises:
            CalibrationError: there is none.
        """
        process = self.process
        assert process is not None  # noqa: S101
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        try:
            process.stdin.write(json.dumps({"do": kind, **request}).encode() + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
        except ConnectionError:
            line = b""
        if not line:
            said = (await process.stderr.read()).decode(errors="replace").strip()
            raise CalibrationError(
                f"{self.name} does not answer: {said or 'the connection was closed'}\n"
                "Every app host, the first edge and the first Redis host must be reached as root."
            )
        answer = json.loads(line)
        if "error" in answer:
            raise CalibrationError(f"{self.name}: {kind} failed: {answer['error']}")
        return answer["answer"]
