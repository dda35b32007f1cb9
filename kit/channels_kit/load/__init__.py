"""Clients of an application talk while it is disturbed, and every message is accounted for.

`python -m channels_kit.load run` for operators, `run_load` for programs. Not for production hosts:
an extra of the distribution.
"""

from channels_kit.load.conversation import run_load
from channels_kit.load.limits import Limits
from channels_kit.load.outcome import Absence, ClientOutcome, Outcome
from channels_kit.load.plan import Plan

__all__ = ["Absence", "ClientOutcome", "Limits", "Outcome", "Plan", "run_load"]
