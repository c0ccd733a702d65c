"""All that is used of Optuna beside its documented interface, checked against the version that is installed."""

from __future__ import annotations

import optuna
from optuna.samplers import TPESampler
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import FrozenTrial, Trial

from tune.algorithms.private_names import require_names

NAMES = (
    "optuna.storages.journal._storage.JournalOperation",
    "optuna.study.Study._storage",
    "optuna.trial.FrozenTrial._trial_id",
    "optuna.trial.Trial._trial_id",
    "optuna.samplers.TPESampler._search_space",
)
KNOWN = "5.0.0"


def check() -> None:
    """Refuse a version that lacks one of the names.

    Raises:
        MacilError: It does.
    """
    require_names("optuna", NAMES, KNOWN)


check()

# The codes of a journal's lines.
from optuna.storages.journal._storage import JournalOperation  # noqa: E402

__all__ = ["JournalOperation", "check", "open_row", "row_of", "share_search_space"]


def open_row(study: optuna.Study, row: FrozenTrial) -> Trial:
    """A row that was begun before, to be written on; Optuna hands out such a trial for a new row alone."""
    return Trial(study, row._trial_id)


def row_of(study: optuna.Study, trial: Trial) -> FrozenTrial:
    """The row of one trial; the documented way reads all rows."""
    row: FrozenTrial = study._storage.get_trial(trial._trial_id)
    return row


def share_search_space(sampler: TPESampler, space: IntersectionSearchSpace) -> None:
    """Let a new sampler go on with `space`, which has read the rows so far; it would read all of them again."""
    sampler._search_space = space
