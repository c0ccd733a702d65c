"""AP against one hyperparameter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import FillBetweenPolyCollection

from tune.reporting.figures.sweep_curve import SweptPoint, draw


def point(value: float, *seeds: float, **own: Any) -> SweptPoint:
    mean = sum(seeds) / len(seeds) if seeds else None
    interval = (min(seeds) - 1, max(seeds) + 1) if len(seeds) > 1 else None
    return SweptPoint(value, seeds, mean, interval, own.get("best"), own.get("published"))


def line(axes: Axes, start: str) -> list[tuple[float, float]]:
    (found,) = (item for item in axes.get_lines() if str(item.get_label()).startswith(start))
    return list(zip(np.asarray(found.get_xdata()), np.asarray(found.get_ydata()), strict=True))


def test_the_curve_runs_through_the_means_in_the_order_of_values() -> None:
    points = [
        point(0.99, 80.0, 82.0, best=83.0),
        point(0.91, 84.0, 86.0, best=87.0, published=83.4),
        point(0.95),
    ]
    figure = draw(points, "momentum", "AP")
    assert figure is not None
    (axes,) = figure.axes
    assert line(axes, "last epoch") == [(0.91, 85), (0.99, 81)]
    assert line(axes, "best test epoch") == [(0.91, 87), (0.99, 83)]
    assert line(axes, "paper, in text") == [(0.91, 83.4)]
    assert line(axes, "paper's 0.91")[0][0] == 0.91
    seeds = [
        np.asarray(item.get_ydata()).tolist() for item in axes.get_lines() if item.get_label() == "one seed"
    ]
    assert seeds == [[84, 86], [80, 82]]
    (band,) = (item for item in axes.collections if isinstance(item, FillBetweenPolyCollection))
    edges = np.asarray(band.get_paths()[0].vertices)
    assert (edges[:, 1].min(), edges[:, 1].max()) == (79, 87)
    low, high = axes.get_ylim()
    assert low < 80
    assert high > 87


def test_one_seed_has_no_band_and_one_value_no_curve() -> None:
    figure = draw([point(1.0, 50.0), point(2.0, 60.0)], "lambda_v2b", "AP")
    assert figure is not None
    assert not figure.axes[0].collections
    assert line(figure.axes[0], "this run (one seed)") == [(1, 50), (2, 60)]
    assert draw([point(1.0, 50.0), point(2.0)], "lambda_v2b", "AP") is None


@pytest.mark.parametrize(
    ("name", "values", "scale"),
    [
        ("temperature", (0.05, 0.1, 0.2), "log"),
        ("hidden_dim", (64, 128, 256), "log"),
        ("learning_rate", (1e-4, 1e-2), "log"),
        ("momentum", (0.81, 1.0), "linear"),
        ("lambda_v2b", (0.0, 4.0), "linear"),
    ],
)
def test_scales_fit_the_hyperparameter(name: str, values: tuple[float, ...], scale: str) -> None:
    figure = draw([point(value, 50.0, 51.0) for value in values], name, "AP")
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_xscale() == scale
    if name == "hidden_dim":
        figure.canvas.draw()
        assert [label.get_text() for label in axes.get_xticklabels()] == ["64", "128", "256"]


def test_the_interval_of_two_seeds_does_not_squeeze_the_picture() -> None:
    wide = SweptPoint(0.9, (80.0, 81.0), 80.5, (0.0, 100.0), None, None)
    figure = draw([wide, point(0.95, 82.0, 83.0)], "momentum", "AP")
    assert figure is not None
    low, high = figure.axes[0].get_ylim()
    assert 77 < low < 80
    assert 83 < high < 86
