"""AP against the number of parameters, and the trials that no other beats in both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from macil.io.pictures import BLACK, COLOURS, WIDTH
from tune.reporting.figures.axes import mark_size, unique_handles
from tune.reporting.figures.captions import ONE_SEED, basis
from tune.reporting.figures.drawing import Drawing
from tune.reporting.statistics.reference import reference_called
from tune.results.ranking import ranked_trials, reference_trial
from tune.results.rows import TrialRow
from tune.results.run import RunResults

Point = tuple[float, float]


def pareto_front(results: RunResults) -> Drawing | None:
    """The figure of a search whose ranked trials differ in size."""
    ranked = ranked_trials(results)
    if len({trial.parameters for trial in ranked} - {None}) < 2:
        return None  # without different sizes there is nothing to trade
    measured = any(trial.ap_trapezoid is not None and trial.parameters is not None for trial in ranked)
    label = "test AP (%), trapezoidal" if measured else "selection score"
    points = [point for trial in ranked if (point := _point(trial, measured=measured)) is not None]
    reference = reference_trial(results)
    ringed = None
    if reference is not None and (point := _point(reference, measured=measured)) is not None:
        ringed = (point, reference_called(reference))
    what = "Test AP" if measured else "Selection score (the test AP has not been measured)"
    caption = (
        f"{what} against parameters in use, of all ranked trials, those stopped early included. Diamonds: no trial is "
        f"both smaller and better.{' A look back: no trial was chosen by it.' if measured else ''}"
        f"{f' Ring: the {ringed[1]}.' if ringed else ''} "
        + basis(results, ONE_SEED, definition="ap_trapezoid" if measured else None)
    )
    alt = "The front: " + "; ".join(f"{x:,.0f} parameters, {y:.4g}" for x, y in front(points)) + "."
    return Drawing("AP against parameters", caption, alt, lambda: draw(points, label, ringed))


def _point(trial: TrialRow, *, measured: bool) -> Point | None:
    value = trial.ap_trapezoid if measured else trial.selection_score
    if trial.parameters is None or value is None:
        return None
    return trial.parameters, 100 * value if measured else value


def front(points: Iterable[Point]) -> list[Point]:
    """The points that no other one beats: smaller and as good, or better and as small; from the smallest on."""
    found: list[Point] = []
    for size, value in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not found or value > found[-1][1]:
            found.append((size, value))
    return found


def draw(points: Sequence[Point], label: str, ringed: tuple[Point, str] | None) -> Figure:
    """Parameters in use against `label`; the front joined by steps, a ring around the point `ringed` with its name."""
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    best = front(points)
    others = [point for point in points if point not in best]
    if others:
        x, y = zip(*others, strict=True)
        style: Any = {"facecolors": "white", "edgecolors": COLOURS[0], "linewidths": 1.1}
        axes.scatter(x, y, mark_size(len(points)), label="other trials", zorder=2, **style)
    x, y = zip(*best, strict=True)
    axes.plot(x, y, color=COLOURS[1], linewidth=1, drawstyle="steps-post", zorder=1)
    axes.scatter(x, y, 34, COLOURS[1], marker="D", label="no trial is smaller and better", zorder=4)
    if ringed is not None:
        point, name = ringed
        axes.scatter(*point, 110, facecolors="none", edgecolors=BLACK, linewidths=1.3, label=name, zorder=5)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set(xlabel="parameters in use", ylabel=label)
    figure.legend(*unique_handles([axes]), loc="outside lower center", ncols=3)
    return figure
