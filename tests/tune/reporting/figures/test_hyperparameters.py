"""The selection score against each hyperparameter."""

from __future__ import annotations

import numpy as np

from tests.support.made_runs import SPACE, conditional_results, search_results, spread
from tune.reporting.figures.hyperparameters import draw, hyperparameter_scores


def test_failed_trials_have_no_mark_and_stopped_ones_are_hollow() -> None:
    trials = search_results(
        [*spread(5, 2), {"selection_score": 2.0, "status": "failed", "temperature": 0.5}]
    ).trial_rows
    figure = draw(trials, list(SPACE), frozenset({"temperature"}))
    assert figure is not None
    assert len(figure.axes) == 6
    panel = next(axes for axes in figure.axes if axes.get_xlabel() == "temperature (τ)")
    assert panel.get_xscale() == "log"
    points = {str(c.get_label()): np.asarray(c.get_offsets()) for c in panel.collections}
    assert [len(points[name]) for name in ("trained to the end", "not trained to the end", "best")] == [
        3,
        2,
        1,
    ]
    assert points["best"][0, 1] == max(trial.selection_score or 0.0 for trial in trials[:5])


def test_a_panel_leaves_out_the_trials_in_which_its_hyperparameter_was_not_searched() -> None:
    results = conditional_results(9)
    drawing = hyperparameter_scores(results, results.trial_rows)
    assert "A panel leaves out the trials" in drawing.caption
    figure = drawing.draw()
    assert figure is not None
    marks = {
        axes.get_xlabel(): len(np.asarray(axes.collections[0].get_offsets()))
        for axes in figure.axes
        if axes.collections
    }
    assert marks["temperature (τ)"] == 6
    assert marks["momentum (m)"] == 9
