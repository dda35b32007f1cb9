#!/usr/bin/python
"""Documentation of the action channels_roll; the action is plugins/action/channels_roll.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: channels_roll
short_description: Restart a host's units one worker after the other, or stop them
description:
  - Restarts the workers of a host one by one. Each worker drains and stops (its unit does that),
    starts, becomes ready and is proved.
  - The first worker of the cluster is the canary. The roll watches it for O(canary_seconds) before
    it touches the next worker.
  - Background units restart together with the first worker that is not the canary.
  - Fails as soon as a new process exits. The message ends with the last journal lines of the unit.
    After a failure no further unit is touched.
  - This is an action that runs on the controller. It runs the module M(channels_units) on the host.
options:
  state:
    description:
      - V(restarted) restarts the units that do not run the right process.
      - V(stopped) stops all units at once, so that clients do not reconnect to a worker that stops
        next. V(removed) also disables them.
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
        description: Name of the unit in systemd, such as V(channels-web@8001.service).
        type: str
        required: true
      label:
        description: Name of the unit in messages and in the proof, such as V(app1:8001).
        type: str
      revision:
        description: Value of E(CHANNELS_KIT_REVISION) with which its process must have started.
        type: str
        default: ""
      url:
        description: URL of a worker, without a path.
        type: str
      connected_to:
        description:
          - For a background unit, ports of servers. It is ready when it is connected to one.
          - Without ports it is ready when its process has run for 3 s.
        type: list
        elements: int
        default: []
      replaced_process:
        description: ID of a process to replace although its revision is right.
        type: int
        default: 0
  number:
    description: Position of the first unit in the whole roll. V(1) is the canary.
    type: int
    default: 1
  total:
    description: Number of units in the whole roll. Default is the number of units of this host.
    type: int
  stop_timeout:
    description: Seconds that a unit may take to drain and to stop.
    type: float
    required: true
  ready_timeout:
    description: Seconds that a unit may take to become ready after that. V(0) does not wait for it.
    type: float
    default: 60
  canary_seconds:
    description:
      - Seconds to watch the canary. Without a O(proof) the canary is not watched.
      - The O(canary_proof) runs in this time. It is waited for if it takes longer.
    type: float
    default: 0
  proof:
    description:
      - A command that exits with 0 if the worker is proved. If C(--worker=LABEL=URL) of the
        current worker is missing, it is added.
      - It runs for each worker when it is ready, so it should be short.
    type: list
    elements: str
    default: []
  canary_proof:
    description: A longer proof, which runs while the canary is watched.
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
    canary_seconds: 12
    proof: [channels-prove, releases/0123456789ab, --hold=0]
    canary_proof: [channels-prove, releases/0123456789ab]

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
