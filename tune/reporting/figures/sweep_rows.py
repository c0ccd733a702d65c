"""The rows of a sweep as dots with intervals, beside what was published."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from macil.config import Hyperparameter, hyperparameters
from macil.io.pictures import BLACK, COLOURS, GREY, WIDTH, shorten
from tune.reporting.figures.axes import (
    SKY,
    list_rows,
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
)
from tune.reporting.statistics.sweep_rows import (
    RowResult,
    is_papers,
    publisher,
    reference_name,
)
from tune.reporting.text import wording
from tune.results.run import RunResults


def row_dots(results: RunResults, rows: Sequence[RowResult]) -> Drawing:
    """The figure of a sweep whose rows differ in more than one number."""
    labels, best = row_labels(rows), results.protocol == "published"
    reference = reference_name(results)
    mark = "paper's" if is_papers(results) else "reference"
    drawn = []
    for row, label, before in zip(rows, labels, ["", *labels], strict=False):
        figure, flattering = row.estimate("ap_trapezoid"), row.estimate("ap_trapezoid_best") if best else None
        drawn.append(
            DotRow(
                name=f"{_as(row)}{label}" + (f" ({mark})" if row.name == reference else ""),
                values=seeds_of(row),
                mean=percent(figure),
                interval=interval(figure),
                published=row.published,
                best=percent(flattering),
                begins="," in label and label.rsplit(",", 1)[0] != before.rsplit(",", 1)[0],
            )
        )
    caption = (
        f"Test AP of each row, mean over the finished seeds. {sweep_basis(results, rows)}"
        + (" Squares: the best test epoch, which is chosen on the test set and flatters." if best else "")
        + as_published(results, rows, "the squares" if best else "")
        + equal_note(rows)
    )
    return Drawing("Rows of the sweep", caption, _alt(drawn), lambda: draw(drawn, AXIS, publisher(results)))


def row_labels(rows: Sequence[RowResult]) -> list[str]:
    """The rows by the numbers that they set, slowest first and with as many decimals in all; else by their names."""
    described = {parameter.name: parameter for parameter in hyperparameters()}
    names = {name: None for row in rows for name in row.changes}
    numeric = all(name in described and described[name].type in (int, float) for name in names)
    if not names or not numeric:
        return [row.name for row in rows]
    pairs = list(itertools.pairwise(rows))
    order = sorted(names, key=lambda n: sum(a.changes.get(n) != b.changes.get(n) for a, b in pairs))
    decimals = {name: max(_decimals(row.changes.get(name)) for row in rows) for name in order}
    return [
        ", ".join(
            f"{_short(described[name])} {row.changes[name]:.{decimals[name]}f}"
            for name in order
            if name in row.changes
        )
        or row.name
        for row in rows
    ]


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


def draw(rows: Sequence[DotRow], label: str, publisher: str = "paper") -> Figure | None:
    """A dot and an interval per row with single seeds on them; the best test epoch and the published value hollow.

    Args:
        rows: From the top.
        label: Of the axis.
        publisher: See `tune.reporting.statistics.sweep_rows.publisher`.
    """
    if not any(row.mean is not None for row in rows):
        return None
    figure = Figure(figsize=(WIDTH, 1.15 + 0.25 * len(rows)), layout="constrained")
    axes = figure.subplots()
    several = any(len(row.values) > 1 for row in rows)
    ours = "this run, mean over seeds" if several else "this run (one seed)"
    for index, row in enumerate(rows):
        if row.begins and index:
            axes.axhline(index - 0.5, color=GREY, linewidth=0.6)
        _draw_dot(axes, row, index, ours, "paper (one seed)" if publisher == "paper" else publisher)
    list_rows(axes, [shorten(row.name, 52) for row in rows])
    shown = [mark for row in rows for mark in (*row.values, row.mean, row.best, row.published)]
    axes.set_xlim(view([mark for mark in shown if mark is not None], [row.interval for row in rows]))
    axes.set_xlabel(label)
    figure.legend(*unique_handles([axes]), loc="outside lower center", ncols=3)
    return figure


def _draw_dot(axes: Axes, row: DotRow, index: int, ours: str, published: str) -> None:
    if row.interval:
        axes.plot(row.interval, [index, index], "-", color=COLOURS[0], linewidth=1.8, label="95 % t interval")
    if row.mean is not None:
        axes.plot(row.mean, index, "o", color=COLOURS[0], markersize=5.5, label=ours, zorder=4)
    if len(row.values) > 1:
        where = [index] * len(row.values)
        axes.plot(row.values, where, "|", color=BLACK, markersize=8, label="one seed", zorder=5)
    hollow: Any = {"markerfacecolor": "white", "zorder": 3}
    if row.best is not None:
        axes.plot(row.best, index, "s", markeredgecolor=SKY, label="best test epoch (convention)", **hollow)
    if row.published is not None:
        axes.plot(row.published, index, "D", markeredgecolor=COLOURS[1], label=published, **hollow)


def _as(row: RowResult) -> str:
    """Before the label of a row that is the same training as others: which it is, and the first of them."""
    if len(row.alike) < 2:
        return ""
    return f"{row.name}: " if row.stands else f"{row.name} = {row.alike[0]}: "


def _alt(rows: Sequence[DotRow]) -> str:
    measured = [row for row in rows if row.mean is not None]
    if not measured:
        return ""
    low, high = (choose(measured, key=lambda row: row.mean or 0.0) for choose in (min, max))
    return (
        f"Dots with intervals for {len(rows)} rows, {len(measured)} of them measured. Highest mean: {high.name}, "
        f"{high.mean:.2f} %; lowest: {low.name}, {low.mean:.2f} %."
    )


def _short(parameter: Hyperparameter) -> str:
    return parameter.symbol or parameter.name


def _decimals(value: Any) -> int:
    text = wording.value(float(value)) if isinstance(value, int | float) else ""
    return len(text.partition(".")[2]) or int(isinstance(value, float))
