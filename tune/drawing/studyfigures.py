"""Optuna's own pictures of a search, in the report's style: history, parallel coordinates, Pareto front.

Its slice plot is not among them: it leaves out every trial that was stopped early, sets all panels in one row, and
tells trials apart by the shade of a blue; `tune.drawing.marks.hyperparameter_scores` shows the same and more. Nor are
its importances, whose bars say nothing of how uncertain they are: theirs is the computation alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import optuna
import optuna.visualization.matplotlib as plots
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from optuna.exceptions import ExperimentalWarning
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from macil.config import hyperparameters
from macil.look import BLACK, COLOURS, WIDTH
from tune.drawing.figures import label_log_axis, mark_size, unique_handles, whole_numbers
from tune.reporting.intervals import LEVEL

SCORE = "selection score"
# Sets of trials that the intervals of the importances rest on.
RESAMPLES = 200
# More lines than this through the same axes are a thicket: all but the best tenth step back.
_MOST_LINES, _SHARE_OF_BEST = 40, 0.1


def history(study: optuna.Study) -> Figure:
    """Score by order of start, and the best so far; hollow marks are trials that were stopped early."""
    with _drawn_by_optuna():
        axes = plots.plot_optimization_history(study, target_name=SCORE)
    figure = _adopt(axes, 3.1)
    stopped = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    size = mark_size(len(study.get_trials(deepcopy=False)))
    ended, infeasible = axes.collections
    infeasible.remove()
    ended.set(facecolor=COLOURS[0], edgecolor="none", sizes=[size], label="trained to the end", zorder=4)
    for line in axes.get_lines():
        line.set(color=COLOURS[1], alpha=1, linewidth=1.4, label="best so far", drawstyle="steps-post")
    if stopped:
        axes.scatter(
            [trial.number for trial in stopped],
            [trial.value or 0.0 for trial in stopped],
            size,
            facecolors="white",
            edgecolors=COLOURS[0],
            linewidths=1.1,
            label="stopped early",
            zorder=3,
        )
    axes.xaxis.set_major_locator(whole_numbers())
    axes.set_xlabel("trial, in the order of start")
    figure.legend(*unique_handles([axes]), loc="outside lower center", ncols=3)
    return figure


class Share(NamedTuple):
    """A hyperparameter's importance, from 0 to 1, with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def shares(study: optuna.Study, resamples: int) -> dict[str, Share]:
    """Importance of each hyperparameter, largest first: PED-ANOVA of the trials that were trained to the end.

    The interval is the percentile interval over sets of as many trials, drawn from them with replacement.

    Args:
        study: Holds trials trained to the end with at least two different values.
        resamples: How many sets are drawn; always the same ones.
    """
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    whole = _importances_of(trials)
    random = np.random.default_rng(0)
    drawn = [
        _importances_of([trials[place] for place in random.integers(0, len(trials), len(trials))])
        for _ in range(resamples)
    ]
    tail = (1 - LEVEL) / 2
    found = {}
    for name, value in whole.items():
        low, high = np.quantile([each[name] for each in drawn], (tail, 1 - tail))
        found[name] = Share(value, float(low), float(high))
    return found


def importances(found: Mapping[str, Share]) -> Figure:
    """Share of each hyperparameter in what sets the best trials apart from all, as bars with their intervals."""
    figure = Figure(figsize=(WIDTH, 0.8 + 0.3 * len(found)), layout="constrained")
    axes = figure.subplots()
    places = range(len(found))
    axes.barh(places, [share.value for share in found.values()], height=0.6, color=COLOURS[0])
    for place, share in zip(places, found.values(), strict=True):
        axes.plot((share.low, share.high), (place, place), color=BLACK, linewidth=1.4, marker="|")
    axes.set_yticks(places, [_described(name) for name in found])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set(xlabel="importance, share, with its 95 % interval", xlim=(0, 1))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    return figure


class _Drawn(InMemoryStorage):
    """A study of trials that are at hand: to add a thousand one by one takes ten times as long as the analysis."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._drawn = []
        for number, trial in enumerate(trials):
            own = copy(trial)  # one that was drawn twice is two trials
            own.number = own._trial_id = number
            self._drawn.append(own)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As Optuna asks for them, never copied: they are only read."""
        del study_id, deepcopy
        return [trial for trial in self._drawn if states is None or trial.state in states]


