"""Files in a run's root about accesses to test labels and what they gave: they stay when `report/` is deleted.

An earlier version kept them in `report/`; there they are found too, and moved at the next report.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tune.storage.names import REPORT_FOLDER


def older_file(run: Path, name: str) -> Path:
    """Where an earlier version kept the file."""
    return run / REPORT_FOLDER / name


def kept_file(run: Path, name: str) -> Path:
    """Where the file is; its path in the root when it is nowhere."""
    older = older_file(run, name)
    return older if not (run / name).exists() and older.exists() else run / name


def move_to_root(run: Path, name: str) -> None:
    """Move what an earlier version kept into the root, unless there is one already; what cannot be moved stays."""
    if not (run / name).exists():
        with contextlib.suppress(OSError):
            os.replace(older_file(run, name), run / name)
