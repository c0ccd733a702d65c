"""The paper's curves: AP against one hyperparameter (Figure 3), losses and accuracy over epochs (Figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from macil.config import hyperparameters
from macil.look import BLACK, COLOURS, WIDTH
from tune.drawing.figures import (
    SKY,
    Curves,
    Group,
    described,
    label_log_axis,
    unique_handles,
    view,
    whole_numbers,
)

# Widths and counts, which double rather than grow.
_DOUBLING = ("hidden_dim", "feedforward_dim", "num_heads", "batch_size")
_PANELS = (
    ("video_accuracy", "video-level accuracy (%)", 100.0),
    ("loss_mil", "MIL loss (BCE)", 1.0),
    ("contrastive", "contrastive loss (v2b + v2n)", 1.0),
)


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


def sweep_curve(
    points: Sequence[SweptPoint], name: str, label: str, publisher: str = "paper"
) -> Figure | None:
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


def training_curves(groups: Sequence[Group], epochs: Curves) -> Figure | None:
    """Accuracy, BCE and contrastive loss over epochs, aligned panels: seeds thin, their mean thick, a line a group."""
    drawn = [
        (label, lines)
        for metric, label, scale in _PANELS
        if any(lines := [_curves(group, epochs, metric, scale) for group in groups])
    ]
    if not drawn:
        return None
    figure = Figure(figsize=(WIDTH, 0.7 + 1.75 * len(drawn)), layout="constrained")
    panels = figure.subplots(len(drawn), 1, sharex=True, squeeze=False)[:, 0]
    looks = [(COLOURS[0], "-"), (COLOURS[1], (0, (5, 1.5)))]
    for axes, (label, lines) in zip(panels, drawn, strict=True):
        for group, curves, (colour, dashes) in zip(groups, lines, looks, strict=False):
            for curve in curves if len(curves) > 1 else ():
                axes.plot(*zip(*curve.items(), strict=True), color=colour, linewidth=0.6, alpha=0.55)
            mean = _mean(curves)
            if mean:
                name = f"{group.label}: mean of {len(curves)} seeds" if len(curves) > 1 else group.label
                style: Any = {"color": colour, "linestyle": dashes, "label": name}
                axes.plot(*zip(*mean.items(), strict=True), marker="o" if len(mean) == 1 else None, **style)
        axes.set_title(label, loc="left")
        axes.xaxis.set_major_locator(whole_numbers())
        axes.margins(x=0.02)
    panels[-1].set_xlabel("epoch")
    figure.legend(*unique_handles(panels), loc="outside lower center", ncols=2)
    return figure


def _curves(group: Group, epochs: Curves, metric: str, scale: float) -> list[dict[int, float]]:
    """Value by epoch of each trial of a group that has any."""
    found = []
    for trial in group.trials:
        curve = {
            row["epoch"]: value * scale
            for row in epochs.get((trial["kind"], trial["trial_id"]), [])
            if (value := _value(row, metric)) is not None
        }
        if curve:
            found.append(curve)
    return found


def _value(row: dict[str, Any], metric: str) -> float | None:
    if metric != "contrastive":
        return row[metric]
    parts = row["loss_v2b"], row["loss_v2n"]
    return None if None in parts else sum(parts)


def _mean(curves: Sequence[dict[int, float]]) -> dict[int, float]:
    """Mean over the seeds, of the epochs that all of them have."""
    common = sorted(set.intersection(*map(set, curves))) if curves else []
    return {epoch: float(np.mean([curve[epoch] for curve in curves])) for epoch in common}


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
