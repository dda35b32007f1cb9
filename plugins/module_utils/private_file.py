"""Put a file in place that others must not read, not even half of it and not for a moment."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any


def put(module: Any, path: Path, content: str | None, attributes: dict[str, str]) -> bool:
    """Bring a file to a content and to its attributes.

    Args:
        module: the AnsibleModule that does it.
        path: the file.
        content: what it shall hold; None where the file that is there has the right content.
        attributes: owner, group and mode.

    Returns:
        Whether something was changed, or would be in check mode.
    """
    if content is None:
        wanted = module.load_file_common_arguments({"path": str(path), **attributes})
        return bool(module.set_fs_attributes_if_different(wanted, changed=False))
    if module.check_mode:
        return True
    # Only its owner may read what mkstemp makes.
    descriptor, new = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        wanted = module.load_file_common_arguments({"path": new, **attributes})
        module.set_fs_attributes_if_different(wanted, changed=True)
        Path(new).replace(path)
    except BaseException:
        Path(new).unlink(missing_ok=True)
        raise
    return True
