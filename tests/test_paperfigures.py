"""AP against one hyperparameter, and the curves of the reported training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import FillBetweenPolyCollection

from tune.drawing.figures import Curves, Group
from tune.drawing.paperfigures import SweptPoint, sweep_curve, training_curves


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
    figure = sweep_curve(points, "momentum", "AP")
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
    figure = sweep_curve([point(1.0, 50.0), point(2.0, 60.0)], "lambda_v2b", "AP")
    assert figure is not None
    assert not figure.axes[0].collections
    assert line(figure.axes[0], "this run (one seed)") == [(1, 50), (2, 60)]
    assert sweep_curve([point(1.0, 50.0), point(2.0)], "lambda_v2b", "AP") is None


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
    figure = sweep_curve([point(value, 50.0, 51.0) for value in values], name, "AP")
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_xscale() == scale
    if name == "hidden_dim":
        figure.canvas.draw()
        assert [label.get_text() for label in axes.get_xticklabels()] == ["64", "128", "256"]


def test_the_interval_of_two_seeds_does_not_squeeze_the_picture() -> None:
    wide = SweptPoint(0.9, (80.0, 81.0), 80.5, (0.0, 100.0), None, None)
    figure = sweep_curve([wide, point(0.95, 82.0, 83.0)], "momentum", "AP")
    assert figure is not None
    low, high = figure.axes[0].get_ylim()
    assert 77 < low < 80
    assert 83 < high < 86


def epochs(kind: str, name: str, *rows: tuple[float | None, float, float | None]) -> Curves:
    return {
        (kind, name): [
            {"epoch": n, "video_accuracy": a, "loss_mil": b, "loss_v2b": c, "loss_v2n": c}
            for n, (a, b, c) in enumerate(rows, start=1)
        ]
    }


def test_panels_share_the_epochs_and_the_mean_is_over_those_that_all_seeds_have() -> None:
    curves = {
        **epochs("search", "0", (0.5, 1.0, 2.0), (0.7, 0.5, 1.0), (0.9, 0.1, 0.5)),
        **epochs("search", "1", (0.7, 3.0, 4.0), (0.9, 1.5, 3.0)),
    }
    trials = tuple({"kind": "search", "trial_id": name} for name in ("0", "1"))
    figure = training_curves([Group("row", trials)], curves)
    assert figure is not None
    accuracy, bce, contrastive = figure.axes
    assert accuracy.get_shared_x_axes().joined(accuracy, contrastive)
    np.testing.assert_allclose(line(accuracy, "row: mean of 2 seeds"), [(1, 60), (2, 80)])
    assert line(bce, "row: mean of 2 seeds") == [(1, 2), (2, 1)]
    assert line(contrastive, "row: mean of 2 seeds") == [(1, 6), (2, 4)]
    assert len(accuracy.get_lines()) == 3


def test_what_was_not_measured_has_no_panel() -> None:
    curves = epochs("refit", "0", (None, 1.0, None), (None, 0.5, None))
    figure = training_curves([Group("refit", ({"kind": "refit", "trial_id": "0"},))], curves)
    assert figure is not None
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["MIL loss (BCE)"]
    assert training_curves([Group("none", ({"kind": "refit", "trial_id": "1"},))], curves) is None
