#!/usr/bin/python
"""Documentation of the action channels_proof; the action is plugins/action/channels_proof.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: channels_proof
short_description: Prove a wave of a roll, and say how long it took
description:
  - Runs a proof on the host and prints one line about the wave. Changes nothing.
  - This is an action that runs on the controller. It runs the module ansible.builtin.command on the
    host.
options:
  proof:
    description: A command that exits with 0 if the wave is proved.
    type: list
    elements: str
    required: true
  title:
    description: What the line begins with, such as V(wave 2/6).
    type: str
    required: true
  workers:
    description: Names of the workers of the wave. The line names up to four.
    type: list
    elements: str
    default: []
  seconds:
    description: How long the wave took before its proof.
    type: float
    default: 0
  is_last:
    description: Whether the roll ends with this proof. Then a second line says how long it took.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
author: Channels Kit
"""

EXAMPLES = r"""
- name: Prove the second wave
  channels_proof:
    proof: [channels-prove, releases/0123456789ab, --hold=0, "--touched=app1:8002"]
    title: wave 2/6
    seconds: 3.2
"""

RETURN = r"""
ansible_facts:
  description: When the roll began, and the seconds that its proofs took.
  returned: if it is proved
  type: dict
"""
