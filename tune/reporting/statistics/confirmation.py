"""The search's best configurations on fresh seeds: which one holds, and how much the search flattered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from macil.evaluation.protocols import epoch_rule
from tune.reporting.statistics.intervals import (
    MARGIN,
    PERCENT,
    POINTS,
    SHARE,
    Bounds,
    Estimate,
    bounds_of,
    estimate,
)
from tune.reporting.statistics.reference import reference_called, reference_in_full
from tune.reporting.statistics.significance import FEWEST_PAIRS, Paired, least_p, paired, paired_with
from tune.reporting.tables.run_tables import Column, Table
from tune.reporting.text import wording
from tune.reporting.text.wording import NOT_MEASURED
from tune.results.ranking import (
    confirmed_order,
    finished_trainings,
    fresh_scores,
    fresh_trainings,
    winner_of,
)
from tune.results.rows import TrialRow
from tune.results.run import RunResults, planned_confirmation


@dataclass(frozen=True)
class Confirmed:
    """One configuration: the searched trial, and its trainings on fresh seeds, as many as were `asked` for."""

    name: str
    searched: TrialRow | None
    trainings: tuple[TrialRow, ...]
    asked: int
    reference: bool
    winner: bool

    @property
    def notes(self) -> list[str]:
        """The notes that stand beside the configuration's name."""
        called = reference_called(self.searched) if self.searched else "reference"
        return [text for text, holds in (("winner", self.winner), (called, self.reference)) if holds]

    @property
    def finished(self) -> list[TrialRow]:
        """The seeds with a whole training."""
        return finished_trainings(self.trainings)

    def by_seed(self, column: str) -> dict[int, float]:
        """Seed to measurement, of the finished trainings that have one."""
        measured = ((trial.seed, trial.result(column)) for trial in self.finished)
        return {seed: value for seed, value in measured if seed is not None and value is not None}

    def estimate(self, column: str) -> Estimate | None:
        """Mean over the fresh seeds; a seed that failed enters no mean."""
        return estimate(self.by_seed(column).values(), self.bounds(column))

    def bounds(self, column: str) -> Bounds:
        """The interval of a column of the configuration's trainings."""
        return bounds_of(column, str(self.trainings[0].protocol) if self.trainings else "")

    @property
    def regression(self) -> float | None:
        """Mean selection score on fresh seeds, minus the searched one: below zero where the search flattered."""
        mean = self.estimate("selection_score")
        if mean is None or self.searched is None or self.searched.selection_score is None:
            return None
        return float(mean.mean - self.searched.selection_score)


def confirmed_rows(results: RunResults) -> list[Confirmed]:
    """The configurations in the order in which they win (`confirmed_order`); empty without a confirmation."""
    rows = results.trial_rows
    trainings = [row for row in rows if row.kind == "confirm"]
    planned = planned_confirmation(results.info)
    names = list(dict.fromkeys([*(name for name, _ in planned), *(str(row.row) for row in trainings)]))
    searched = {row.name: row for row in rows if row.kind == "search"}
    confirm, named = results.info.confirm, winner_of(results.info)
    reference = confirm.reference if confirm else None
    seeds = len({seed for _, seed in planned})
    found = []
    for name in names:
        own = fresh_trainings(trainings, name)
        found.append(
            Confirmed(
                name, searched.get(name), tuple(own), max(seeds, len(own)), name == reference, name == named
            )
        )
    return sorted(found, key=lambda row: confirmed_order(fresh_scores(row.trainings)))


def against_reference(results: RunResults, name: str, column: str) -> Paired | None:
    """Configuration `name` minus the reference on the same fresh seeds; None when that cannot be had."""
    rows = {row.name: row for row in confirmed_rows(results)}
    reference = next((row for row in rows.values() if row.reference), None)
    if reference is None or name not in rows or name == reference.name:
        return None
    return paired(rows[name].by_seed(column), reference.by_seed(column), reference.bounds(column))


def leads(results: RunResults) -> list[tuple[Confirmed, Paired]]:
    """By how much the first configuration leads each other in selection score on the same fresh seeds, nearest first.

    Those with fewer finished seeds are left out: they stand behind, whatever their mean is.
    """
    rows = [row for row in confirmed_rows(results) if row.estimate("selection_score")]
    found = []
    for row in rows[1:]:
        first, other = (each.by_seed("selection_score") for each in (rows[0], row))
        lead = paired(first, other, row.bounds("selection_score"))
        if lead is not None and len(row.finished) == len(rows[0].finished):
            found.append((row, lead))
    return found


def tied_with(results: RunResults) -> list[str]:
    """The configurations that the first leads by less than the interval of the difference, or without one."""
    return [row.name for row, lead in leads(results) if not lead.differs]


