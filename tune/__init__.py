"""Many trainings of MACIL-SD: search, the paper's sweeps, report. `python tune/search.py` is the main job.

The names below are loaded when they are first used: importing the package loads neither torch nor Ray nor Optuna.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from macil.io.lazy import attach

if TYPE_CHECKING:
    from tune.api import RunResults, Winner, load_run, run_search, run_sweep, write_report
else:
    __getattr__, __dir__ = attach(
        __name__,
        {"tune.api": ("RunResults", "Winner", "load_run", "run_search", "run_sweep", "write_report")},
    )

__all__ = ["RunResults", "Winner", "load_run", "run_search", "run_sweep", "write_report"]
