"""Optimisation history: the selection score of each trial in the order of start, and the best so far."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from macil.errors import DataError
from macil.io.pictures import COLOURS, WIDTH
from tune.reporting.figures.axes import mark_size, unique_handles, whole_numbers
from tune.reporting.figures.captions import score_basis
from tune.reporting.figures.drawing import Drawing
from tune.results.rows import TrialRow
from tune.results.run import RunResults


def history(results: RunResults, trials: Sequence[TrialRow]) -> Drawing:
    """The figure of a search.

    Raises:
        DataError: No trial was trained to the end.
    """
    ended, stopped = scores(trials, "finished"), scores(trials, "stopped")
    if not ended:
        raise DataError("no trial was trained to the end yet")
    caption = (
        "Selection score of each trial in the order of start; the line is the best so far of those trained to the "
        f"end, hollow marks were stopped early. {score_basis(results)}"
    )
    best = max(ended, key=lambda number: ended[number])
    alt = (
        f"{len(ended)} trials trained to the end and {len(stopped)} stopped early; the best score, {ended[best]:.4f}, "
        f"is that of trial {best}."
    )
    return Drawing("Optimisation history", caption, alt, lambda: draw(trials))


def draw(trials: Sequence[TrialRow]) -> Figure:
    """Filled marks of trials that were trained to the end with their running best, hollow ones of stopped trials."""
    ended, stopped = scores(trials, "finished"), scores(trials, "stopped")
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    axes = figure.subplots()
    numbers = [*ended, max([*ended, *stopped])]
    best = np.maximum.accumulate([*ended.values(), -np.inf])
    axes.plot(numbers, best, color=COLOURS[1], drawstyle="steps-post", label="best so far", zorder=2)
    marks = [
        ("trained to the end", ended, COLOURS[0], "none"),
        ("stopped early", stopped, "white", COLOURS[0]),
    ]
    for label, found, face, edge in marks:
        if found:
            size = mark_size(len(trials))
            axes.scatter(
                list(found),
                list(found.values()),
                size,
                face,
                edgecolors=edge,
                linewidths=1.1,
                label=label,
                zorder=3,
            )
    axes.xaxis.set_major_locator(whole_numbers())
    axes.set(xlabel="trial, in the order of start", ylabel="selection score")
    figure.legend(*unique_handles([axes]), loc="outside lower center", ncols=3)
    return figure


def scores(trials: Sequence[TrialRow], status: str) -> dict[int, float]:
    """Number of each trial that ended so, in the order of start, and its selection score."""
    return {
        number: trial.selection_score
        for number, trial in enumerate(trials)
        if trial.status == status and trial.selection_score is not None
    }
