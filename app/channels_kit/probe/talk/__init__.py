"""Clients of an application talk while it is disturbed, and every message is accounted for.

`python -m channels_kit.probe talk` for operators, `talk` for programs.
"""

from channels_kit.probe.talk.conversation import talk
from channels_kit.probe.talk.limits import Limits
from channels_kit.probe.talk.outcome import Absence, ClientOutcome, Outcome
from channels_kit.probe.talk.plan import Plan

__all__ = ["Absence", "ClientOutcome", "Limits", "Outcome", "Plan", "talk"]
