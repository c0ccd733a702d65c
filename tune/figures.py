"""Curves over epochs, and how every figure looks: PNG and SVG, colours that the colour-blind and a printer tell apart.

Every function returns None where there is nothing to draw. Names from data are never read as mathematics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from macil.files import atomic_path

# Okabe and Ito's palette: distinguishable with every common colour blindness. Line styles repeat the distinction.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (4, 1.2, 1.2, 1.2)), (0, (7, 2)))
_MARKS = ("o", "s", "^", "D", "v")
GREY = "#9a9a9a"
BLACK = "#222222"

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "svg.fonttype": "path",
    "svg.hashsalt": "macil-tune",  # equal figures are equal files
    "text.parse_math": False,
    "text.usetex": False,
}
WIDTH = 7.0  # inches: the text width of a page
_DPI = 200
_MOST_LINES = 5  # lines with a name of their own; the others are grey context

Trial = dict[str, Any]
Curves = dict[tuple[str, str], list[Trial]]  # (kind, trial id) -> its epochs, in order


@dataclass(frozen=True)
class Group:
    """Trials drawn alike under one name: a row of a sweep, or a single trial."""

    label: str
    trials: tuple[Trial, ...]
    refit: bool = False


@dataclass(frozen=True)
class SavedFigure:
    """A figure on disk, `name`.png and `name`.svg, with what stands below it."""

    name: str
    title: str
    caption: str
    png: Path
    svg: Path


def save_figure(
    draw: Callable[[], Figure | None], folder: Path, name: str, title: str, caption: str
) -> SavedFigure | None:
    """Draw in the report's style and write PNG and SVG, each in one step; None when there is nothing to draw."""
    with mpl.rc_context(_STYLE):
        figure = draw()
        if figure is None:
            return None
        FigureCanvasAgg(figure)
        paths = [folder / f"{name}.png", folder / f"{name}.svg"]
        for path in paths:
            kind = path.suffix[1:]
            # A date would make equal figures different files.
            metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format=kind, dpi=_DPI, metadata=metadata, facecolor="white")
            figure.set_layout_engine("none")  # laid out once: the second file keeps the places of the first
    return SavedFigure(name, title, caption, *paths)


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


def unique_handles(panels: Iterable[Axes]) -> tuple[list[Any], list[str]]:
    """Legend entries of several panels, each name once."""
    by_label: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        by_label |= {
            label: handle for label, handle in zip(labels, handles, strict=True) if label not in by_label
        }
    return list(by_label.values()), list(by_label)


def shorten(text: str, most: int) -> str:
    """At most `most` printable characters."""
    text = "".join(character if character.isprintable() else "·" for character in text)
    return text if len(text) <= most else text[: most - 1] + "…"


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
    for index, (_, _, x, y) in enumerate(grey):
        label = f"other trials ({len(grey)})" if index == 0 else None
        mark = "." if len(x) == 1 else None
        axes.plot(x, y, color=GREY, linewidth=0.7, alpha=0.55, marker=mark, label=label, zorder=1)
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
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.02)
