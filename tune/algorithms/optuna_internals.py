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
# Looked up when a Gaussian process is asked for: importing it warns of a package that it would like.
GP_NAMES = ("optuna._gp.batched_lbfgsb._greenlet_imports",)
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

__all__ = ["JournalOperation", "check", "open_row", "optimise_one_by_one", "row_of", "share_search_space"]


def open_row(study: optuna.Study, row: FrozenTrial) -> Trial:
    """A row that was begun before, to be written on; Optuna hands out such a trial for a new row alone."""
    return Trial(study, row._trial_id)


def row_of(study: optuna.Study, trial: Trial) -> FrozenTrial:
    """The row of one trial; the documented way reads all rows."""
    row: FrozenTrial = study._storage.get_trial(trial._trial_id)
    return row


class _Absent:
    """A package that is not there, as Optuna asks for one."""

    def is_successful(self) -> bool:
        return False


def optimise_one_by_one() -> None:
    """Let a Gaussian process optimise from one start after the other.

    Where the package greenlet is installed, whoever installed it, Optuna does so for all starts at once, and comes to
    other suggestions.

    Raises:
        MacilError: Optuna lacks the name.
    """
    require_names("optuna", GP_NAMES, KNOWN)
    from optuna._gp import batched_lbfgsb

    batched_lbfgsb._greenlet_imports = _Absent()  # type: ignore[assignment]


def share_search_space(sampler: TPESampler, space: IntersectionSearchSpace) -> None:
    """Let a new sampler go on with `space`, which has read the rows so far; it would read all of them again."""
    sampler._search_space = space
