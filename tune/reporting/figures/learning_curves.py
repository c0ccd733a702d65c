"""Scores and losses of all trainings over epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from macil.io.pictures import BLACK, COLOURS, GREY, WIDTH, shorten
from macil.io.wording import plural
from tune.reporting.figures.axes import (
    unique_handles,
    whole_numbers,
)
from tune.reporting.figures.captions import basis
from tune.reporting.figures.drawing import Drawing
from tune.reporting.figures.epochs import Curves, Group, measured
from tune.reporting.statistics.intervals import Estimate
from tune.reporting.statistics.sweep_rows import (
    sweep_rows,
    trained_rows,
)
from tune.results.ranking import ranked_trials
from tune.results.run import RunResults

_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (4, 1.2, 1.2, 1.2)), (0, (7, 2)))
_MARKS = ("o", "s", "^", "D", "v")
_MOST_LINES = 5  # lines with a name of their own; the others are grey context
_LINES = "In colour: the first five by selection score; each line is one trial (one seed)."


def learning_curves(results: RunResults, groups: Sequence[Group], epochs: Curves, metric: str) -> Drawing:
    """The figure of `metric`, which is the selection score, the held-out AP or the trapezoidal test AP."""
    published = results.protocol == "published"
    title, caption, label, scale = {
        "selection_score": (
            "Selection score over epochs",
            "Running best of the test AP (trapezoidal), which flatters."
            if published
            else "Running best of the held-out score.",
            "selection score (best so far)",
            1.0,
        ),
        "heldout_ap": (
            "Held-out AP over epochs",
            "Video-level AP on the held-out training videos, step-wise definition.",
            "held-out AP, video level (%)",
            100.0,
        ),
        "ap_trapezoid": (
            "Test AP over epochs",
            "Frame-level test AP, trapezoidal (the published definition).",
            "test AP (%), trapezoidal",
            100.0,
        ),
    }[metric]
    caption = f"{caption} {_LINES} {basis(results, 'one seed a line, no interval', rule='every epoch')}"
    alt = f"{title}, a line for each of {sum(len(group.trials) for group in groups)} trials."
    return Drawing(title, caption, alt, lambda: draw(groups, epochs, metric, label, scale))


def losses(results: RunResults, groups: Sequence[Group], epochs: Curves) -> Drawing:
    """The figure of the losses, the refit among them."""
    refits = [row for row in results.trial_rows if row.kind == "refit"]
    shown = [Group("refit of the winner", tuple(refits), refit=True)] if refits else []
    caption = (
        f"Mean over the epoch's bags, before weighting by λ. {_LINES}{' Black: the refit.' if refits else ''} "
        + basis(results, "one seed a line, no interval", rule="every epoch")
    )
    alt = f"Losses over epochs, a panel each, a line for each of {sum(len(group.trials) for group in groups)} trials."
    return Drawing("Losses over epochs", caption, alt, lambda: draw_losses([*shown, *groups], epochs))


def groups_of(results: RunResults) -> list[Group]:
    """Rows of a sweep by mean score, or trials by rank; trials without a rank follow."""
    trials = [row for row in results.trial_rows if row.kind == "search"]
    if results.info.sweep:
        rows = [row for row in trained_rows(sweep_rows(results)) if row.trials]
        return [
            Group(f"{row.title} ({plural(len(row.trials), 'seed')})", row.trials)
            for row in sorted(rows, key=lambda row: -_mean(row.estimate("selection_score")))
        ]
    ranks = {row.trial_dir: rank for rank, row in enumerate(ranked_trials(results), start=1)}
    trials.sort(key=lambda row: ranks.get(row.trial_dir, math.inf))
    return [
        Group(f"{ranks[row.trial_dir]}: trial {row.name}" if row.trial_dir in ranks else row.name, (row,))
        for row in trials
    ]


def draw(
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


def draw_losses(groups: Sequence[Group], epochs: Curves) -> Figure | None:
    """The four losses over epochs, one panel each, as `draw`."""
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


_Line = tuple[
    int, Group, list[int], list[float]
]  # index of its group, which is its colour; group; epochs; values


def _lines(groups: Sequence[Group], epochs: Curves, metric: str, scale: float = 1.0) -> list[_Line]:
    lines = []
    # The index counts all groups, drawn or not: a group has one colour in every panel and figure.
    indices = iter(range(len(groups)))
    for group in groups:
        index = -1 if group.refit else next(indices)
        for trial in group.trials:
            curve = ((epoch.epoch, measured(epoch, metric)) for epoch in epochs.get(trial.key, ()))
            points = [(epoch, value * scale) for epoch, value in curve if value is not None]
            if points:
                lines.append((index, group, [x for x, _ in points], [y for _, y in points]))
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
    for index, group, x, y in lines:
        if index >= _MOST_LINES:
            continue
        axes.plot(
            x,
            y,
            color=BLACK if group.refit else COLOURS[index],
            linestyle="-" if group.refit else _DASHES[index],
            marker=None if group.refit and len(x) > 1 else _MARKS[index],
            markersize=3,
            markevery=max(1, len(x) // 8),
            label=shorten(group.label, 28) if index not in named else None,
            zorder=10 - index,
        )
        named.add(index)
    axes.xaxis.set_major_locator(whole_numbers())
    axes.margins(x=0.02)


def _mean(figure: Estimate | None) -> float:
    return figure.mean if figure else -math.inf
