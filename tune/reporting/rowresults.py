"""The rows of a sweep as measured, and what they are compared with: the reference row, the noise, the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tune import space
from tune.reporting.comparison import Noise, Paired, paired_with, pooled_noise
from tune.reporting.intervals import Estimate, estimate
from tune.results import RunResults

Trial = dict[str, Any]


@dataclass(frozen=True)
class RowResult:
    """One row: all its trials, and the estimates over those that finished, as shares; `published` is in percent.

    `source` says where the published number stands; None where the plan says it for the whole sweep, or not at all.
    """

    name: str
    changes: dict[str, Any]
    trials: tuple[Trial, ...]
    published: float | None
    source: str | None = None

    def estimate(self, column: str) -> Estimate | None:
        """Mean over the finished seeds; a seed that failed or was cut short enters no mean."""
        return estimate(trial[column] for trial in self.finished)

    def by_seed(self, column: str) -> dict[int, float]:
        """Seed to measurement in percent, of the finished seeds that have one."""
        return {
            trial["seed"]: 100 * trial[column]
            for trial in self.finished
            if trial["seed"] is not None and trial[column] is not None
        }

    @property
    def finished(self) -> list[Trial]:
        """The seeds with a whole training."""
        return [trial for trial in self.trials if trial["status"] == "finished"]

    @property
    def stopped(self) -> bool:
        """Whether a seed was stopped early, so that the finished ones are a choice of the better."""
        return any(trial["status"] == "stopped" for trial in self.trials)


def sweep_rows(results: RunResults) -> list[RowResult]:
    """The rows in the plan's order, then any others; empty for a search."""
    trials = [
        trial
        for trial in results.trials.to_pylist()
        if trial["kind"] == "search" and trial["row"] is not None
    ]
    planned = results.plan.get("rows")
    planned = [row for row in planned if isinstance(row, dict)] if isinstance(planned, list) else []
    if not (trials or planned):
        return []
    by_name: dict[str, dict[str, Any]] = {str(row.get("name")): row for row in planned}
    names = list(dict.fromkeys([*by_name, *(str(trial["row"]) for trial in trials)]))
    return [
        RowResult(
            name=name,
            changes=_mapping(by_name.get(name, {}).get("changes")),
            trials=tuple(trial for trial in trials if trial["row"] == name),
            published=_number(
                by_name.get(name, {}).get("published_ap", by_name.get(name, {}).get("published"))
            ),
            source=_text(by_name.get(name, {}).get("source")),
        )
        for name in names
    ]


def compared_column(results: RunResults) -> tuple[str, str]:
    """What stands beside the published number: the best test epoch under `published`, as the paper has it."""
    if results.protocol == "published":
        return "ap_trapezoid_best", "best test epoch"
    return "ap_trapezoid", "chosen epoch"


def headline_column(results: RunResults) -> tuple[str, str]:
    """What rows are compared by among themselves: no choice of an epoch on the test set."""
    return "ap_trapezoid", "last epoch" if results.protocol == "published" else "chosen epoch"


def reference_name(results: RunResults) -> str | None:
    """The row that the others are compared with; None where the sweep names none."""
    return _text(results.plan.get("reference"))


def reference_title(results: RunResults) -> str:
    """The reference row in words."""
    name = reference_name(results)
    row = next((row for row in sweep_rows(results) if row.name == name), None)
    paper = "paper" in called(results, row) if row else False
    return f"row {name} (the paper's setting)" if paper else f"row {name}"


def called(results: RunResults, row: RowResult) -> str:
    """The reference row by what it is: the paper's setting only where every hyperparameter is the paper's."""
    planned = {**_mapping(results.plan.get("base")), **row.changes}
    return space.reference_title(row.trials[0] if row.trials else planned)


def measured_noise(rows: Sequence[RowResult], column: str) -> Noise | None:
    """Noise between seeds in points of AP; None where no row has two finished seeds.

    A row with a stopped seed is left out: those that were let finish are alike. So is a row with the very numbers of
    another: a hyperparameter that had no effect (a larger Λ in a short run) brings no new evidence.
    """
    measured = [tuple(sorted(row.by_seed(column).items())) for row in rows if not row.stopped]
    return pooled_noise([ap for _, ap in seeds] for seeds in dict.fromkeys(measured))


def against_reference(results: RunResults, rows: Sequence[RowResult], column: str) -> dict[str, Paired]:
    """Each other row minus the reference on the same seeds, in points of AP; empty where there is nothing to pair."""
    reference = reference_name(results)
    return (
        {} if reference is None else paired_with({row.name: row.by_seed(column) for row in rows}, reference)
    )


def published_difference(row: RowResult, column: str, noise: Noise | None) -> Estimate | None:
    """Our mean minus the published number, in points; None without either.

    Its interval takes the noise between seeds to be the same there as here, and the published number for one training.
    """
    mean = row.estimate(column)
    if mean is None or row.published is None:
        return None
    difference = 100 * mean.mean - row.published
    if noise is None:
        return Estimate(mean.n, difference)
    margin = noise.margin(mean.n)
    return Estimate(mean.n, difference, None, difference - margin, difference + margin)


def published_source(results: RunResults, rows: Sequence[RowResult]) -> str:
    """Where the published numbers stand: the one or two places they have, else what the sweep says of all."""
    own = list(dict.fromkeys(row.source for row in rows if row.source and row.published is not None))
    whole = _text(results.plan.get("source"))
    return "; ".join(own) if own and (len(own) <= 2 or whole is None) else whole or "as published"


def seeds_asked(results: RunResults, rows: Sequence[RowResult]) -> int:
    """Seeds that each row was to have: as planned, else the most that any row has."""
    planned = results.plan.get("seeds")
    if isinstance(planned, list) and planned:
        return len(planned)
    return max((len(row.trials) for row in rows), default=0)


def _mapping(content: Any) -> dict[str, Any]:
    return content if isinstance(content, dict) else {}


def _number(content: Any) -> float | None:
    return float(content) if isinstance(content, int | float) and not isinstance(content, bool) else None


def _text(content: Any) -> str | None:
    return content if isinstance(content, str) and content else None
