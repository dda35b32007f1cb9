"""The arithmetic of plugins/module_utils, for the programs of scripts/."""

from typing import TYPE_CHECKING

import ansible.module_utils

from commands import ROOT

# Outside of collections, Ansible makes its own module_utils importable on hosts alone.
_OWN_MODULE_UTILS = str(ROOT / "plugins" / "module_utils")
if _OWN_MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_OWN_MODULE_UTILS)

if TYPE_CHECKING:
    from plugins.module_utils.capacity import (
        BACK_SECONDS,
        Cluster,
        Figures,
        Load,
        PlanError,
        Shape,
        Statement,
        Term,
    )
    from plugins.module_utils.capacity_plan import (
        Plan,
        deploy_seconds,
        drain_rounds,
        examine,
        least,
        limit_terms,
        redis_terms,
        wave_size,
    )
else:
    from ansible.module_utils.capacity import (
        BACK_SECONDS,
        Cluster,
        Figures,
        Load,
        PlanError,
        Shape,
        Statement,
        Term,
    )
    from ansible.module_utils.capacity_plan import (
        Plan,
        deploy_seconds,
        drain_rounds,
        examine,
        least,
        limit_terms,
        redis_terms,
        wave_size,
    )

__all__ = [
    "BACK_SECONDS",
    "Cluster",
    "Figures",
    "Load",
    "Plan",
    "PlanError",
    "Shape",
    "Statement",
    "Term",
    "deploy_seconds",
    "drain_rounds",
    "examine",
    "least",
    "limit_terms",
    "redis_terms",
    "wave_size",
]
