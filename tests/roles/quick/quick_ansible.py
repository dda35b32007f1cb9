"""Has Ansible do once, for all tests, what it does again and again; what it says stays the same."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
COMPILED = ROOT / ".staging" / "compiled-templates"


def do_once() -> None:
    """Do what the kit's callback does, for all templates, and before playbooks are read."""
    sys.path.insert(0, str(ROOT))
    try:
        from plugins.callback import do_once
    finally:
        sys.path.remove(str(ROOT))
    COMPILED.mkdir(parents=True, exist_ok=True)
    do_once.keep_compiled(COMPILED, lambda template: True)
    do_once.share_copies()
