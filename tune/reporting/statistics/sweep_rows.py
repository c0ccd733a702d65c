"""The rows of a sweep as measured, and what they are compared with: the reference row, the noise, the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from macil.config import departures
from macil.evaluation.protocols import epoch_rule
from tune.planning.equal_rows import planned_equal_rows
from tune.planning.paper_sweeps import SWEEPS
from tune.planning.plan import PlannedRow
from tune.reporting.statistics.intervals import (
    FEWEST_SEEDS,
    PERCENT,
    POINTS,
    Estimate,
    around,
    bounds_of,
    estimate,
)
from tune.reporting.statistics.significance import Noise, Paired, paired_with, pooled_noise
from tune.results.rows import TrialRow
from tune.results.run import RunResults
from tune.results.run_info import planned_base
from tune.results.trainings import standing_for
from tune.storage.run_file import Scalar


@dataclass(frozen=True)
class RowResult:
    """One row: all its trials, and the estimates over those that finished, as shares; `published` is in percent.

    `source` says where the published number stands; None where the plan says it for the whole sweep, or not at all.
    `alike` are the rows that are the same training, in the sweep's order, this one among them; they have their trials
    in common, and the first of them stands for all wherever trainings are counted or compared.
    """

    name: str
    changes: Mapping[str, Scalar]
    trials: tuple[TrialRow, ...]
    published: float | None
    source: str | None = None
    alike: tuple[str, ...] = ()

    @property
    def stands(self) -> bool:
        """Whether this row is the one that stands for its training."""
        return not self.alike or self.alike[0] == self.name

    @property
    def title(self) -> str:
        """All rows of its training: `01 = 04 = 07`."""
        return " = ".join(self.alike) or self.name

    def estimate(self, column: str) -> Estimate | None:
        """Mean over the finished seeds; a seed that failed or was cut short enters no mean."""
        protocol = str(self.trials[0].protocol) if self.trials else ""
        return estimate((trial.result(column) for trial in self.finished), bounds_of(column, protocol))

    def by_seed(self, column: str) -> dict[int, float]:
        """Seed to measurement in percent, of the finished seeds that have one."""
        measured = ((trial.seed, trial.result(column)) for trial in self.finished)
        return {seed: 100 * value for seed, value in measured if seed is not None and value is not None}

    @property
    def numbers(self) -> tuple[tuple[Any, ...], ...]:
        """Seed and every AP of the finished seeds: equal for rows between which no AP tells."""
        names = ("ap_trapezoid", "ap", "ap_trapezoid_best")
        return tuple(
            sorted(
                ((trial.seed, *(trial.result(name) for name in names)) for trial in self.finished), key=repr
            )
        )

    @property
    def finished(self) -> list[TrialRow]:
        """The seeds with a whole training."""
        return [trial for trial in self.trials if trial.status == "finished"]

    @property
    def stopped(self) -> bool:
        """Whether a seed was stopped early, so that the finished ones are a choice of the better."""
        return any(trial.status == "stopped" for trial in self.trials)


def sweep_rows(results: RunResults) -> list[RowResult]:
    """The rows in the plan's order, then any others; empty for a search."""
    trials = [trial for trial in results.trial_rows if trial.kind == "search" and trial.row is not None]
    by_name = {row.name: row for row in results.plan.rows}
    alike, standing = planned_equal_rows(results.plan), standing_for(trials, results.plan)
    names = list(dict.fromkeys([*by_name, *(str(trial.row) for trial in trials)]))
    found = []
    for name in names:
        row = by_name.get(name, PlannedRow(name=name, changes={}))
        found.append(
            RowResult(
                name=name,
                changes=row.changes,
                trials=tuple(trial for trial in trials if name in standing.get(trial.trial_dir, ())),
                published=row.published_ap,
                source=row.source or None,
                alike=alike.get(name, (name,)),
            )
        )
    return found


def trained_rows(rows: Sequence[RowResult]) -> list[RowResult]:
    """The rows that are different trainings: of those that are the same one the first."""
    return [row for row in rows if row.stands]


