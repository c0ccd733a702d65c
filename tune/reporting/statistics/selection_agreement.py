"""Agreement of the selection metric with the test AP, measured when nothing is chosen by it any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from macil.io.wording import plural
from tune.reporting.statistics.intervals import LEVEL, SHARE, estimate
from tune.reporting.tables.run_tables import Column, Table
from tune.reporting.text import wording
from tune.reporting.text.wording import NOT_MEASURED
from tune.results.ranking import different_trainings
from tune.results.rows import EpochRow, TrialRow, epoch_columns
from tune.results.run import RunResults

# Of four trials even a perfect agreement may be chance: it happens in 2 of their 24 orders.
FEWEST_TRIALS = 5
# Orders that the p is computed from: all of up to seven trials, else so many drawn at random.
_ORDERS = 9999

_HELDOUT = sorted(column.name for column in epoch_columns() if column.name.startswith("heldout_"))

# What each held-out figure is called; of a loss less is better, so its sign is turned.
_NAMES = {
    "selection_score": "selection score (this search selects by it)",
    "heldout_score": "held-out score",
    "heldout_ap": "held-out AP, video level",
    "heldout_loss": "− held-out loss",
}


@dataclass(frozen=True)
class Agreement:
    """Spearman's rank correlation of a held-out figure with the test AP over `n` trials.

    `distinct` is the number of different values; `rho` is None where all are equal.
    """

    name: str
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
    trials = [row for row in _measured(results) if row.status == "finished" or not finished]
    trials = different_trainings(trials)
    if len(trials) < FEWEST_TRIALS:
        return []
    chosen = _at_chosen_epochs(results)
    found = []
    for column in ("selection_score", *_HELDOUT):
        pairs = [
            (value, trial.ap_trapezoid)
            for trial in trials
            if (value := _figure(trial, chosen.get(trial.trial_id), column)) is not None
            and trial.ap_trapezoid is not None
        ]
        if len(pairs) >= FEWEST_TRIALS:
            found.append(_agreement(_NAMES.get(column, column.replace("_", " ")), pairs))
    return found


def _measured(results: RunResults) -> list[TrialRow]:
    """The trials of a held-out search whose test AP is known."""
    if results.protocol != "heldout" or results.info.sweep:
        return []
    return [
        row
        for row in results.trial_rows
        if row.kind == "search" and row.status not in ("failed", "diverged") and row.ap_trapezoid is not None
    ]


def agreement_table(results: RunResults) -> Table | None:
    """The rank correlations; None where `agreements` has none."""
    every = agreements(results)
    if not every:
        return None
    whole = {each.name: each for each in agreements(results, finished=True)}
    columns = (
        Column("Held-out figure"),
        Column("Spearman ρ", "All trials", number=True),
        Column("Trials", "All trials", number=True),
        Column("Distinct values", "All trials", number=True),
        Column("Spearman ρ", "Trained to the end", number=True),
        Column("Trials", "Trained to the end", number=True),
    )
    cells = tuple(
        (each.name, _rho(each), str(each.n), str(each.distinct), *_whole(whole.get(each.name)))
        for each in every
    )
    caption = (
        "Rank correlation of each held-out figure with the test AP (trapezoidal) over the trials of this search, both "
        "at the trial's chosen epoch; one seed each. 1: the same order, 0: none, −1: the reverse. The test labels took "
        "no part in the choice: they were opened after it, and this table changes nothing in it."
    )
    measured = _measured(results)
    repeats = len(measured) - len(different_trainings(measured))
    if repeats:
        caption += f" Each training counts once: {plural(repeats, 'trial')} repeated another's."
    return Table(caption, columns, cells)


def agreement_verdict(results: RunResults) -> str:
    """The table's result for this search, in a sentence, or why there is none; "" where nothing was measured."""
    found = agreements(results)
    measured = _measured(results)
    trials = different_trainings(measured)
    noun = "trial" if len(trials) == len(measured) else "different training"
    if trials and not found:
        have = f"{plural(len(trials), noun)} {'has' if len(trials) == 1 else 'have'}"
        return f"{have} a test AP; at least {FEWEST_TRIALS} are needed to separate an agreement from chance."
    saturated = [
        f"The {each.name.split(' (')[0]} is saturated: all {each.n} {noun}s are equal in it."
        for each in found
        if each.distinct == 1
    ]
    selecting = next((each for each in found if each.name == _NAMES["selection_score"]), None)
    if selecting is None or selecting.rho is None:
        return " ".join(saturated)
    spread = estimate((row.ap_trapezoid for row in trials), SHARE)
    deviation = (
        ""
        if spread is None or spread.deviation is None
        else f"; the test AP of the {noun}s has a standard deviation of {wording.percent(spread.deviation)} points"
    )
    p_text = "" if selecting.p is None else f" (p {selecting.p:.2g}, permutation test)"
    if selecting.p is not None and selecting.p > 1 - LEVEL:
        p_text += ", which is no evidence of an agreement"
    agreement = (
        f"The selection score orders the {plural(selecting.n, noun)} like their test AP with ρ = {_rho(selecting)}"
        f"{p_text}{deviation}."
    )
    return " ".join([agreement, *saturated])


def _at_chosen_epochs(results: RunResults) -> dict[str, EpochRow]:
    """Trial id -> the report of its chosen epoch."""
    chosen = {row.trial_id: row.chosen_epoch for row in results.trial_rows if row.kind == "search"}
    return {
        row.trial_id: row
        for row in results.epoch_rows
        if row.kind == "search" and row.epoch == chosen.get(row.trial_id)
    }


def _figure(trial: TrialRow, epoch: EpochRow | None, column: str) -> float | None:
    row = trial if column == "selection_score" else epoch
    value: float | None = getattr(row, column, None)
    if value is None:
        return None
    return -value if column.endswith("loss") else value


def _agreement(name: str, pairs: list[tuple[float, float]]) -> Agreement:
    ours, test = zip(*pairs, strict=True)
    distinct = len(set(ours))
    constant = distinct == 1 or len(set(test)) == 1
    if constant:
        return Agreement(name, len(pairs), distinct, None)
    rho = float(stats.spearmanr(ours, test).statistic)
    selecting = name == _NAMES["selection_score"]
    return Agreement(name, len(pairs), distinct, rho, _chance(ours, test) if selecting else None)


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


def _rho(each: Agreement) -> str:
    if each.rho is None:
        return "saturated: all equal" if each.distinct == 1 else NOT_MEASURED
    return f"{each.rho:.2f}".replace("-", "−")


def _whole(each: Agreement | None) -> tuple[str, str]:
    return (NOT_MEASURED, NOT_MEASURED) if each is None else (_rho(each), str(each.n))
