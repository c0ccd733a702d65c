"""Many trainings of MACIL-SD: search, the paper's sweeps, report. `python tune/search.py` is the main job.

The names below are loaded when they are first used: importing the package loads neither torch nor Ray nor Optuna.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tune.api import RunResults, Winner, load_run, run_search, run_sweep, write_report

__all__ = ["RunResults", "Winner", "load_run", "run_search", "run_sweep", "write_report"]


def __getattr__(name: str) -> Any:
    """A public name, from `tune.api` (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tune import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
