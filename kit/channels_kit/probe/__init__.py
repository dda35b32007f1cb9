"""The one program that claims delivery: WebSockets to every worker, every delivery accounted.

`python -m channels_kit.probe matrix` for operators, `prove` for programs. Many clients of
an application, while it is disturbed: `channels_kit.load`.
"""

from channels_kit.probe.address import UsageError
from channels_kit.probe.matrix import Target, prove
from channels_kit.probe.result import Part, Report

__all__ = ["Part", "Report", "Target", "UsageError", "prove"]
