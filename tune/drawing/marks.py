"""Figures with one mark per trial or per row of a sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from macil.config import hyperparameters
from macil.look import BLACK, COLOURS, GREY, WIDTH
from tune.drawing.figures import SKY, Trial, label_log_axis, mark_size, shorten, unique_handles, view


def hyperparameter_scores(
    trials: Sequence[Trial], names: Sequence[str], logarithmic: frozenset[str]
) -> Figure | None:
    """Selection score against each hyperparameter in `names`, one panel each; trials that ended early are hollow.

    Failed and diverged trials are left out, as they are of the leaderboard.
    """
    out = ("failed", "diverged")
    scored = [t for t in trials if t["selection_score"] is not None and t["status"] not in out]
    names = [name for name in names if len({trial[name] for trial in scored if trial[name] is not None}) > 1]
    if not names:
        return None
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(WIDTH, 0.45 + 2.0 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    best = max(scored, key=lambda trial: trial["selection_score"])
    for axes, name in zip(grid.flat, names, strict=False):
        _draw_scatter(axes, scored, best, name, log=name in logarithmic)
    for axes in list(grid.flat)[len(names) :]:
        axes.set_axis_off()
    for row in grid:
        row[0].set_ylabel("selection score")
    figure.legend(*unique_handles(grid.flat), loc="outside lower center", ncols=4)
    return figure


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
    axes.set_yticks(range(len(rows)), [shorten(row.name, 52) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    shown = [mark for row in rows for mark in (*row.values, row.mean, row.best, row.published)]
    axes.set_xlim(view([mark for mark in shown if mark is not None], [row.interval for row in rows]))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
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


def _draw_scatter(axes: Axes, scored: Sequence[Trial], best: Trial, name: str, *, log: bool) -> None:
    described = {parameter.name: parameter for parameter in hyperparameters()}[name]
    present = [trial for trial in scored if trial[name] is not None]
    named = described.type is str or described.type is bool
    groups = [
        ("trained to the end", [t for t in present if t["status"] == "finished"], COLOURS[0], COLOURS[0]),
        ("not trained to the end", [t for t in present if t["status"] != "finished"], "white", COLOURS[0]),
        ("best", [t for t in present if t is best], "none", COLOURS[1]),
    ]
    for label, trials, face, edge in groups:
        if not trials:
            continue
        x = [str(t[name]) if named else t[name] for t in trials]
        size = 80 if label == "best" else mark_size(len(scored))
        axes.scatter(
            x,
            [t["selection_score"] for t in trials],
            size,
            face,
            edgecolors=edge,
            linewidths=1.2,
            label=label,
        )
    if log and not named and min(trial[name] for trial in present) > 0:
        axes.set_xscale("log")
        label_log_axis(axes.xaxis)
    elif described.type is int and len({trial[name] for trial in present}) <= 5:
        axes.set_xticks(sorted({trial[name] for trial in present}))
    axes.set_xlabel(f"{name} ({described.symbol})" if described.symbol else name)
