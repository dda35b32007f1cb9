"""Ansible's strategy free, by Mitogen; see scripts/ansible-playbook.

It has the name of Ansible's own, so that plays and what they print are the same without Mitogen.
"""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import ansible.plugins.strategy
from ansible_mitogen.strategy import StrategyMixin

# By its file: to Ansible, this module is ansible.plugins.strategy.free.
_spec: Any = spec_from_file_location(
    "ansible_strategy_free", Path(ansible.plugins.strategy.__file__).with_name("free.py")
)
_original: Any = module_from_spec(_spec)
_spec.loader.exec_module(_original)
Base: Any = _original.StrategyModule


class StrategyModule(StrategyMixin, Base):
    """Runs tasks on one Python a host."""
