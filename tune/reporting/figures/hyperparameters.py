"""The selection score against each hyperparameter, and which hyperparameters a run searched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from macil.config import hyperparameters
from macil.io.pictures import COLOURS, WIDTH
from tune.reporting.figures.axes import described, label_log_axis, mark_size, unique_handles
from tune.reporting.figures.captions import score_basis
from tune.reporting.figures.drawing import Drawing
from tune.reporting.tables.run_tables import varied
from tune.results.rows import TrialRow
from tune.results.run import RunResults

# A trial with its selection score.
_Scored = tuple[float, TrialRow]


def hyperparameter_scores(results: RunResults, trials: Sequence[TrialRow]) -> Drawing:
    """The figure of a search."""
    names = varied(results)
    trials = list(map(results.active_row, trials))
    conditional = any(dimension.when for dimension in results.plan.space.values())
    caption = (
        "One mark per trial: filled where it was trained to the end, hollow where it ended early (its score is the "
        "best of fewer epochs); the ring is the best. "
        + "A panel leaves out the trials in which its hyperparameter was not searched. " * conditional
        + score_basis(results)
    )
    alt = f"Scatter of the selection score against {', '.join(names) or 'nothing'}, a panel each."
    return Drawing(
        "Hyperparameters against selection score",
        caption,
        alt,
        lambda: draw(trials, names, logarithmic(results)),
    )


def searched(results: RunResults) -> list[str]:
    """The hyperparameters of the search space, in the order of `TrialConfig`; empty for a sweep."""
    return [parameter.name for parameter in hyperparameters() if parameter.name in results.plan.space]


def logarithmic(results: RunResults) -> frozenset[str]:
    """The hyperparameters that are searched by factors."""
    return frozenset(name for name, dimension in results.plan.space.items() if dimension.log)


def few_values(name: str, values: Sequence[Any]) -> bool:
    """Whether an axis shows each of the `values` of a hyperparameter: names, switches, and few whole numbers."""
    kind = {parameter.name: parameter.type for parameter in hyperparameters()}[name]
    return kind in (str, bool) or (kind is int and len(set(values)) <= 5)


def draw(trials: Sequence[TrialRow], names: Sequence[str], logarithmic: frozenset[str]) -> Figure | None:
    """Selection score against each hyperparameter in `names`, one panel each; trials that ended early are hollow.

    Failed and diverged trials are left out, as they are of the leaderboard.
    """
    out = ("failed", "diverged")
    scored = [(t.selection_score, t) for t in trials if t.selection_score is not None and t.status not in out]
    names = [name for name in names if len({t.config[name] for _, t in scored if name in t.config}) > 1]
    if not names:
        return None
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(WIDTH, 0.45 + 2.0 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    best = max(scored, key=lambda pair: pair[0])
    for axes, name in zip(grid.flat, names, strict=False):
        _draw_panel(axes, scored, best, name, log=name in logarithmic)
    for axes in list(grid.flat)[len(names) :]:
        axes.set_axis_off()
    for row in grid:
        row[0].set_ylabel("selection score")
    figure.legend(*unique_handles(grid.flat), loc="outside lower center", ncols=4)
    return figure


def _draw_panel(axes: Axes, scored: Sequence[_Scored], best: _Scored, name: str, *, log: bool) -> None:
    present = [pair for pair in scored if name in pair[1].config]
    values: list[Any] = [trial.config[name] for _, trial in present]
    named = isinstance(values[0], str | bool)
    groups = [
        ("trained to the end", [p for p in present if p[1].status == "finished"], COLOURS[0], COLOURS[0]),
        ("not trained to the end", [p for p in present if p[1].status != "finished"], "white", COLOURS[0]),
        ("best", [p for p in present if p is best], "none", COLOURS[1]),
    ]
    for label, own, face, edge in groups:
        if own:
            x: list[Any] = [str(t.config[name]) if named else t.config[name] for _, t in own]
            y = [score for score, _ in own]
            size = 80 if label == "best" else mark_size(len(scored))
            axes.scatter(x, y, size, face, edgecolors=edge, linewidths=1.2, label=label)
    if log and not named and min(values) > 0:
        axes.set_xscale("log")
        label_log_axis(axes.xaxis)
    elif not named and few_values(name, values):
        axes.set_xticks(sorted(set(values)))
    axes.set_xlabel(described(name))
