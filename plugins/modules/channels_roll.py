#!/usr/bin/python
"""Documentation of the action channels_roll; the action is plugins/action/channels_roll.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: channels_roll
short_description: Replace or restart a host's units, some at once, drain or stop them
description:
  - Replaces or restarts the workers of a host, O(at_once) at a time. They become ready, and are
    proved if there is a O(proof).
  - The first worker of the cluster is the canary. The roll watches it for O(canary_seconds) before
    it touches the next worker.
  - Background units restart together with the first workers that are not the canary.
  - Fails as soon as a new process exits. The message ends with the last journal lines of the unit.
    After a failure no further unit is touched.
  - This is an action that runs on the controller. It runs the module M(channels_units) on the host.
options:
  state:
    description:
      - V(restarted) restarts the units that do not run the right process. A worker drains, stops,
        and starts again.
      - V(reloaded) starts a new process beside that of each worker, which takes the port over. The
        former one keeps its sockets. Nothing is closed.
      - V(drained) has the processes that were replaced close their sockets and end.
      - V(resumed) gives the port back to the process in C(replaced_process) of each unit.
      - V(stopped) stops all units at once, so that clients do not reconnect to a worker that stops
        next. V(removed) also disables them.
    type: str
    choices: [restarted, reloaded, drained, resumed, stopped, removed]
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
    description: Position of the first wave in the whole roll. V(1) is the canary.
    type: int
    default: 1
  total:
    description: Number of waves in the whole roll. Default is the number of units of this host.
    type: int
  at_once:
    description: Number of workers to replace, restart or drain at once.
    type: int
    default: 1
  awaits_background:
    description: Whether to wait until background units are ready.
    type: bool
    default: true
  release:
    description:
      - Path of the release whose kit commands processes that were replaced. Required with
        O(state=drained) and O(state=resumed).
    type: path
  idle_only:
    description: With O(state=drained), whether only processes without sockets and requests end.
    type: bool
    default: false
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
      - A command that exits with 0 if the workers are proved.
      - It runs whenever O(at_once) workers are ready, so it should be short.
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
- name: Replace the workers of this host, which are a part of the third of seven waves
  channels_roll:
    state: reloaded
    units: "{{ outdated }}"
    at_once: "{{ outdated | length }}"
    number: 3
    total: 7
    stop_timeout: 450
    ready_timeout: 60

- name: Stop every unit at once
  channels_roll:
    state: stopped
    units: "{{ units }}"
    stop_timeout: 450
"""

RETURN = r"""
restarted:
  description: Names of the units that were replaced or restarted.
  returned: always
  type: list
  elements: str
left:
  description: >-
    Names of the workers whose process cannot be replaced, with O(state=reloaded). The fact
    C(_channels_left_units) has them, too.
  returned: always
  type: list
  elements: str
resumed:
  description: Names of the units whose former process has the port again.
  returned: with O(state=resumed)
  type: list
  elements: str
lost:
  description: Names of the units whose former process cannot get the port back.
  returned: with O(state=resumed)
  type: list
  elements: str
busy:
  description: With O(idle_only), names of the units with a process that has sockets or requests.
  returned: with O(state=drained)
  type: list
  elements: str
seconds:
  description: Duration in seconds.
  returned: always
  type: float
"""
