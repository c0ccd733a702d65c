"""The optimisation history: marks of both kinds of trials, and the running best."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from macil.errors import DataError
from tests.support.made_runs import search_results, spread
from tune.reporting.figures.history import draw, history


def test_the_history_shows_trials_that_were_stopped_too() -> None:
    results = search_results(spread(12, 4))
    figure = draw(results.trial_rows)
    (axes,) = figure.axes
    ended, stopped = axes.collections
    assert [len(np.asarray(marks.get_offsets())) for marks in (ended, stopped)] == [8, 4]
    assert np.asarray(stopped.get_offsets())[:, 0].tolist() == [8, 9, 10, 11]
    assert not np.array_equal(np.asarray(ended.get_facecolor()), np.asarray(stopped.get_facecolor()))
    assert {text.get_text() for text in figure.legends[0].texts} == {
        "trained to the end",
        "stopped early",
        "best so far",
    }


def test_the_line_is_the_best_of_those_that_ended_and_reaches_the_last_trial() -> None:
    trials: list[dict[str, Any]] = [
        {"status": "failed", "selection_score": None},
        {"status": "finished", "selection_score": 0.5},
        {"status": "finished", "selection_score": 0.4},
        {"status": "stopped", "selection_score": 0.9},
        {"status": "finished", "selection_score": 0.7},
        {"status": "stopped", "selection_score": 0.1},
    ]
    results = search_results(trials)
    rows = results.trial_rows
    (best,) = draw(rows).axes[0].get_lines()
    points = zip(np.asarray(best.get_xdata()).tolist(), np.asarray(best.get_ydata()).tolist(), strict=True)
    assert list(points) == [(1, 0.5), (2, 0.5), (4, 0.7), (5, 0.7)]
    alt = history(results, rows).alt
    assert alt == (
        "3 trials trained to the end and 2 stopped early; the best score, 0.7000, is that of trial 4."
    )
    with pytest.raises(DataError, match="no trial was trained to the end yet"):
        history(results, rows[:1])
