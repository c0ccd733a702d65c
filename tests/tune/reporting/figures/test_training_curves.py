"""Curves of the reported training."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from tests.support.made_runs import trial_rows
from tune.reporting.figures.epochs import Curves, Group
from tune.reporting.figures.training_curves import draw
from tune.results.rows import EpochRow


def line(axes: Axes, start: str) -> list[tuple[float, float]]:
    (found,) = (item for item in axes.get_lines() if str(item.get_label()).startswith(start))
    return list(zip(np.asarray(found.get_xdata()), np.asarray(found.get_ydata()), strict=True))


def epochs(kind: str, name: str, *rows: tuple[float | None, float, float | None]) -> Curves:
    return {
        (kind, name): [
            EpochRow(trial_id=name, kind=kind, epoch=n, video_accuracy=a, loss_mil=b, loss_v2b=c, loss_v2n=c)
            for n, (a, b, c) in enumerate(rows, start=1)
        ]
    }


def test_panels_share_the_epochs_and_the_mean_is_over_those_that_all_seeds_have() -> None:
    curves = {
        **epochs("search", "0", (0.5, 1.0, 2.0), (0.7, 0.5, 1.0), (0.9, 0.1, 0.5)),
        **epochs("search", "1", (0.7, 3.0, 4.0), (0.9, 1.5, 3.0)),
    }
    trials = tuple(trial_rows({"trial_dir": name} for name in ("0", "1")))
    figure = draw([Group("row", trials)], curves)
    assert figure is not None
    accuracy, bce, contrastive = figure.axes
    assert accuracy.get_shared_x_axes().joined(accuracy, contrastive)
    np.testing.assert_allclose(line(accuracy, "row: mean of 2 seeds"), [(1, 60), (2, 80)])
    assert line(bce, "row: mean of 2 seeds") == [(1, 2), (2, 1)]
    assert line(contrastive, "row: mean of 2 seeds") == [(1, 6), (2, 4)]
    assert len(accuracy.get_lines()) == 3


def test_what_was_not_measured_has_no_panel() -> None:
    curves = epochs("refit", "0", (None, 1.0, None), (None, 0.5, None))
    refit, other = trial_rows({"trial_dir": name, "kind": "refit"} for name in ("0", "1"))
    figure = draw([Group("refit", (refit,))], curves)
    assert figure is not None
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["MIL loss (BCE)"]
    assert draw([Group("none", (other,))], curves) is None
