"""Whether a package that was imported is this checkout's, and not somebody else's of the same name."""

from __future__ import annotations

import sys
from pathlib import Path


def require_own(name: str, folder: Path) -> None:
    """End with a message where `name` was imported from elsewhere than `folder`; imports nothing itself.

    A start-up file of Python, or another distribution with a package called `tune`, may have loaded one before.

    Args:
        name: A package.
        folder: Where this checkout has it.

    Raises:
        SystemExit: Another package of that name is loaded.
    """
    loaded = sys.modules.get(name)
    paths = [Path(path).resolve() for path in getattr(loaded, "__path__", [])]
    if loaded is None or folder.resolve() in paths:
        return
    where = paths[0] if paths else getattr(loaded, "__file__", None) or "elsewhere"
    sys.exit(
        f"error: Python has loaded another package called {name}, from {where}, before macil-tune's own in "
        f"{folder}. Run macil-tune in an environment without it, or take that folder off PYTHONPATH"
    )
