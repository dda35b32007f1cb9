"""How long the proof of a roll holds its sockets."""

import re
from pathlib import Path

from .house import ROLES, run

SECONDS = (0, 1, 9, 10, 12)


def test_the_long_proof_holds_sockets_no_longer_than_the_canary_is_watched(tmp_path: Path) -> None:
    play = {
        "name": "Say",
        "hosts": "all",
        "gather_facts": False,
        "vars_files": [str(ROLES / "channels" / "vars" / "main.yml")],
        "vars": {
            "channels_release": {"id": "abc"},
            "channels_canary_seconds": "{{ item }}",
        },
        "tasks": [
            {
                "name": "Say | Both proofs",
                "vars": {"_channels_proved_workers": []},
                "ansible.builtin.debug": {
                    "msg": "canary {{ item }}: {{ _channels_proof | join(' ') }};"
                    " {{ _channels_short_proof | join(' ') }};"
                },
                "loop": list(SECONDS),
            }
        ],
    }
    hosts = {"all": {"hosts": {"app1": {"ansible_connection": "local"}}}}
    done = run(tmp_path, hosts, [play])
    assert done.code == 0, done.output
    output = " ".join(done.output.split())
    said = re.findall(r"canary (\d+): channels-prove releases/abc(.*?);.*?abc(.*?);", output)
    holds = {int(seconds): (long.strip(), short.split()[-1]) for seconds, long, short in said}
    by_default = ("", "--hold=0")
    assert holds == {
        0: by_default,
        1: ("--hold=1", "--hold=0"),
        9: ("--hold=9", "--hold=0"),
        10: by_default,
        12: by_default,
    }
