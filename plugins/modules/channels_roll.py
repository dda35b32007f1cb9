#!/usr/bin/python
"""Documentation of the action channels_roll; the action is plugins/action/channels_roll.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: channels_roll
short_description: Restart a host's units one worker after the other, or stop them
description:
  - Restarts the workers of a host one after the other. Each is drained and stopped (its unit does
    that), started, waited for until it is ready, and proved.
  - The first worker of the cluster is the canary. It is watched for O(canary_seconds) before the
    next one is touched.
  - Background units are restarted beside the first worker that is not the canary.
  - It fails as soon as a new process exits, and ends its message with the last lines of the unit's
    journal. No unit is touched after a failure.
  - An action that runs on the controller. On the host it runs the module M(channels_units).
options:
  state:
    description:
      - V(restarted) restarts the units of which the right process does not run.
      - V(stopped) stops all units at once; V(removed) disables them, too. People who leave one
        worker must not come to the next one.
    type: str
    choices: [restarted, stopped, removed]
    default: restarted
  units:
    description:
      - The units, with the suboptions of O(channels_units#module:units). A unit with a C(url) is a
        worker, any other one a background unit.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What systemd calls it, such as V(channels-web@8001.service).
        type: str
        required: true
      label:
        description: What messages and the proof call it, such as V(app1:8001).
        type: str
      revision:
        description: What its process must have been started with.
        type: str
        default: ""
      url:
        description: Where a worker answers, without a path.
        type: str
      connected_to:
        description: For a background unit, the port of the server that it takes its work from.
        type: int
      replaced_process:
        description: A process that is to be replaced although its revision is right.
        type: int
        default: 0
  number:
    description: Which unit of the whole roll the first one is. V(1) is the canary.
    type: int
    default: 1
  total:
    description: How many units the whole roll restarts. Default is those of this host.
    type: int
  stop_timeout:
    description: Seconds that a unit may take to drain and to stop.
    type: float
    required: true
  ready_timeout:
    description: Seconds that a unit may take to be ready after that. V(0) does not wait for it.
    type: float
    default: 60
  canary_seconds:
    description: Seconds that the canary is watched. It is not without a O(proof).
    type: float
    default: 0
  proof:
    description:
      - A command that exits with 0 where messages are delivered. C(--worker=LABEL=URL) of the
        worker whose turn it is is added where it is missing.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author: Channels Kit
"""

EXAMPLES = r"""
- name: Restart the workers of this host, the third to the fifth of seven units
  channels_roll:
    units: "{{ outdated }}"
    number: 3
    total: 7
    stop_timeout: 450
    ready_timeout: 60
    proof: [channels-prove, current]

- name: Stop every unit at once
  channels_roll:
    state: stopped
    units: "{{ units }}"
    stop_timeout: 450
"""

RETURN = r"""
restarted:
  description: Names of the units that were restarted.
  returned: always
  type: list
  elements: str
"""
