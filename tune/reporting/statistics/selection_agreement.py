"""Agreement of the selection metric with the test AP, measured when nothing is chosen by it any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from tune.results.ranking import different_trainings
from tune.results.rows import EpochRow, TrialRow, epoch_columns
from tune.results.run import RunResults

# Of four trials even a perfect agreement may be chance: it happens in 2 of their 24 orders.
FEWEST_TRIALS = 5
# The figure that a search selects by.
SELECTED_BY = "selection_score"
# Orders that the p is computed from: all of up to seven trials, else so many drawn at random.
_ORDERS = 9999

_HELDOUT = sorted(column.name for column in epoch_columns() if column.name.startswith("heldout_"))


@dataclass(frozen=True)
class Agreement:
    """Spearman's rank correlation of a held-out figure, a column, with the test AP over `n` trials.

    `distinct` is the number of different values; `rho` is None where all are equal.
    """

    column: str
    n: int
    distinct: int
    rho: float | None
    p: float | None = None
    """The p of the selection score: how often trials in any order agree as much, two-sided (permutation test)"""


def agreements(results: RunResults, *, finished: bool = False) -> list[Agreement]:
    """Each held-out figure at the trials' chosen epochs against their test AP (trapezoidal) at the same epochs.

    Empty unless the run is a held-out search whose test labels are opened, with at least five trials.

    Args:
        results: The run.
        finished: Only trials that were trained to the end.
    """
    trials = [row for row in measured_trials(results) if row.status == "finished" or not finished]
    trials = different_trainings(trials)
    if len(trials) < FEWEST_TRIALS:
        return []
    chosen = _at_chosen_epochs(results)
    found = []
    for column in (SELECTED_BY, *_HELDOUT):
        pairs = [
            (value, trial.ap_trapezoid)
            for trial in trials
            if (value := _figure(trial, chosen.get(trial.trial_id), column)) is not None
            and trial.ap_trapezoid is not None
        ]
        if len(pairs) >= FEWEST_TRIALS:
            found.append(_agreement(column, pairs))
    return found


def measured_trials(results: RunResults) -> list[TrialRow]:
    """The trials of a held-out search whose test AP is known."""
    if results.protocol != "heldout" or results.info.sweep:
        return []
    return [
        row
        for row in results.trial_rows
        if row.kind == "search" and row.status not in ("failed", "diverged") and row.ap_trapezoid is not None
    ]


def _at_chosen_epochs(results: RunResults) -> dict[str, EpochRow]:
    """Trial id -> the report of its chosen epoch."""
    chosen = {row.trial_id: row.chosen_epoch for row in results.trial_rows if row.kind == "search"}
    return {
        row.trial_id: row
        for row in results.epoch_rows
        if row.kind == "search" and row.epoch == chosen.get(row.trial_id)
    }


def _figure(trial: TrialRow, epoch: EpochRow | None, column: str) -> float | None:
    row = trial if column == SELECTED_BY else epoch
    value: float | None = getattr(row, column, None)
    if value is None:
        return None
    return -value if column.endswith("loss") else value


def _agreement(column: str, pairs: list[tuple[float, float]]) -> Agreement:
    ours, test = zip(*pairs, strict=True)
    distinct = len(set(ours))
    constant = distinct == 1 or len(set(test)) == 1
    if constant:
        return Agreement(column, len(pairs), distinct, None)
    rho = float(stats.spearmanr(ours, test).statistic)
    return Agreement(
        column, len(pairs), distinct, rho, _chance(ours, test) if column == SELECTED_BY else None
    )


def _chance(ours: Sequence[float], test: Sequence[float]) -> float:
    """Two-sided p of Spearman's rho under permutation, exact up to seven trials."""
    # Rho is an increasing function of the product of the centred ranks, which is all that an order changes.
    first, second = (stats.rankdata(values) - (len(values) + 1) / 2 for values in (ours, test))
    found = stats.permutation_test(
        (first,),
        lambda x, axis: (x * second).sum(axis),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=_ORDERS,
        batch=1000,  # rows of that many trials in memory at once
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)