def repeated(results: RunResults) -> int:
    """Trainings for which another one stands: an earlier version trained equal rows apart."""
    trials = [row for row in results.trial_rows if row.kind == "search" and row.row is not None]
    return len(trials) - len(standing_for(trials, results.plan))


def compared_column(results: RunResults) -> tuple[str, str]:
    """The number beside the published one: the best test epoch under `published`, as in the paper."""
    if results.protocol == "published":
        return "ap_trapezoid_best", "best test epoch"
    return "ap_trapezoid", "chosen epoch"


def headline_column(results: RunResults) -> tuple[str, str]:
    """The number by which rows are compared with each other: no choice of an epoch on the test set."""
    return "ap_trapezoid", f"{epoch_rule(results.protocol)} epoch"


def reference_name(results: RunResults) -> str | None:
    """The row that the others are compared with; None where the sweep names none."""
    return results.plan.reference or None


def reference_row(results: RunResults, rows: Sequence[RowResult]) -> RowResult | None:
    """The row that stands for the reference's training; None without one."""
    reference = reference_name(results)
    return next((row for row in trained_rows(rows) if reference in (row.name, *row.alike)), None)


def reference_title(results: RunResults) -> str:
    """The reference row in words."""
    return f"row {reference_name(results)}" + (" (the paper's setting)" if is_papers(results) else "")


def is_papers(results: RunResults) -> bool:
    """Whether the reference row is the paper's setting: whether every hyperparameter is the paper's."""
    row = next((row for row in sweep_rows(results) if row.name == reference_name(results)), None)
    if row is None:
        return False
    planned = {**planned_base(results.plan), **row.changes}
    return not departures(row.trials[0].config if row.trials else planned)


def publisher(results: RunResults) -> str:
    """Whose the published numbers are: the paper's in its own sweeps; a sweep file may have them from anywhere."""
    return "paper" if results.plan.sweep in SWEEPS else "published"


def measured_noise(rows: Sequence[RowResult], column: str) -> Noise | None:
    """Noise between seeds in points of AP; None where no row has two finished seeds.

    A row with a stopped seed is left out: those that were let finish are alike. So is a row with the very numbers of
    another: a hyperparameter that had no effect brings no new evidence.
    """
    measured = {row.numbers: row.by_seed(column) for row in trained_rows(rows) if not row.stopped}
    return pooled_noise(list(seeds.values()) for seeds in measured.values())


def against_reference(results: RunResults, rows: Sequence[RowResult], column: str) -> dict[str, Paired]:
    """Each other training minus the reference's on the same seeds, in points of AP, by the row that stands for it.

    Empty where there is nothing to pair.
    """
    reference = reference_row(results, rows)
    if reference is None:
        return {}
    return paired_with({row.name: row.by_seed(column) for row in trained_rows(rows)}, reference.name, PERCENT)


def published_difference(row: RowResult, column: str, noise: Noise | None) -> Estimate | None:
    """Our mean minus the published number, in points; None without either.

    Its interval takes the noise between seeds to be the same there as here, and the published number for one training;
    as the mean itself, it needs `FEWEST_SEEDS`.
    """
    mean = row.estimate(column)
    if mean is None or row.published is None:
        return None
    difference = 100 * mean.mean - row.published
    if noise is None or mean.n < FEWEST_SEEDS:
        return Estimate(
            mean.n, difference, values=tuple(100 * value - row.published for value in mean.values)
        )
    return around(mean.n, difference, None, noise.margin(mean.n), POINTS)


def published_source(results: RunResults, rows: Sequence[RowResult]) -> str:
    """Where the published numbers stand: the one or two places they have, else what the sweep says of all."""
    own = list(dict.fromkeys(row.source for row in rows if row.source and row.published is not None))
    whole = results.plan.source or None
    return "; ".join(own) if own and (len(own) <= 2 or whole is None) else whole or "as published"


def seeds_asked(results: RunResults, rows: Sequence[RowResult]) -> int:
    """Seeds that each row was to have: as planned, else the most that any row has."""
    return len(results.plan.seeds) or max((len(row.trials) for row in rows), default=0)
