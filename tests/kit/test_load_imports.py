"""Who imports the load tool, and what it imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KIT = ROOT / "kit"


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(KIT)},
        capture_output=True,
        text=True,
        check=False,
    )


def imported_by(*modules: str) -> set[str]:
    """Return the modules that a new interpreter has after it has imported some."""
    result = run(f"import sys, {', '.join(modules)}; print(*sys.modules, sep='\\n')")
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_the_probe_and_the_server_do_not_import_it() -> None:
    found = imported_by("channels_kit.probe.__main__", "channels_kit.serving.wrapper")
    assert "channels_kit.serving.consumer" in found
    assert not [name for name in found if name.startswith("channels_kit.load")]
    assert not {"picows", "matplotlib"} & found


def test_no_other_module_of_the_kit_names_it() -> None:
    """Those that need a server or settings of their own, too."""
    package = KIT / "channels_kit"
    files = [
        file for file in package.rglob("*.py") if "load" not in file.relative_to(package).parts
    ]
    assert package / "serving" / "daphne.py" in files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Import(names=names):
                    named = [each.name for each in names]
                case ast.ImportFrom(module=module, names=names):
                    named = [f"{module}.{each.name}" for each in names]
                case _:
                    continue
            assert not [name for name in named if name.startswith("channels_kit.load")], file


def test_a_run_does_not_pay_for_the_plot() -> None:
    found = imported_by("channels_kit.load.__main__")
    assert "picows" in found
    assert not {"matplotlib", "numpy"} & found


@pytest.mark.parametrize(
    ("lacking", "module"),
    [("picows", "channels_kit.load.wire"), ("matplotlib", "channels_kit.load.plot")],
)
def test_without_the_extra_its_name_is_said(lacking: str, module: str) -> None:
    program = f"import sys; sys.modules[{lacking!r}] = None; import {module}"
    result = run(program)
    assert result.returncode == 1
    assert f"needs {lacking}: pip install 'channels-kit[load]'" in result.stderr
