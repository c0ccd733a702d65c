"""AP against parameters: the front is what nothing beats."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.support.made_runs import search_results
from tune.reporting.figures.pareto_front import draw, front, pareto_front


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), min_size=1, max_size=8))
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    expected = {
        (size, value)
        for size, value in points
        if not any(
            (other <= size and better >= value) and (other, better) != (size, value)
            for other, better in points
        )
    }
    assert front(points) == sorted(expected)


def test_the_front_is_marked_and_the_reference_ringed() -> None:
    points = [(100.0, 0.5), (200.0, 0.7), (200.0, 0.6), (300.0, 0.65)]
    (axes,) = draw(points, "score", ((200.0, 0.6), "reference")).axes
    marks = {str(c.get_label()): np.asarray(c.get_offsets()).tolist() for c in axes.collections}
    assert marks == {
        "no trial is smaller and better": [[100, 0.5], [200, 0.7]],
        "other trials": [[200, 0.6], [300, 0.65]],
        "reference": [[200, 0.6]],
    }


def test_the_figure_is_of_ranked_trials_with_what_was_measured_in_percent() -> None:
    trials: list[dict[str, Any]] = [
        {"selection_score": 0.5, "ap_trapezoid": 0.4, "hidden_dim": 64},
        {"selection_score": 0.6, "ap_trapezoid": 0.7, "hidden_dim": 128},
        {"selection_score": 0.7, "ap_trapezoid": None, "hidden_dim": 256},
        {"selection_score": 0.9, "ap_trapezoid": 0.9, "hidden_dim": 32, "status": "failed"},
    ]
    drawing = pareto_front(search_results(trials))
    assert drawing is not None
    assert drawing.alt == "The front: 64,000 parameters, 40; 128,000 parameters, 70."
    closed = pareto_front(search_results([{**trial, "ap_trapezoid": None} for trial in trials]))
    assert closed is not None
    assert closed.alt.endswith("256,000 parameters, 0.7.")
    assert "Selection score (the test AP has not been measured)" in closed.caption
    assert pareto_front(search_results([{**trial, "hidden_dim": 64} for trial in trials])) is None
