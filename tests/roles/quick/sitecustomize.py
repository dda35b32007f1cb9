"""Makes Python collect garbage less often: Ansible's runs in the tests are short and fork a lot."""

import gc

gc.set_threshold(100_000, 50, 50)
