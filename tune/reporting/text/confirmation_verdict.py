"""The result of a confirmation, in sentences: how much the search flattered, and which configuration holds."""

from __future__ import annotations

from collections.abc import Sequence

from tune.reporting.statistics.confirmation import Confirmed, confirmed_rows, leads, tied_with
from tune.reporting.text import wording
from tune.results.run import RunResults


def confirmation_verdicts(results: RunResults) -> list[str]:
    """The result of the confirmation, in sentences; empty before a configuration has a finished training."""
    rows = confirmed_rows(results)
    if not any(row.estimate("selection_score") for row in rows):
        return []
    first = max(rows, key=_searched_score)
    return [*_regression(first), *_decision(results, first)]


def _searched_score(row: Confirmed) -> float:
    """The configuration's score in the search; minus infinity where that is not known."""
    score = row.searched.selection_score if row.searched else None
    return float("-inf") if score is None else float(score)


def _regression(first: Confirmed) -> list[str]:
    """Sentences that compare the best searched score with its mean on fresh seeds."""
    if first.regression is None or first.searched is None:
        return []
    score = wording.decimal(first.searched.selection_score)
    fresh = wording.score_text(first.estimate("selection_score"))
    message = (
        f"The best searched score, {score} (trial {first.name}, one seed), came to {fresh} on fresh seeds: "
    )
    if first.regression < 0:
        amount = wording.decimal(-first.regression)
        return [f"{message}{amount} less. The best of many trials is partly luck: this is how much."]
    if first.regression == 0:
        return [f"{message}the same. The search did not flatter it."]
    return [f"{message}{wording.decimal(first.regression)} more. The search did not flatter it."]


def _decision(results: RunResults, first: Confirmed) -> list[str]:
    """Which configuration is the best on fresh seeds, and whether by more than their noise."""
    found = leads(results)
    if not found:
        return []
    best, (second, lead), tied = confirmed_rows(results)[0], found[0], tied_with(results)
    text = f"Trial {best.name} has the best mean score on fresh seeds" + (
        ", as it had the best score in the search" if best.name == first.name else ""
    )
    text += "" if best.name == first.name else f"; in the search trial {first.name} had the best score"
    difference = wording.score_difference_text(lead.difference)
    text += (
        f". It leads trial {second.name} by {difference} (paired over {wording.seeds(lead.difference.n)}): "
    )
    if lead.difference.low is None:
        text += "whether by more than the noise between seeds is not known"
    else:
        text += "more than the noise between seeds" if lead.differs else "no evidence of a difference"
    if not tied:
        return [f"{text}."]
    others = [name for name in tied if name != second.name]
    if others and lead.difference.low is not None:
        text += (
            f"{', nor' if second.name in tied else '; no evidence of a difference'} to {trials_text(others)}"
        )
    mean = "the larger mean" if len(tied) == 1 else "the largest mean"
    return [f"{text}. A tie with {trials_text(tied)}: the winner is that of {mean}."]


def trials_text(names: Sequence[str]) -> str:
    """The trials as text: "trials 00002, 00005 and 00000"."""
    *others, last = names
    return f"trials {', '.join(others)} and {last}" if others else f"trial {last}"
