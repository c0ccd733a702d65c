"""Accuracy and losses of the reported training over epochs (Figure 4 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from macil.io.pictures import COLOURS, WIDTH
from tune.reporting.figures.axes import (
    unique_handles,
    whole_numbers,
)
from tune.reporting.figures.captions import basis
from tune.reporting.figures.drawing import Drawing
from tune.reporting.figures.epochs import Curves, Group, measured
from tune.reporting.figures.figure_data import FigureData
from tune.results.rows import EpochRow

_PANELS = (
    ("video_accuracy", "video-level accuracy (%)", 100.0),
    ("loss_mil", "MIL loss (BCE)", 1.0),
    ("contrastive", "contrastive loss (v2b + v2n)", 1.0),
)


def training_curves(data: FigureData, epochs: Curves) -> Drawing | None:
    """The figure of the reported training; None without any."""
    results, trials = data.results, data.trials
    if not trials:
        return None
    groups = [Group(data.outcome.name, trials)]
    searched = data.searched_winner
    if searched is not None:
        groups.append(Group(f"trial {searched.name} in the search, with held-out videos", (searched,)))
    accuracy = {
        "published": "Accuracy: test videos whose prediction p > 0.5 is right.",
        "heldout": "Accuracy: held-out training videos whose prediction p > 0.5 is right.",
    }.get(results.protocol, "")
    if searched is not None:
        accuracy += " The refit has no held-out videos: the trial it repeats is drawn beside it."
    seeds = len(trials)
    caption = (
        f"Video-level accuracy and losses over epochs of {data.reported}, as Figure 4 of the paper shows them. "
        f"Losses: mean over an epoch's bags, before weighting by λ. {accuracy} "
        + basis(
            results,
            f"{seeds} seeds, thin lines, and their mean" if seeds > 1 else "one seed, no interval",
            protocol=trials[0].protocol,
            rule="every epoch",
        )
    )
    alt = f"Curves over {max(trial.epochs_run for trial in trials)} epochs of accuracy, BCE and contrastive loss."
    return Drawing("Accuracy and losses (Figure 4 of the paper)", caption, alt, lambda: draw(groups, epochs))


def draw(groups: Sequence[Group], epochs: Curves) -> Figure | None:
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
            row.epoch: value * scale
            for row in epochs.get(trial.key, ())
            if (value := _value(row, metric)) is not None
        }
        if curve:
            found.append(curve)
    return found


def _value(row: EpochRow, metric: str) -> float | None:
    if metric != "contrastive":
        return measured(row, metric)
    return None if row.loss_v2b is None or row.loss_v2n is None else row.loss_v2b + row.loss_v2n


def _mean(curves: Sequence[dict[int, float]]) -> dict[int, float]:
    """Mean over the seeds, of the epochs that all of them have."""
    common = sorted(set.intersection(*map(set, curves))) if curves else []
    return {epoch: float(np.mean([curve[epoch] for curve in curves])) for epoch in common}
