"""The rows of a sweep as dots with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from macil.look import BLACK, COLOURS, GREY, WIDTH, shorten
from tune.drawing.figures import SKY, list_rows, unique_handles, view


@dataclass(frozen=True)
class DotRow:
    """One row of `dots`, in percent.

    Attributes:
        name: What stands beside it.
        values: Of the single seeds.
        mean: Of the seeds; None without any.
        interval: Of the mean; None for fewer than three seeds.
        published: As published; None where it is not.
        best: Mean by the other convention, the best test epoch; None where there is none.
        begins: Whether a group of rows begins here, which a rule sets apart from the one before.
    """

    name: str
    values: tuple[float, ...]
    mean: float | None
    interval: tuple[float, float] | None
    published: float | None
    best: float | None = None
    begins: bool = False


def dots(rows: Sequence[DotRow], label: str, publisher: str = "paper") -> Figure | None:
    """A dot and an interval per row with single seeds on them; the best test epoch and the published value hollow.

    Args:
        rows: From the top.
        label: Of the axis.
        publisher: See `tune.reporting.rowresults.publisher`.
    """
    if not any(row.mean is not None for row in rows):
        return None
    figure = Figure(figsize=(WIDTH, 1.15 + 0.25 * len(rows)), layout="constrained")
    axes = figure.subplots()
    several = any(len(row.values) > 1 for row in rows)
    ours = "this run, mean over seeds" if several else "this run (one seed)"
    for place, row in enumerate(rows):
        if row.begins and place:
            axes.axhline(place - 0.5, color=GREY, linewidth=0.6)
        _draw_dot(axes, row, place, ours, "paper (one seed)" if publisher == "paper" else publisher)
    list_rows(axes, [shorten(row.name, 52) for row in rows])
    shown = [mark for row in rows for mark in (*row.values, row.mean, row.best, row.published)]
    axes.set_xlim(view([mark for mark in shown if mark is not None], [row.interval for row in rows]))
    axes.set_xlabel(label)
    figure.legend(*unique_handles([axes]), loc="outside lower center", ncols=3)
    return figure


def _draw_dot(axes: Axes, row: DotRow, place: int, ours: str, published: str) -> None:
    if row.interval:
        axes.plot(row.interval, [place, place], "-", color=COLOURS[0], linewidth=1.8, label="95 % t interval")
    if row.mean is not None:
        axes.plot(row.mean, place, "o", color=COLOURS[0], markersize=5.5, label=ours, zorder=4)
    if len(row.values) > 1:
        where = [place] * len(row.values)
        axes.plot(row.values, where, "|", color=BLACK, markersize=8, label="one seed", zorder=5)
    hollow: Any = {"markerfacecolor": "white", "zorder": 3}
    if row.best is not None:
        axes.plot(row.best, place, "s", markeredgecolor=SKY, label="best test epoch (convention)", **hollow)
    if row.published is not None:
        axes.plot(row.published, place, "D", markeredgecolor=COLOURS[1], label=published, **hollow)