def trials_text(names: Sequence[str]) -> str:
    """The trials as text: "trials 00002, 00005 and 00000"."""
    *others, last = names
    return f"trials {', '.join(others)} and {last}" if others else f"trial {last}"


def confirmation_table(results: RunResults) -> Table | None:
    """Searched score, score and test AP on fresh seeds, difference to the reference; None without any."""
    rows = confirmed_rows(results)
    if not rows:
        return None
    reference = next((row.name for row in rows if row.reference), None)
    differences = (
        {}
        if reference is None
        else paired_with({row.name: row.by_seed("ap_trapezoid") for row in rows}, reference, SHARE)
    )
    with_p = any(item.p is not None for item in differences.values())
    score, ap = "Selection score", f"Test AP (%), {epoch_rule(results.protocol)} epoch"
    named = next((row for row in rows if row.reference and row.searched), None)
    minus = f"Test AP minus {reference_called(named.searched) if named and named.searched else 'reference'}"
    columns = [
        Column("Configuration"),
        Column("Seeds"),
        Column("Searched", score, number=True),
        Column("Confirmed", score, number=True),
        Column("Regression", score, number=True),
        Column("Trapezoidal", ap, number=True),
        Column("Step-wise", ap, number=True),
        *([Column("Points", minus, number=True)] if reference else []),
        *([Column("p (Holm)", minus, number=True)] if with_p else []),
    ]
    cells = tuple(
        (
            _label(row),
            _seeds(row),
            wording.decimal(row.searched.selection_score if row.searched else None),
            wording.score_text(row.estimate("selection_score")),
            wording.signed(row.regression),
            wording.estimate_text(row.estimate("ap_trapezoid")),
            wording.estimate_text(row.estimate("ap")),
            *([_difference(differences.get(row.name), reference=row.reference)] if reference else []),
            *([_p(differences.get(row.name))] if with_p else []),
        )
        for row in rows
    )
    marked = frozenset(index for index, row in enumerate(rows) if row.winner)
    notes = [
        *(note for column, ends in _SHOWN.items() for note in _notes(rows, column, ends)),
        *wording.interval_notes((item.difference for item in differences.values()), POINTS),
    ]
    caption = " ".join(dict.fromkeys([_caption(results, rows, reference), *notes]))
    return Table(caption, tuple(columns), cells, marked)


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


# Columns that the table has an estimate of, and what they lie between as they stand there.
_SHOWN = {"selection_score": MARGIN, "ap_trapezoid": PERCENT, "ap": PERCENT}


def _notes(rows: Sequence[Confirmed], column: str, ends: Bounds) -> list[str]:
    return wording.interval_notes((row.estimate(column) for row in rows), ends)


def _label(row: Confirmed) -> str:
    return f"trial {row.name}" + (f" ({', '.join(row.notes)})" if row.notes else "")


def _seeds(row: Confirmed) -> str:
    states = [trial.status for trial in row.trainings if trial.status != "finished"]
    others = [f"{states.count(state)} {state}" for state in sorted(set(states))]
    return ", ".join([f"{len(row.finished)}/{row.asked}", *others])


def _difference(item: Paired | None, *, reference: bool) -> str:
    if reference:
        return "reference"
    return wording.points_text(item.difference if item else None)


def _p(item: Paired | None) -> str:
    if item is None or item.p is None:
        return NOT_MEASURED
    adjusted = "" if item.adjusted is None else f" ({item.adjusted:.3f})"
    return f"{item.p:.3f}{adjusted}"


def _caption(results: RunResults, rows: Sequence[Confirmed], reference: str | None) -> str:
    seeds = sorted({trial.seed for row in rows for trial in row.trainings if trial.seed is not None})
    which = (
        f" (seeds {seeds[0]} to {seeds[-1]})" if len(seeds) > 1 else f" (seed {seeds[0]})" if seeds else ""
    )
    most = max((len(row.finished) for row in rows), default=0)
    rule = epoch_rule(results.protocol)
    videos = wording.TRAINED_ON.get(results.protocol, "not known which")
    text = (
        f"The search's best different configurations, each trained again on fresh seeds{which} that no trial of the "
        f"search had, on the videos that it had ({videos}). Means over the finished seeds; the best mean selection "
        "score wins. Searched: one seed, the score it was picked by. Regression: confirmed minus searched. "
        f"{wording.ap_basis(results.protocol, rule, most)}"
    )
    if reference is not None:
        of = next((row.searched for row in rows if row.reference and row.searched), None)
        title = reference_in_full(of) if of else f"trial {reference}"
        text += f" Difference to {title}: paired, in points of trapezoidal AP on the same seeds."
        pairs = max((len(row.by_seed("ap_trapezoid")) for row in rows), default=0)
        text += (
            f" p: two-sided, the differences with their signs flipped; {pairs} seeds give {least_p(pairs):.3g} or more."
            if pairs >= FEWEST_PAIRS
            else ""
        )
    return text
