"""AP against the one hyperparameter that a sweep varies (Figure 3 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from macil.config import hyperparameters
from macil.io.pictures import BLACK, COLOURS, WIDTH
from tune.reporting.figures.axes import (
    SKY,
    described,
    label_log_axis,
    unique_handles,
    view,
)
from tune.reporting.figures.drawing import Drawing
from tune.reporting.figures.sweep_captions import (
    AXIS,
    as_published,
    equal_note,
    interval,
    percent,
    seeds_of,
    sweep_basis,
    swept_value,
)
from tune.reporting.statistics.sweep_rows import (
    RowResult,
    publisher,
)
from tune.results.run import RunResults

# Widths and counts, which double rather than grow.
_DOUBLING = ("hidden_dim", "feedforward_dim", "num_heads", "batch_size")


def swept_number(results: RunResults, rows: Sequence[RowResult]) -> str | None:
    """The one hyperparameter, a number, in which the rows of a sweep differ; None where they differ otherwise."""
    names = {name for row in rows for name in row.changes}
    if len(names) != 1:
        return None
    (name,) = names
    numbers = {parameter.name for parameter in hyperparameters() if parameter.type in (int, float)}
    values = [swept_value(results, row, name) for row in rows]
    known = name in numbers and None not in values
    return name if known and len(set(values)) > 1 else None


def swept_curve(results: RunResults, rows: Sequence[RowResult], name: str) -> Drawing | None:
    """The figure of a sweep over the hyperparameter `name`, a number; None before two of its values are measured."""
    best = results.protocol == "published"
    points = []
    for row in rows:
        figure, flattering = row.estimate("ap_trapezoid"), row.estimate("ap_trapezoid_best") if best else None
        value = float(swept_value(results, row, name))
        points.append(
            SweptPoint(
                value, seeds_of(row), percent(figure), interval(figure), percent(flattering), row.published
            )
        )
    described = {parameter.name: parameter for parameter in hyperparameters()}[name]
    title = f"AP against {described.symbol or name}" + (
        " (Figure 3 of the paper)" if name == "momentum" else ""
    )
    caption = (
        f"Test AP over {name}, {described.help}; mean over the finished seeds. {sweep_basis(results, rows)}"
        + (" Dashed: the best test epoch, which is chosen on the test set and flatters." if best else "")
        + f" Dotted line: the paper's {described.default:g}."
        + as_published(results, rows, "the dashed line" if best else "")
        + (" The paper gives its curve as a picture only." if name == "momentum" else "")
        + equal_note(rows)
    )
    measured = [point for point in points if point.mean is not None]
    if len(measured) < 2:
        return None
    top = max(measured, key=lambda point: point.mean or -math.inf)
    alt = (
        f"Line of test AP over {name} from {min(p.value for p in measured):g} to {max(p.value for p in measured):g}, "
        f"{len(measured)} values; the highest mean, {top.mean:.2f} %, is at {top.value:g}."
    )
    return Drawing(title, caption, alt, lambda: draw(points, name, AXIS, publisher(results)))


@dataclass(frozen=True)
class SweptPoint:
    """One value of the swept hyperparameter with its AP in percent: seeds, mean, interval, and what is beside it.

    `best` is the mean at the best test epoch, None where the protocol has none; `published` as the paper prints it.
    """

    value: float
    seeds: tuple[float, ...]
    mean: float | None
    interval: tuple[float, float] | None
    best: float | None
    published: float | None


def draw(points: Sequence[SweptPoint], name: str, label: str, publisher: str = "paper") -> Figure | None:
    """AP against hyperparameter `name`: mean with its band, single seeds, the best-test-epoch convention lighter."""
    points = sorted((point for point in points if point.mean is not None), key=lambda point: point.value)
    if len(points) < 2:
        return None
    figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
    axes = figure.subplots()
    x = [point.value for point in points]
    _scale(axes, x, name)
    (default,) = (parameter.default for parameter in hyperparameters() if parameter.name == name)
    style: Any = {"color": BLACK, "linestyle": (0, (1, 2)), "linewidth": 1}
    axes.axvline(default, label=f"paper's {default:g}", **style)
    banded = [point for point in points if point.interval]
    if banded:
        # Over neighbours only: across a value without an interval there is no band.
        bounds = np.array([point.interval or (np.nan, np.nan) for point in points])
        axes.fill_between(x, *bounds.T, color=COLOURS[0], alpha=0.15, linewidth=0, label="95 % t interval")
    if any(point.best is not None for point in points):
        style = {"color": SKY, "linestyle": (0, (4, 1.5)), "marker": "s", "markerfacecolor": "white"}
        best = [np.nan if point.best is None else point.best for point in points]
        axes.plot(x, best, markersize=4, linewidth=1.1, label="best test epoch (convention), mean", **style)
    several = any(len(point.seeds) > 1 for point in points)
    for point in points if several else ():
        where = [point.value] * len(point.seeds)
        axes.plot(where, point.seeds, "_", color=BLACK, markersize=6, label="one seed", zorder=4)
    means = [np.nan if point.mean is None else point.mean for point in points]
    ours = "last epoch, mean over seeds" if several else "last epoch (one seed)"
    if all(point.best is None for point in points):
        ours = ours.replace("last epoch", "this run")
    axes.plot(x, means, "o-", color=COLOURS[0], markersize=5, label=ours, zorder=5)
    published = "paper, in text (one seed)" if publisher == "paper" else publisher
    for point in points:
        if point.published is not None:
            style = {"markerfacecolor": "white", "markeredgecolor": COLOURS[1], "markersize": 7}
            axes.plot(point.value, point.published, "D", zorder=6, label=published, **style)
    shown = [mark for point in points for mark in (*point.seeds, point.mean, point.best, point.published)]
    marks = [mark for mark in shown if mark is not None]
    axes.set_ylim(view(marks, [point.interval for point in points]))
    axes.set_xlabel(described(name))
    axes.set_ylabel(label)
    figure.legend(*unique_handles([axes]), loc="outside lower center", ncols=3)
    return figure


def _scale(axes: Axes, values: Sequence[float], name: str) -> None:
    """Widths double; a temperature, and what spans a decade, acts by factors; all else is linear."""
    if name in _DOUBLING and min(values) > 0:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(list(values)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    elif min(values) > 0 and (name == "temperature" or max(values) >= 10 * min(values)):
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 1.1, max(values) * 1.1)
        label_log_axis(axes.xaxis)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10]))
