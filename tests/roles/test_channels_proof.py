"""The action channels_proof: what a proof came to, and what a roll takes."""

import importlib.util
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure

from .house import ROOT, Tree

PLUGIN = ROOT / "plugins" / "action" / "channels_proof.py"
PROVED = {
    "rc": 0,
    "stdout": "directly: ...\n\nProved: wires (39 of 39 pairs).",
    "stderr": "5 of 5 rounds",
}

Prove = Callable[..., Tree]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def prove(said: list[str], monkeypatch: pytest.MonkeyPatch) -> Prove:
    spec = importlib.util.spec_from_file_location("channels_proof", PLUGIN)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "channels_proof", module)
    spec.loader.exec_module(module)
    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: now[0]))

    def run(
        found: Tree | Exception, check: bool = False, known: Tree | None = None, **more: Any
    ) -> Tree:
        def execute(module_name: str, module_args: Tree, task_vars: Tree) -> Tree:
            assert (module_name, module_args) == ("ansible.builtin.command", {"argv": ["prove"]})
            assert not check
            if isinstance(found, Exception):
                raise found
            now[0] += 0.5
            return found

        arguments = {"proof": ["prove"], "title": "2/6", "seconds": 2, **more}
        task = SimpleNamespace(args=arguments, check_mode=check, async_val=0)
        connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/nowhere"))
        rest: Tree = dict.fromkeys(("play_context", "loader", "templar"))
        action = module.ActionModule(task=task, connection=connection, **rest)
        monkeypatch.setattr(action, "_execute_module", execute)
        monkeypatch.setattr(action, "_display", SimpleNamespace(display=said.append))
        answer: Tree = action.run(task_vars=known or {})
        return answer

    return run


def test_a_wave_says_what_it_took_and_how_much_of_it_was_the_proof(
    prove: Prove, said: list[str]
) -> None:
    answer = prove(PROVED, workers=["app1:8002", "app2:8001"])
    assert answer["changed"] is False
    assert said == [
        "  2/6 app1:8002 app2:8001: 2.5 s, of which the proof took 0.5 s (20 %):"
        " wires (39 of 39 pairs)."
    ]
    prove(PROVED, workers=[f"app{number}:8001" for number in range(5)])
    assert said[-1].startswith("  2/6 (5 workers): 2.5 s")


def test_the_last_proof_says_what_the_roll_took(prove: Prove, said: list[str]) -> None:
    first = prove(PROVED)
    known = {"ansible_facts": first["ansible_facts"]}
    prove(PROVED, known=known, title="every worker", is_last=True, seconds=0)
    assert said[-2] == "  every worker: proved in 0.5 s: wires (39 of 39 pairs)."
    # It began when the first wave did.
    assert said[-1] == "  rolled in 3.0 s, of which the proof took 1.0 s (33 %)"


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({"failed": True, "rc": 1, "stdout": "app1 -> app2: lost", "stderr": ""}, "app1 -> app2"),
        ({"rc": 1, "stdout": "", "stderr": "no release"}, "no release"),
        ({"failed": True, "msg": "No such file"}, "No such file"),
    ],
)
def test_a_wave_that_is_not_proved_is_a_failure(prove: Prove, found: Tree, why: str) -> None:
    answer = prove(found)
    assert answer["failed"] is True
    assert answer["msg"].startswith(f"2/6 failed: not proved\n{why}")
    assert "ansible_facts" not in answer


def test_a_host_that_is_unreachable_is_a_failure(prove: Prove) -> None:
    """Ansible would put no host back after an unreachable one."""
    answer = prove(AnsibleConnectionFailure("timed out"))
    assert answer["failed"] is True
    assert answer["msg"] == "2/6 failed: host unreachable\ntimed out"


def test_a_dry_run_proves_nothing(prove: Prove, said: list[str]) -> None:
    assert prove(PROVED, check=True)["changed"] is False
    assert said == []
