"""Precision against recall of the reported training on test frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from macil.io.pictures import BLACK, COLOURS, GREY, WIDTH
from tune.reporting.figures.axes import (
    unique_handles,
)
from tune.reporting.figures.drawing import Drawing
from tune.reporting.figures.figure_data import FigureData, SeedScores


def precision_recall(data: FigureData) -> Drawing:
    """The figure of the reported training.

    Raises:
        DataError: See `FigureData.measured`.
    """
    seeds = data.measured
    first = seeds[0]
    caption = (
        f"Frame-level precision against recall of {data.reported}; the dashed line is the share of violent "
        f"frames, which guessing reaches. {data.basis(len(seeds), 'both AP definitions')}"
    )
    alt = (
        f"Precision falls as recall rises; AP {100 * first.ap_trapezoid:.2f} % trapezoidal, {100 * first.ap:.2f} % "
        f"step-wise, at {100 * first.positive.sum() / (first.frames * len(first.positive)):.1f} % violent frames."
    )
    return Drawing("Precision against recall", caption, alt, lambda: draw(seeds))


def draw(seeds: Sequence[SeedScores]) -> Figure:
    """Frame-level precision against recall, one line per seed, and the rate of violent frames as the chance line."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    several = len(seeds) > 1
    for index, seed in enumerate(seeds):
        precision, recall = curve(seed)
        name = (
            f"{f'seed {seed.seed}: ' if several else ''}AP {100 * seed.ap_trapezoid:.2f} % trapezoidal, "
            f"{100 * seed.ap:.2f} % step-wise"
        )
        style: Any = {"color": COLOURS[0]} if index == 0 else {"color": GREY, "zorder": 1}
        style |= {"linewidth": 1.6 if index == 0 else 0.8, "drawstyle": "steps-post", "label": name}
        axes.plot(recall, precision, **style)
    rate = seeds[0].positive.sum() / (seeds[0].frames * len(seeds[0].positive))
    axes.axhline(
        rate,
        color=BLACK,
        linestyle=(0, (4, 2)),
        linewidth=1,
        label=f"chance: {100 * rate:.1f} % of the frames",
    )
    axes.set(xlabel="recall, frames", ylabel="precision, frames", xlim=(0, 1), ylim=(0, 1.02))
    figure.legend(*unique_handles([axes]), loc="outside lower center", ncols=2)
    return figure


def curve(seed: SeedScores) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of frames, computed on snippets: each counts with its violent and its other frames."""
    from sklearn.metrics import precision_recall_curve

    count = len(seed.scores)
    precision, recall, _ = precision_recall_curve(
        np.repeat([1, 0], count),
        np.tile(seed.scores, 2),
        sample_weight=np.concatenate([seed.positive, seed.frames - seed.positive]),
    )
    return precision, recall
