"""Parallel coordinates: a line for each trial, through its selection score and its hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from macil.config import hyperparameters
from macil.errors import DataError
from macil.io.pictures import BLACK, WIDTH
from tune.reporting.figures.axes import log_ticks
from tune.reporting.figures.captions import score_basis
from tune.reporting.figures.drawing import Drawing
from tune.reporting.figures.hyperparameters import few_values, logarithmic, searched
from tune.reporting.text import wording
from tune.results.rows import TrialRow
from tune.results.run import RunResults

SCORE = "selection score"
# More lines than this through the same axes are a thicket: all but the best tenth step back.
_MOST_LINES, _SHARE_OF_BEST = 40, 0.1


def parallel_coordinates(results: RunResults, trials: Sequence[TrialRow]) -> Drawing | None:
    """The figure of a search over at least two hyperparameters.

    Raises:
        DataError: Fewer than two trials were trained to the end.
    """
    names = searched(results)
    if len(names) < 2:
        return None
    ended = [
        (trial.selection_score, results.active_row(trial))
        for trial in trials
        if trial.status == "finished" and trial.selection_score is not None
    ]
    if len(ended) < 2:
        raise DataError(f"{len(ended)} trials were trained to the end; at least 2 are needed")
    conditional = any(dimension.when for dimension in results.plan.space.values())
    caption = (
        f"One line for each of the {len(ended)} trials that were trained to the end, through its selection score and "
        f"its hyperparameters; the darker, the better; of more than 40 the best tenth is thicker. "
        + "A line breaks where a hyperparameter was not searched in its trial. " * conditional
        + score_basis(results)
    )
    score, best = max(ended, key=lambda scored: scored[0])
    values = ", ".join(
        f"{name} {wording.value(best.config[name], 3)}" for name in names if name in best.config
    )
    alt = f"{len(ended)} lines; the best, {score:.4f}, passes through {values}."
    return Drawing("Parallel coordinates", caption, alt, lambda: draw(ended, names, logarithmic(results)))


class Axis(NamedTuple):
    """An upright axis: what stands below it, where on it each trial lies (0 to 1), and its ticks."""

    label: str
    positions: np.ndarray
    ticks: list[tuple[float, str]]


def draw(
    ended: Sequence[tuple[float, TrialRow]], names: Sequence[str], logarithmic: frozenset[str]
) -> Figure:
    """Lines of the scored trials, the best last and darkest; a line breaks where its trial has no value."""
    names = [name for name in names if any(name in trial.config for _, trial in ended)]
    whole = sorted(ended, key=lambda scored: scored[0])
    found = np.array([score for score, _ in whole])
    upright = [number_axis(SCORE, found, log=False)]
    upright += [_axis(name, [trial for _, trial in whole], log=name in logarithmic) for name in names]

    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    paths = [
        list(enumerate(positions)) for positions in np.column_stack([axis.positions for axis in upright])
    ]
    many = len(whole) > _MOST_LINES
    best = found >= np.quantile(found, 1 - _SHARE_OF_BEST) if many else np.ones(len(found), bool)
    # The palest yellow of the scale is lost on paper.
    dark = ListedColormap(mpl.colormaps["cividis_r"](np.linspace(0.2, 1, 256)))
    lines = LineCollection(
        paths, array=found, cmap=dark, linewidths=np.where(best, 1.1, 0.4), alpha=np.where(best, 0.85, 0.25)
    )
    axes.add_collection(lines)
    for position, axis in enumerate(upright):
        axes.axvline(position, color=mpl.rcParams["axes.edgecolor"], linewidth=0.7, clip_on=False)
        _write_ticks(axes, position, axis.ticks, left=position == 0)
    axes.set_xticks(range(len(upright)), [axis.label for axis in upright])
    axes.set(xlim=(0, len(names)), ylim=(-0.03, 1.03), yticks=[])
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


def number_axis(label: str, values: np.ndarray, *, log: bool) -> Axis:
    """An axis from the lowest to the highest of `values`."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return Axis(label, np.full(len(values), 0.5), [(0.5, f"{low:g}")])
    ticks = log_ticks(low, high) if log else MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    shown = [float(tick) for tick in ticks if low <= tick <= high]
    scale = np.log if log else np.asarray
    ends = scale([low, high])
    positions, at = ((scale(each) - ends[0]) / (ends[1] - ends[0]) for each in (values, shown))
    decimals = max(len(f"{tick:g}".partition(".")[2]) for tick in shown) if shown and not log else None
    texts = [f"{tick:g}" if decimals is None else f"{tick:.{decimals}f}" for tick in shown]
    return Axis(label, positions, list(zip(at.tolist(), texts, strict=True)))


def _axis(name: str, trials: Sequence[TrialRow], *, log: bool) -> Axis:
    """The axis of a hyperparameter; a trial without it lies nowhere (NaN)."""
    present = [name in trial.config for trial in trials]
    axis = _axis_of(name, [trial.config[name] for trial in trials if name in trial.config], log=log)
    positions = np.full(len(trials), np.nan)
    positions[present] = axis.positions
    return axis._replace(positions=positions)


def _axis_of(name: str, values: list[Any], *, log: bool) -> Axis:
    symbol = {parameter.name: parameter.symbol for parameter in hyperparameters()}[name] or name
    if not few_values(name, values):
        return number_axis(symbol, np.array(values, float), log=log and min(values) > 0)
    kinds = sorted(set(values))
    positions = {
        kind: position / (len(kinds) - 1) if len(kinds) > 1 else 0.5 for position, kind in enumerate(kinds)
    }
    return Axis(
        symbol,
        np.array([positions[value] for value in values]),
        [(position, wording.value(kind)) for kind, position in positions.items()],
    )


def _write_ticks(axes: Any, position: int, ticks: Sequence[tuple[float, str]], *, left: bool) -> None:
    """Numbers beside an upright axis, on white since the trials' lines run under them."""
    for height, text in ticks:
        axes.annotate(
            text,
            (position, height),
            (-6 if left else 6, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize=7,
            color=BLACK,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            annotation_clip=False,
            zorder=4,
        )
        axes.plot(
            position, height, marker=0 if left else 1, color=BLACK, markersize=3, clip_on=False, zorder=3
        )
