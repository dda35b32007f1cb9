"""A settings module in front of the project's: `DJANGO_SETTINGS_MODULE=channels_kit.overlay`.

It imports the module that CHANNELS_KIT_SETTINGS names, and sets what a cluster must own;
`channels_kit.cluster_settings` has the rules. What the project computes from its own values has
been computed by then. `python -m channels_kit.overlay` prints what it changes.
"""

import json
import os
import sys
from importlib import import_module

from channels_kit.cluster_settings import Change, OverlayError, own_settings, table

# No name here may be in capitals: Django would take it for a setting.
variable = "CHANNELS_KIT_SETTINGS"


def load() -> tuple[dict[str, object], list[Change]]:
    """Return the settings of the project with the cluster's in them, and what has been changed."""
    name = os.environ.get(variable, "")
    if name in ("", "channels_kit.overlay"):
        raise OverlayError(
            f"{variable} is {name!r}; allowed: the name of the project's settings module,"
            " such as project.settings"
        )
    module = import_module(name)
    project = {key: getattr(module, key) for key in dir(module) if key.isupper()}
    settings, changes = own_settings(project, os.environ)
    for key in settings:
        # Also for what imports the project's module by its name.
        setattr(module, key, settings[key])
    return settings, changes


def main() -> int:
    """Print what is changed; return the exit code."""
    try:
        _, changes = load()
    except OverlayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if "--json" in sys.argv[1:]:
        print(json.dumps([change.as_json() for change in changes], indent=2))
    else:
        print(table(changes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
else:
    globals().update(load()[0])
