"""A sweep's rows: means over seeds, in the paper's order, beside what the paper prints."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from tune import wording
from tune.intervals import Estimate, estimate
from tune.marks import DotRow
from tune.results import RunResults
from tune.sections import Column, Table, varied

Trial = dict[str, Any]


@dataclass(frozen=True)
class RowResult:
    """One row: all its trials, and the estimates over those that finished, as shares; `published` is in percent."""

    name: str
    changes: dict[str, Any]
    trials: tuple[Trial, ...]
    published: float | None

    def estimate(self, column: str) -> Estimate | None:
        """Mean over the finished seeds; a seed that failed or was cut short enters no mean."""
        return estimate(trial[column] for trial in self.finished)

    @property
    def finished(self) -> list[Trial]:
        """The seeds with a whole training."""
        return [trial for trial in self.trials if trial["status"] == "finished"]


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
        )
        for name in names
    ]


def compared_column(results: RunResults) -> tuple[str, str]:
    """What stands beside the published number: the best test epoch under `published`, as the paper has it."""
    if results.protocol == "published":
        return "ap_trapezoid_best", "best test epoch"
    return "ap_trapezoid", "chosen epoch"


def sweep_table(results: RunResults) -> Table | None:
    """The sweep as the paper lays it out, ours beside the published; None for a search."""
    rows = sweep_rows(results)
    if not rows:
        return None
    seeds = _seeds(results, rows)
    rule = "last" if results.protocol == "published" else "chosen"
    names = [name for name in varied(results) if name != "seed"]
    compared, _ = compared_column(results)
    best = results.protocol == "published"
    published = any(row.published is not None for row in rows)
    columns = [
        Column("Row"),
        *[Column(name, "Hyperparameters", number=True) for name in names],
        Column("Seeds"),
        Column("Trapezoidal", f"Test AP (%), {rule} epoch", number=True),
        Column("Step-wise", f"Test AP (%), {rule} epoch", number=True),
        *([Column("Trapezoidal", "Best test epoch (convention)", number=True)] if best else []),
        *([Column("AP (%)", "Paper (one seed)", number=True)] if published else []),
        *([Column("Difference", "Paper (one seed)", number=True)] if published else []),
        Column("Used", "Parameters", number=True),
        Column("As published", "Parameters", number=True),
        Column("Time a seed", number=True),
    ]
    cells = []
    for row in rows:
        first = row.trials[0] if row.trials else {}
        mean = row.estimate(compared)
        cells.append(
            (
                row.name,
                *[wording.value(row.changes.get(name, first.get(name))) for name in names],
                _seed_text(row, seeds),
                wording.estimate_text(row.estimate("ap_trapezoid")),
                wording.estimate_text(row.estimate("ap")),
                *([wording.estimate_text(row.estimate("ap_trapezoid_best"))] if best else []),
                *(
                    [wording.NOT_MEASURED if row.published is None else f"{row.published:.2f}"]
                    if published
                    else []
                ),
                *([_difference(mean, row.published)] if published else []),
                wording.count(first.get("parameters")),
                wording.count(first.get("parameters_published")),
                _seconds(row),
            )
        )
    return Table(_caption(results, rows, rule, published=published), tuple(columns), tuple(cells))


def dot_rows(results: RunResults) -> list[DotRow]:
    """The sweep for `tune.figures.dots`, in percent, by the convention of the published numbers."""
    column, _ = compared_column(results)
    rows = []
    for row in sweep_rows(results):
        figure = row.estimate(column)
        interval = None
        if figure and figure.low is not None and figure.high is not None:
            interval = (100 * figure.low, 100 * figure.high)
        values = tuple(100 * trial[column] for trial in row.finished if trial[column] is not None)
        rows.append(DotRow(row.name, values, 100 * figure.mean if figure else None, interval, row.published))
    return rows


def _caption(results: RunResults, rows: list[RowResult], rule: str, *, published: bool) -> str:
    most = max((len(row.finished) for row in rows), default=0)
    said = (
        "one seed a row, no interval"
        if most <= 1
        else f"mean over seeds [95 % t interval], up to {most} seeds a row"
    )
    text = (
        f"Test AP in %, frame level; protocol {results.protocol}; {wording.EPOCH_RULES[rule]}; {said}. "
        "Only seeds with a whole training enter a mean."
    )
    if results.protocol == "published":
        text += " The best test epoch is chosen on the test set, as the published numbers are; it flatters."
    source = results.plan.get("source")
    if published:
        text += f" Paper: {source or 'as published'}; trapezoidal AP, best test epoch, one seed. "
        text += f"Difference: ours ({compared_column(results)[1]}) minus paper."
    return text


def _seeds(results: RunResults, rows: list[RowResult]) -> int:
    asked = results.plan.get("seeds")
    if isinstance(asked, list) and asked:
        return len(asked)
    return max((len(row.trials) for row in rows), default=0)


def _seed_text(row: RowResult, asked: int) -> str:
    text = f"{len(row.finished)}/{max(asked, len(row.trials))}"
    others = Counter(trial["status"] for trial in row.trials if trial["status"] != "finished")
    return ", ".join([text, *(f"{number} {status}" for status, number in sorted(others.items()))])


def _difference(mean: Estimate | None, published: float | None) -> str:
    if mean is None or published is None:
        return wording.NOT_MEASURED
    return wording.points(100 * mean.mean - published)


def _seconds(row: RowResult) -> str:
    spent = estimate(trial["seconds"] for trial in row.finished)
    return wording.duration(spent.mean if spent else None)


def _mapping(content: Any) -> dict[str, Any]:
    return content if isinstance(content, dict) else {}


def _number(content: Any) -> float | None:
    return float(content) if isinstance(content, int | float) and not isinstance(content, bool) else None
