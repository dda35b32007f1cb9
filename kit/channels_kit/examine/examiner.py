"""Tries to start an application as often as it takes to name every obstacle, and judges it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import channels_kit
from channels_kit.examine import rules, rules_web
from channels_kit.examine.child import BROKEN
from channels_kit.examine.finding import Finding, Subject, of_inventory
from channels_kit.examine.remedies import Remedies, placeholders, value_of
from channels_kit.examine.rules import writable_line
from channels_kit.examine.scrub import Scrubber
from channels_kit.examine.sources import syntax_errors

ATTEMPTS = 25
"""How often an application is started; each attempt shows what the one before hid."""

SETTINGS_STEP = "the settings are imported"

DEVELOPMENT = {"debug_toolbar", "django_browser_reload", "silk"}
"""Tools of developers, which are imported where DEBUG is on."""

PATIENCE = 3.0
"""Seconds beyond its limit after which a child is killed: it took no signal."""


@dataclass
class Attempt:
    """What one attempt to start the application has shown."""

    findings: list[tuple[Finding, Mapping[str, Any]]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    reads: dict[str, bool] = field(default_factory=dict)
    step: str = ""
    done: bool = False

    def take(self, told: Mapping[str, Any]) -> None:
        """Take what the child tells."""
        if "finding" in told:
            self.findings.append((Finding(**told["finding"]), told))
        self.settings = told.get("settings", self.settings)
        self.facts |= told.get("facts", {})
        self.reads |= told.get("reads", {})
        self.step = told.get("step", self.step)
        self.done = told.get("done", self.done)


@dataclass
class Recovery:
    """What stands in for what the application lacks, so that the next attempt gets further.

    Attributes:
        root: the project, a copy.
        stubs: modules that are missing.
        candidates: values of variables that are missing.
        written: what the application writes to in the project while it starts.
    """

    root: Path = Path()
    stubs: list[str] = field(default_factory=list)
    candidates: dict[str, list[str]] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """Return the placeholders of the variables that are missing."""
        return {name: values[0] for name, values in self.candidates.items()}

    def learn(self, attempt: Attempt, environment: Mapping[str, str]) -> bool:
        """Take stand-ins for what an attempt lacked; return whether another is worth it."""
        learnt = False
        for finding, told in attempt.findings:
            variable, stub = told.get("variable", ""), told.get("stub", "")
            if variable and variable not in self.candidates:
                given = [json.dumps(environment.get(variable, "").split(","))]
                is_set = finding.name == "variable-form"
                self.candidates[variable] = (given if is_set else []) + placeholders(variable)
                learnt = True
            elif stub and stub not in self.stubs:
                self.stubs.append(stub)
                learnt = True
            elif finding.name == "writes-at-import":
                learnt |= self._allow_writing(Path(finding.line))
            elif finding.name == "fails-at-import" and not stub:
                learnt |= self._other_placeholder(finding)
        return learnt

    def _allow_writing(self, path: Path) -> bool:
        """Let the next attempt write to a path in the project, and return whether it is new."""
        if not path.is_relative_to(self.root):
            return False
        directory = written_directory(path)
        where = str(path if directory == self.root else directory)
        if where in self.written:
            return False
        self.written.append(where)
        return True

    def _other_placeholder(self, finding: Finding) -> bool:
        """Try another placeholder where one may be what the application cannot read."""
        said = f"{finding.value} {finding.why}"
        names = [name for name, values in self.candidates.items() if values[0] in said]
        for name in names or list(self.candidates)[-1:]:
            if len(self.candidates[name]) > 1:
                self.candidates[name].pop(0)
                return True
        return False


def written_directory(path: Path) -> Path:
    """Return the directory that an application needs which writes to a path."""
    return path.parent if path.suffix else path


class Examiner:
    """Examines one application.

    Args:
        root: the project's directory, a copy that nobody else uses.
        subject: what the cluster would run.
        output: takes what the application prints.
    """

    def __init__(self, root: Path, subject: Subject, output: TextIO | None = None) -> None:
        self._root = root.resolve()
        self._subject = subject
        self._output = output
        self._scrub = Scrubber(subject.environment)
        self._unset: list[str] = []

    def examine(self) -> list[Finding]:
        """Return everything that stops a deploy, and then what is worth knowing."""
        found = list(syntax_errors(self._root))
        recovery = Recovery(self._root)
        attempt = Attempt()
        for _ in range(ATTEMPTS):
            attempt = self._attempt(recovery)
            tainted = bool(recovery.stubs or recovery.candidates)
            found += [
                finding
                for finding, told in attempt.findings
                if not (tainted and told.get("sure") is False)
            ]
            if not recovery.learn(attempt, self._subject.environment):
                break
        remedies = self._remedies(attempt, recovery)
        self._unset = [
            name
            for name, is_set in attempt.reads.items()
            if not is_set and name not in recovery.candidates
        ]
        found += self._judge(attempt, recovery, remedies, list(found))
        if any(each.name == "debug-on" for each in found):
            found = [each for each in found if each.what not in DEVELOPMENT]
        found = [self._with_line(each, remedies) for each in found]
        return self._in_order(found)

    def _remedies(self, attempt: Attempt, recovery: Recovery) -> Remedies:
        reads = {**attempt.reads, **dict.fromkeys(recovery.candidates, False)}
        return Remedies(reads, self._subject.overlay)

    def _judge(
        self, attempt: Attempt, recovery: Recovery, remedies: Remedies, found: list[Finding]
    ) -> Iterator[Finding]:
        """Yield what the settings get wrong, but for what only a placeholder does."""
        settings = {**attempt.settings, **attempt.facts}
        # What is said of a write at import makes these writable.
        places = [os.path.relpath(each, self._root) for each in recovery.written]
        subject = replace(self._subject, writable=[*self._subject.writable, *places])
        invented = recovery.environment().values()
        judged = [
            finding
            for finding in (
                *rules.findings(settings, subject, remedies),
                *rules_web.findings(settings, subject, remedies),
            )
            if "placeholder" not in finding.value and finding.value not in invented
        ]
        yield from judged
        yield from self._processes(attempt)
        healthy = not any(finding.obstacle for finding in [*found, *judged])
        unset = self._unset
        if unset and not healthy:
            yield Finding(
                name="unset-variables",
                what=", ".join(unset[:12]) + (f" and {len(unset) - 12} more" if unset[12:] else ""),
                value="not set",
                why="The settings read these variables, but do not require them.",
                line=of_inventory(unset[0], value_of(unset[0])) if len(unset) == 1 else "",
                obstacle=False,
            )

    def _processes(self, attempt: Attempt) -> Iterator[Finding]:
        """Yield processes that the application has and the inventory does not name."""
        missing = sorted(set(attempt.facts.get("channels", ())) - set(self._subject.runworkers))
        if missing:
            yield Finding(
                name="no-runworker",
                what="channels_processes",
                value=", ".join(missing),
                why="The application handles messages on these channels, but no process receives"
                " them.",
                line="channels_processes:\n  background: {runworker: [" + ", ".join(missing) + "]}",
                obstacle=False,
            )
        if attempt.facts.get("celery") and not self._subject.celery:
            yield Finding(
                name="no-celery",
                what="channels_processes",
                value=f"Celery of {attempt.facts['celery']}",
                why="The application has tasks for Celery, but no process runs them.",
                line="channels_processes:\n  celery: {celery: worker}",
                obstacle=False,
            )

    def _with_line(self, finding: Finding, remedies: Remedies) -> Finding:
        """Return a finding whose line is one of inventory, where only a name was known."""
        line = finding.line
        if finding.name == "missing-variable":
            line = remedies.for_variable(finding.what)
        elif finding.name == "variable-form":
            fact = value_of(finding.what).strip('"{} ')
            form = f"'{{{{ {fact}.split(\",\") | to_json }}}}'" if fact != "..." else "..."
            line = of_inventory(finding.what, form if "JSON" in finding.why else "...")
        elif finding.name == "fails-at-import" and SETTINGS_STEP in finding.why and self._unset:
            few = ", ".join(self._unset[:6])
            line = f"Check whether the settings need one of these unset variables: {few}\n{line}"
        elif finding.name == "writes-at-import":
            directory = written_directory(Path(line))
            if directory.is_relative_to(self._root):
                directory = directory.relative_to(self._root)
            line = writable_line(str(directory), self._subject)
        allowed = finding.name in self._subject.allowed
        root = f"{self._root}/"
        return Finding(
            name=finding.name,
            what=self._scrub.own(finding.what.replace(root, "")),
            value=self._scrub.own(finding.value.replace(root, "")),
            why=self._scrub.own(finding.why.replace(root, "")),
            line=line,
            obstacle=finding.obstacle and not allowed,
        )

    def _in_order(self, found: list[Finding]) -> list[Finding]:
        """Return each finding once, obstacles first."""
        seen: dict[tuple[str, str], Finding] = {}
        for each in found:
            key = (each.name, each.what)
            if key not in seen or (each.obstacle and not seen[key].obstacle):
                seen[key] = each
        return sorted(seen.values(), key=lambda each: not each.obstacle)

    def _attempt(self, recovery: Recovery) -> Attempt:
        """Start the application in a process of its own and return what that shows."""
        subject = self._subject
        attempt = Attempt()
        scratch = Path(tempfile.mkdtemp(prefix="channels-examine-"))
        try:
            request = {
                "root": str(self._root),
                "scratch": str(scratch),
                "writable": [*subject.writable, *recovery.written],
                "application": subject.application,
                "settings_module": subject.settings_module,
                "stubs": recovery.stubs,
                "limit": subject.limit,
            }
            status = self._run(request, scratch, recovery.environment(), attempt)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if not attempt.done:
            attempt.findings.append((self._ended(attempt, status), {}))
        return attempt

    def _run(
        self, request: dict[str, Any], scratch: Path, invented: dict[str, str], attempt: Attempt
    ) -> int:
        """Run the child and take what it tells; return its exit status."""
        kit = Path(channels_kit.__file__).parents[1]
        environment = {
            "HOME": str(scratch),
            "LANG": "C.UTF-8",
            "PATH": os.environ.get("PATH", os.defpath),
            # By hand: the units of a cluster always have it.
            "DJANGO_SETTINGS_MODULE": self._subject.settings_module,
            **self._subject.environment,
            **invented,
            "PYTHONPATH": f".:{kit}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(scratch),
        }
        to_child, request_end = os.pipe()
        answer_end, from_child = os.pipe()
        process = subprocess.Popen(  # noqa: S603 - the interpreter that runs this
            [
                *(sys.executable, "-m", "channels_kit.examine.child"),
                *(str(to_child), str(from_child)),
            ],
            cwd=self._root,
            env=environment,
            pass_fds=(to_child, from_child),
            stdin=subprocess.DEVNULL,
            stdout=self._output or subprocess.DEVNULL,
            stderr=self._output or subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_child)
        os.close(from_child)
        with os.fdopen(request_end, "w") as file:
            json.dump(request, file)
        os.set_blocking(answer_end, False)
        try:
            self._listen(process, answer_end, attempt)
        finally:
            os.close(answer_end)
            if process.poll() is None:
                process.kill()
        return process.wait()

    def _listen(self, process: subprocess.Popen[bytes], source: int, attempt: Attempt) -> None:
        """Take what the child tells, until it has ended or has had its time."""
        import select

        pending = b""
        # Each step has its time.
        end = time.monotonic() + self._subject.limit + PATIENCE
        while (left := end - time.monotonic()) > 0:
            if not select.select([source], [], [], left)[0]:
                return
            content = os.read(source, 65536)
            if not content:
                return
            pending += content
            *lines, pending = pending.split(b"\n")
            for line in lines:
                told = json.loads(line)
                attempt.take(told)
                if "step" in told:
                    end = time.monotonic() + self._subject.limit + PATIENCE

    def _ended(self, attempt: Attempt, status: int) -> Finding:
        """Return what to say of a child that has ended without a word, or had to be killed."""
        step = attempt.step or "Python starts"
        if status == BROKEN:
            return Finding(
                name="examination-failed",
                what=step,
                value="",
                why="The examination itself failed in this step. The application was examined"
                " only in part.",
                line="",
                obstacle=False,
            )
        value = f"signal {-status}" if status < 0 else f"exit status {status}"
        return Finding(
            name="ends-at-import",
            what=step,
            value=value,
            why="The process ended during this step. No worker can start.",
            line="Run it yourself: manage.py check --deploy",
        )
