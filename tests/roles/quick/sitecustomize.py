"""Makes Ansible's Python collect garbage less often: a run of the tests is short, and forks a lot."""

import gc

gc.set_threshold(100_000, 50, 50)
