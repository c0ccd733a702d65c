"""Texts that all figures of a sweep share, and the numbers of a row in percent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tune.reporting.figures.captions import basis
from tune.reporting.statistics.intervals import Estimate
from tune.reporting.statistics.sweep_rows import (
    RowResult,
    publisher,
    trained_rows,
)
from tune.reporting.text import wording
from tune.results.run import RunResults
from tune.results.run_info import planned_base

AXIS = "test AP (%), trapezoidal"


def sweep_basis(results: RunResults, rows: Sequence[RowResult]) -> str:
    """`captions.basis` of means over the finished seeds of each row."""
    most = max((len(row.finished) for row in rows), default=0)
    seeds = wording.seeds(most) if most < 2 else f"up to {wording.seeds(most)}"
    text = basis(results, seeds, definition="ap_trapezoid")
    if any(figure and figure.cut for figure in (row.estimate("ap_trapezoid") for row in rows)):
        text += " Intervals end where no AP lies beyond, at 0 or 100 %."
    if any(row.stopped for row in rows):
        text += " Some seeds were stopped early: the means are of those that were let finish, which flatters."
    return text


def equal_note(rows: Sequence[RowResult]) -> str:
    """Which rows are the same training."""
    groups = [row.title for row in trained_rows(rows) if len(row.alike) > 1]
    return f" The same training, shown in each of its rows: {'; '.join(groups)}." if groups else ""


def as_published(results: RunResults, rows: Sequence[RowResult], beside: str) -> str:
    """A sentence about the diamonds; `beside` names the numbers to compare them with, "" for none."""
    if all(row.published is None for row in rows):
        return ""
    whose = (
        "printed in the paper (best test epoch, one seed)" if publisher(results) == "paper" else "published"
    )
    return f" Diamonds: as {whose}{f', to be compared with {beside}' if beside else ''}."


def swept_value(results: RunResults, row: RowResult, name: str) -> Any:
    """The value that the row sets, else that of its trials, else the run's."""
    default = planned_base(results.plan).get(name)
    trained = next((trial.config[name] for trial in row.trials if name in trial.config), default)
    return row.changes.get(name, trained)


def seeds_of(row: RowResult) -> tuple[float, ...]:
    """The AP of each finished seed, in percent."""
    return tuple(100 * trial.ap_trapezoid for trial in row.finished if trial.ap_trapezoid is not None)


def percent(figure: Estimate | None) -> float | None:
    """The mean in percent."""
    return 100 * figure.mean if figure else None


def interval(figure: Estimate | None) -> tuple[float, float] | None:
    """The interval of the mean in percent; None without one."""
    if figure is None or figure.low is None or figure.high is None:
        return None
    return 100 * figure.low, 100 * figure.high
