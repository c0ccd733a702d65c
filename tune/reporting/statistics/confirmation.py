"""The search's best configurations on fresh seeds: which one holds, and how much the search flattered."""

from __future__ import annotations

from dataclasses import dataclass

from tune.reporting.statistics.intervals import Bounds, Estimate, bounds_of, estimate
from tune.reporting.statistics.significance import Paired, paired
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
