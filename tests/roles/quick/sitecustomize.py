"""Makes the runs of Ansible in the tests, which are short and many, take less of the processor."""

import gc
import sys
from pathlib import Path

gc.set_threshold(100_000, 50, 50)

if len(sys.orig_argv) > 1 and Path(sys.orig_argv[1]).name == "ansible-playbook":
    import quick_ansible  # type: ignore[import-not-found]

    quick_ansible.do_once()
