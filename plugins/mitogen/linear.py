"""Ansible's strategies linear and free, by Mitogen; see scripts/ansible-playbook.

They have the names of Ansible's own, so that plays and what they print are the same without
Mitogen. Ansible looks for a strategy in a file of its name: free.py is a link to this one.
"""

import functools
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import ansible.plugins.strategy
import ansible_mitogen.module_finder
from ansible.plugins.loader import filter_loader, test_loader
from ansible_mitogen.strategy import StrategyMixin

# By its file: to Ansible, this module is ansible.plugins.strategy.linear, or .free.
_name = Path(__file__).stem
_spec: Any = spec_from_file_location(
    f"ansible_strategy_{_name}", Path(ansible.plugins.strategy.__file__).with_name(f"{_name}.py")
)
_original: Any = module_from_spec(_spec)
_spec.loader.exec_module(_original)
Base: Any = _original.StrategyModule

# Mitogen compiles every module with all of ansible.module_utils that it imports, to see what it
# needs on the host: the same files again for each module, a quarter of a run that changes nothing.
ansible_mitogen.module_finder.compile = functools.cache(compile)


@functools.cache
def prepare() -> None:
    """Load all filters and tests once, and not in each task of each host, a process of its own.

    That is a tenth of what a deploy of ten hosts costs the controller.
    """
    for loader in (filter_loader, test_loader):
        for _plugin in loader.all():
            pass


class StrategyModule(StrategyMixin, Base):
    """Runs tasks on one Python a host."""

    def run(self, iterator: Any, play_context: Any) -> Any:
        """Run a play."""
        prepare()
        return super().run(iterator, play_context)
