"""Load with accounting: many clients of an application, and a ledger for each of them.

`python -m channels_kit.load run` for operators, `run_load` for programs. The extra `load` of the
distribution installs what it needs; production hosts do not get this package.
"""

from channels_kit.load.limits import Limits
from channels_kit.load.outcome import ClientOutcome, Outcome, Recovery
from channels_kit.load.plan import Plan
from channels_kit.load.run import run_load

__all__ = ["ClientOutcome", "Limits", "Outcome", "Plan", "Recovery", "run_load"]
