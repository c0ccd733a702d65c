"""The agreement of the selection metric with the test AP, in words."""

from __future__ import annotations

from macil.io.wording import plural
from tune.reporting.statistics.intervals import LEVEL, SHARE, estimate
from tune.reporting.statistics.selection_agreement import (
    FEWEST_TRIALS,
    SELECTED_BY,
    Agreement,
    agreements,
    measured_trials,
)
from tune.reporting.text import wording
from tune.reporting.text.wording import NOT_MEASURED
from tune.results.ranking import different_trainings
from tune.results.run import RunResults

# What each held-out figure is called; of a loss less is better, so its sign is turned.
_NAMES = {
    "selection_score": "selection score (this search selects by it)",
    "heldout_score": "held-out score",
    "heldout_ap": "held-out AP, video level",
    "heldout_loss": "− held-out loss",
}


def agreement_verdict(results: RunResults) -> str:
    """The table's result for this search, in a sentence, or why there is none; "" where nothing was measured."""
    found = agreements(results)
    measured = measured_trials(results)
    trials = different_trainings(measured)
    noun = "trial" if len(trials) == len(measured) else "different training"
    if trials and not found:
        have = f"{plural(len(trials), noun)} {'has' if len(trials) == 1 else 'have'}"
        return f"{have} a test AP; at least {FEWEST_TRIALS} are needed to separate an agreement from chance."
    saturated = [
        f"The {figure_called(each.column).split(' (')[0]} is saturated: all {each.n} {noun}s are equal in it."
        for each in found
        if each.distinct == 1
    ]
    selecting = next((each for each in found if each.column == SELECTED_BY), None)
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
        f"The selection score orders the {plural(selecting.n, noun)} like their test AP with ρ = {rho_text(selecting)}"
        f"{p_text}{deviation}."
    )
    return " ".join([agreement, *saturated])


def figure_called(column: str) -> str:
    """A held-out figure in words."""
    return _NAMES.get(column, column.replace("_", " "))


def rho_text(each: Agreement) -> str:
    """The correlation as text, or why there is none."""
    if each.rho is None:
        return "saturated: all equal" if each.distinct == 1 else NOT_MEASURED
    return f"{each.rho:.2f}".replace("-", "−")
