"""Where converted and copied data are kept on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from macil.errors import UsageError
from macil.io.remote import local_path


def default_cache() -> Path:
    """Return the folder of `MACIL_CACHE`, or `macil` in the user's cache folder of this platform.

    Raises:
        UsageError: There is no such folder.
    """
    if os.environ.get("MACIL_CACHE"):
        return local_path(os.environ["MACIL_CACHE"]).absolute()
    if sys.platform != "darwin" and os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "macil"
    try:
        home = Path.home()
    except RuntimeError:  # HOME is not set, and the system does not know this user, as in some containers
        raise UsageError("this user has no home folder; set MACIL_CACHE to a folder of yours") from None
    return home.joinpath(*(("Library", "Caches") if sys.platform == "darwin" else (".cache",)), "macil")
