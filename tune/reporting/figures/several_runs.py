"""Several runs as figures: results with their intervals, and the rows of a sweep run by run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from macil.io.pictures import COLOURS, WIDTH, shorten
from tune.reporting.figures.axes import list_rows, unique_handles
from tune.reporting.figures.drawing import Drawing, SavedFigure, save_drawing
from tune.reporting.statistics.intervals import Estimate
from tune.reporting.statistics.sweep_rows import headline_column, sweep_rows
from tune.reporting.tables.several_runs import Compared, shared_sweeps

_MARKS = ("o", "s", "^", "D", "v")
# One run below the other within the height of a row.
_SPREAD = 0.6


def draw_runs(compared: Sequence[Compared], folder: Path) -> list[SavedFigure]:
    """Write the figures that there are data for into `folder`."""
    drawn = [_results(compared, folder)]
    drawn += [
        _rows(index, sweep, group, folder)
        for index, (sweep, group) in enumerate(shared_sweeps(compared).items(), start=1)
    ]
    return [figure for figure in drawn if figure is not None]


def intervals(
    names: Sequence[str], series: Sequence[tuple[str, Sequence[Estimate | None]]], label: str
) -> Figure | None:
    """A dot and its interval, or the two values that it is the mean of, for each name and series.

    None where nothing was measured.

    Args:
        names: The rows, from the top.
        series: Name, and as many estimates as there are rows, as shares; a single series has no legend.
        label: Of the axis, which is in percent.
    """
    if not any(figure is not None for _, figures in series for figure in figures):
        return None
    several = len(series) > 1
    height = 0.7 + (0.3 if several else 0.0) + len(names) * max(0.3, 0.17 * len(series))
    drawing = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = drawing.subplots()
    for number, (name, figures) in enumerate(series):
        offset = _SPREAD * ((number + 0.5) / len(series) - 0.5)
        colour, mark = COLOURS[number % len(COLOURS)], _MARKS[number % len(_MARKS)]
        for index, figure in enumerate(figures):
            if figure is None:
                continue
            reach = None
            if figure.low is not None and figure.high is not None:
                reach = [[100 * (figure.mean - figure.low)], [100 * (figure.high - figure.mean)]]
            if figure.values:  # of two seeds, in place of an interval
                two = [100 * value for value in figure.values]
                axes.plot(two, [index + offset] * len(two), "|", color=colour, markersize=8)
            axes.errorbar(
                100 * figure.mean,
                index + offset,
                xerr=reach,
                fmt=mark,
                color=colour,
                markersize=5,
                linewidth=1.6,
                capsize=2.5,
                label=shorten(name, 40),
            )
    list_rows(axes, [shorten(name, 44) for name in names])
    axes.set_xlabel(label)
    if several:
        drawing.legend(*unique_handles([axes]), loc="outside lower center", ncols=3)
    return drawing


def _results(compared: Sequence[Compared], folder: Path) -> SavedFigure | None:
    names, found = [each.name for each in compared], [each.headline for each in compared]
    message = ", ".join(
        f"{name} {100 * each.mean:.2f} %" for name, each in zip(names, found, strict=True) if each
    )
    drawing = Drawing(
        "Results of the runs",
        "Test AP of each run's result, trapezoidal (the published definition), with its 95 % interval: over three "
        "seeds or more, or for a single model over test videos (see Interval in the table).",
        f"Dots with intervals, a row a run: {message}.",
        lambda: intervals(names, [("", found)], "test AP (%), trapezoidal"),
    )
    return save_drawing(drawing, folder, "runs")


def _rows(index: int, sweep: str, group: Sequence[Compared], folder: Path) -> SavedFigure | None:
    column, rule = headline_column(group[0].results)
    by_run = [(each.name, {row.name: row for row in sweep_rows(each.results)}) for each in group]
    names = list(dict.fromkeys(name for _, rows in by_run for name in rows))
    series = [
        (run, [rows[name].estimate(column) if name in rows else None for name in names])
        for run, rows in by_run
    ]
    drawing = Drawing(
        f"Rows of sweep {sweep}, run by run",
        f"Test AP, trapezoidal, {rule}; mean over the finished seeds, with 95 % t interval where there are "
        "three or more, and both values where there are two.",
        f"Dots with intervals: the {len(names)} rows of sweep {sweep}, each with {len(group)} runs.",
        lambda: intervals(names, series, f"test AP (%), trapezoidal, {rule}"),
    )
    return save_drawing(drawing, folder, f"rows-{index}")
