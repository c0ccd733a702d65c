"""Curves over epochs, and what all figures of a report share; how they look is in `macil.look`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from macil.config import hyperparameters
from macil.look import BLACK, COLOURS, GREY, WIDTH, save_picture, shorten

SKY = "#56B4E9"  # the palette's light blue: what stands behind COLOURS[0]
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (4, 1.2, 1.2, 1.2)), (0, (7, 2)))
_MARKS = ("o", "s", "^", "D", "v")
_MOST_LINES = 5  # lines with a name of their own; the others are grey context

Trial = Any
Curves = dict[tuple[str, str], list[Trial]]  # (kind, trial id) -> its epochs, in order


@dataclass(frozen=True)
class Group:
    """Trials drawn alike under one name: a row of a sweep, or a single trial."""

    label: str
    trials: tuple[Trial, ...]
    refit: bool = False


@dataclass(frozen=True)
class Drawing:
    """A figure in words, and what draws it: `draw` is called in the report's style; None when there is nothing to draw.

    `alt` says what the picture shows to whoever cannot see it.
    """

    title: str
    caption: str
    alt: str
    draw: Callable[[], Figure | None]


@dataclass(frozen=True)
class Entry:
    """A figure that a run may get: file name, title for when it is missing, heading, and what makes the drawing.

    `make` gives None where the figure does not apply to the run, and raises a MacilError that says what is missing.
    """

    name: str
    title: str
    group: str
    make: Callable[[], Drawing | None]


@dataclass(frozen=True)
class SavedFigure:
    """A figure on disk, `name`.png and `name`.svg, with what stands below it.

    `group` is the heading it belongs under, `alt` its textual alternative.
    """

    name: str
    title: str
    caption: str
    alt: str
    png: Path
    svg: Path
    group: str


def save_drawing(drawing: Drawing, folder: Path, name: str, group: str = "") -> SavedFigure | None:
    """Draw and write PNG and SVG, see `macil.look.save_picture`; None when there is nothing to draw."""
    saved = save_picture(drawing.draw, folder, name)
    if saved is None:
        return None
    return SavedFigure(name, drawing.title, drawing.caption, drawing.alt, *saved, group)


def learning_curves(
    groups: Sequence[Group], epochs: Curves, metric: str, label: str, scale: float = 1.0
) -> Figure | None:
    """One line per trial over epochs: the first of `groups` in colour, the others grey behind them."""
    lines = _lines(groups, epochs, metric, scale)
    if not lines:
        return None
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    axes = figure.subplots()
    _draw_curves(axes, lines)
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    figure.legend(loc="outside right upper", handlelength=2.6)
    return figure


def losses(groups: Sequence[Group], epochs: Curves) -> Figure | None:
    """The four losses over epochs, one panel each, as `learning_curves`."""
    panels = [
        ("loss_mil", "multiple instance (BCE)"),
        ("loss_v2b", "violent against background"),
        ("loss_v2n", "violent against normal"),
        ("loss_visual", "visual network (BCE)"),
    ]
    drawn = [(title, _lines(groups, epochs, metric)) for metric, title in panels]
    drawn = [panel for panel in drawn if panel[1]]
    if not drawn:
        return None
    rows = math.ceil(len(drawn) / 2)
    figure = Figure(figsize=(WIDTH, 0.6 + 1.95 * rows), layout="constrained")
    grid = figure.subplots(rows, 2, squeeze=False)
    for axes, (title, lines) in zip(grid.flat, drawn, strict=False):
        _draw_curves(axes, lines)
        axes.set_title(title, loc="left")
    for axes in list(grid.flat)[len(drawn) :]:
        axes.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    handles, labels = unique_handles(grid.flat)
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), handlelength=2.6)
    return figure


def whole_numbers() -> MaxNLocator:
    """Ticks at round whole numbers."""
    return MaxNLocator(integer=True, steps=[1, 2, 5, 10])


def mark_size(count: int) -> float:
    """Area of a mark in square points: fewer than `count` would hide one another if they were large."""
    return 20.0 if count <= 200 else 7.0


def view(marks: Sequence[float], intervals: Sequence[tuple[float, float] | None]) -> tuple[float, float]:
    """Limits of an axis of percentages that shows every mark, and of the intervals what is near them.

    The interval of three seeds is several times as wide as they are apart: it would leave little of all else to see.
    """
    low, high = min(marks), max(marks)
    reach = max(0.6 * (high - low), 1.0)
    ends = [end for interval in intervals if interval for end in interval]
    low, high = (
        max(low - reach, min([low - 0.1 * reach, *ends])),
        min(high + reach, max([high + 0.1 * reach, *ends])),
    )
    return max(low, 0.0), min(high, 100.5)


def unique_handles(panels: Iterable[Axes]) -> tuple[list[Any], list[str]]:
    """Legend entries of several panels, each name once."""
    by_label: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        by_label |= {
            label: handle for label, handle in zip(labels, handles, strict=True) if label not in by_label
        }
    return list(by_label.values()), list(by_label)


def described(name: str) -> str:
    """A hyperparameter with its symbol, where it has one: "momentum (m)"."""
    symbol = {parameter.name: parameter.symbol for parameter in hyperparameters()}.get(name)
    return f"{name} ({symbol})" if symbol else name


def list_rows(axes: Axes, names: Sequence[str]) -> None:
    """A name beside each place 0, 1, … of the upright axis, from the top."""
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 of each decade, so that an axis of less than a decade has labels too; of many, 1 and 5."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    return [tick for tick in ticks if f"{tick:e}"[0] in "15"] if len(ticks) > 6 else ticks


def label_log_axis(axis: Axis) -> None:
    """Plain numbers at `log_ticks`."""
    ticks = log_ticks(*sorted(axis.get_view_interval()))
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axis.set_ticks([], minor=True)


_Line = tuple[
    int, Group, list[int], list[float]
]  # place of its group, which is its colour; group; epochs; values


def _lines(groups: Sequence[Group], epochs: Curves, metric: str, scale: float = 1.0) -> list[_Line]:
    lines = []
    # The place counts all groups, drawn or not: a group has one colour in every panel and figure.
    places = iter(range(len(groups)))
    for group in groups:
        place = -1 if group.refit else next(places)
        for trial in group.trials:
            curve = epochs.get((trial["kind"], trial["trial_id"]), [])
            points = [(epoch["epoch"], epoch[metric] * scale) for epoch in curve if epoch[metric] is not None]
            if points:
                lines.append((place, group, [x for x, _ in points], [y for _, y in points]))
    return lines


def _draw_curves(axes: Axes, lines: Sequence[_Line]) -> None:
    """The first groups in colour, each under its name once; the refit in black; all others grey."""
    grey = [line for line in lines if line[0] >= _MOST_LINES]
    if grey:
        # One collection: a thousand lines of their own would take seconds to draw.
        curves = [np.column_stack([line[2], line[3]]) for line in grey]
        label = f"other trials ({len(grey)})"
        axes.add_collection(
            LineCollection(curves, colors=GREY, linewidths=0.7, alpha=0.55, label=label, zorder=1)
        )
        axes.autoscale_view()
        points = [(line[2][0], line[3][0]) for line in grey if len(line[2]) == 1]
        if points:
            axes.plot([x for x, _ in points], [y for _, y in points], ".", color=GREY, alpha=0.55, zorder=1)
    named: set[int] = set()
    for place, group, x, y in lines:
        if place >= _MOST_LINES:
            continue
        axes.plot(
            x,
            y,
            color=BLACK if group.refit else COLOURS[place],
            linestyle="-" if group.refit else _DASHES[place],
            marker=None if group.refit and len(x) > 1 else _MARKS[place],
            markersize=3,
            markevery=max(1, len(x) // 8),
            label=shorten(group.label, 28) if place not in named else None,
            zorder=10 - place,
        )
        named.add(place)
    axes.xaxis.set_major_locator(whole_numbers())
    axes.margins(x=0.02)