def _importances_of(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    with _quiet_optuna():
        study = optuna.create_study(direction="maximize", storage=_Drawn(trials))
        return optuna.importance.get_param_importances(study)


def parallel_coordinates(study: optuna.Study, names: Sequence[str]) -> Figure:
    """One line per trial that was trained to the end, through its score and its hyperparameters; dark is good."""
    with _drawn_by_optuna():
        axes = plots.plot_parallel_coordinate(study, params=list(names), target_name=SCORE)
    (lines,) = axes.collections
    assert lines.colorbar is not None
    lines.colorbar.remove()  # the first axis is the same scale
    figure = _adopt(axes, 3.6)
    place = GridSpec(1, 1, figure)[0]
    for other in figure.axes:
        other.set_subplotspec(
            place
        )  # the room that was the colour bar's is of no height, which no layout survives
    dark = ListedColormap(
        mpl.colormaps["cividis_r"](np.linspace(0.2, 1, 256))
    )  # its palest yellow is lost on paper
    scores = np.asarray(lines.get_array())
    if len(scores) > _MOST_LINES:
        best = scores >= np.quantile(scores, 1 - _SHARE_OF_BEST)
        lines.set(cmap=dark, linewidths=np.where(best, 1.1, 0.4), alpha=np.where(best, 0.9, 0.25))
    else:
        lines.set(cmap=dark, linewidth=1.1, alpha=0.85)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="x", length=0)
    axes.set_xticks(range(len(names) + 1), [SCORE, *(_symbol(name) for name in sorted(names))], rotation=0)
    for other in figure.axes:
        if other is not axes:
            _restyle_twin(other)
    return figure


def _restyle_twin(axes: Axes) -> None:
    """One of the upright axes: a line with its numbers on white, since the trials' lines run under them."""
    axes.grid(visible=False)
    axes.spines["right"].set(visible=True, color=mpl.rcParams["axes.edgecolor"], linewidth=0.7)
    if axes.get_yscale() == "log":
        label_log_axis(axes.yaxis)
    axes.tick_params(axis="y", labelsize=7, length=3, colors=BLACK, right=True)
    axes.set_zorder(2)
    axes.patch.set_visible(False)
    for label in axes.get_yticklabels():
        label.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def pareto_front(study: optuna.Study, label: str, ringed: tuple[float, float, str] | None) -> Figure:
    """Parameters in use against `label`; the front joined by steps, a ring around the point `ringed` with its name."""
    with _drawn_by_optuna():
        axes = plots.plot_pareto_front(study, target_names=["parameters in use", label])
    figure = _adopt(axes, 3.4)
    size = mark_size(len(study.get_trials(deepcopy=False)))
    front = sorted({tuple(trial.values) for trial in study.best_trials})
    for points in axes.collections:
        on_front = points.get_label() == "Best Trial"
        points.set(
            facecolor=COLOURS[1] if on_front else "white",
            edgecolor=COLOURS[1] if on_front else COLOURS[0],
            linewidth=1.1,
            sizes=[34 if on_front else size],
            zorder=4 if on_front else 2,
            label="no trial is smaller and better" if on_front else "other trials",
        )
        if on_front:
            points.set_paths(
                [
                    mpl.markers.MarkerStyle("D")
                    .get_path()
                    .transformed(mpl.markers.MarkerStyle("D").get_transform())
                ]
            )
    axes.plot(*zip(*front, strict=True), color=COLOURS[1], linewidth=1, drawstyle="steps-post", zorder=1)
    if ringed is not None:
        axes.scatter(
            *ringed[:2],
            110,
            facecolors="none",
            edgecolors=BLACK,
            linewidths=1.3,
            label=ringed[2],
            zorder=5,
        )
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    figure.legend(*unique_handles([axes]), loc="outside lower center", ncols=3)
    return figure


@contextmanager
def _drawn_by_optuna() -> Iterator[None]:
    """Optuna's plots, which use pyplot and a style of their own; both are as before when this ends."""
    from matplotlib import pyplot as plt

    backend = mpl.get_backend(auto_select=False)
    plt.switch_backend("agg")  # no window, and none asked for
    before = set(plt.get_fignums())
    try:
        with mpl.rc_context(), _quiet_optuna():
            yield
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)
        if backend is not None:
            plt.switch_backend(backend)


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _adopt(axes: Axes, height: float) -> Figure:
    """Take the figure over: size, fonts and colours of the report."""
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    figure.set_layout_engine("constrained")
    figure.set_size_inches(WIDTH, height)
    figure.set_facecolor("white")
    for where in ("left", "center", "right"):
        axes.set_title("", loc=where)
    axes.set_facecolor("white")
    legend = axes.get_legend()
    if legend is not None:
        legend.remove()
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=mpl.rcParams["axes.edgecolor"], linewidth=0.7)
    axes.grid(visible=True, color=mpl.rcParams["grid.color"], linewidth=0.6, linestyle="-")
    axes.set_axisbelow(True)
    axes.tick_params(colors=BLACK, labelsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(fontsize=8.5, color=BLACK)
    for text in figure.findobj(mpl.text.Text):
        text.set(fontfamily=mpl.rcParams["font.family"], parse_math=False)
    return figure


def _described(name: str) -> str:
    symbol = _symbol(name)
    return name if symbol == name else f"{name} ({symbol})"


def _symbol(name: str) -> str:
    return {parameter.name: parameter.symbol for parameter in hyperparameters()}.get(name) or name
