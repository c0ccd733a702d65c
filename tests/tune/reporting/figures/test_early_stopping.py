"""The picture of early stopping: rungs, bars, and the share that was saved."""

from __future__ import annotations

import matplotlib.patches
import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.support.made_runs import search_results, spread, trial_rows
from tune.reporting.figures.early_stopping import draw, saved_share, stopping


def test_a_run_without_early_stopping_has_no_picture() -> None:
    results = search_results(spread(4), stopping=None)
    assert stopping(results, results.trial_rows) is None


def test_a_rule_without_rungs_has_a_picture_without_them() -> None:
    results = search_results(spread(6, 3), stopping={"rule": "median", "grace": 2, "others": 3})
    drawing = stopping(results, results.trial_rows)
    assert drawing is not None
    assert "the median rule: a trial below the median" in drawing.caption
    figure = drawing.draw()
    assert figure is not None
    assert not figure.axes[0].texts


def test_what_failed_saved_nothing() -> None:
    ways = [("finished", 10), ("stopped", 4), ("failed", 1), ("running", 2)]
    trials = trial_rows(
        {"trial_dir": status, "status": status, "epochs": 10, "epochs_run": run} for status, run in ways
    )
    assert saved_share(trials) == pytest.approx(1 - 14 / 20)
    assert saved_share(trials[2:]) is None


def bars(figure: Figure) -> dict[str, np.ndarray]:
    found = {}
    for patch in figure.axes[0].patches:
        assert isinstance(patch, matplotlib.patches.StepPatch)
        found[str(patch.get_label())] = np.asarray(patch.get_data()[0])[::2]
    return found


def test_bars_are_the_epochs_of_the_trials_in_their_order() -> None:
    results = search_results([*spread(5, 2), {"status": "failed", "epochs_run": 1, "selection_score": None}])
    trials = results.trial_rows
    figure = draw(trials, [1, 3], "in the order of start")
    assert figure is not None
    heights = bars(figure)
    assert heights["trained to the end"].tolist() == [9, 9, 9, 0, 0, 0]
    assert heights["stopped early"].tolist() == [0, 0, 0, 3, 3, 0]
    assert heights["failed or unfinished"].tolist() == [0, 0, 0, 0, 0, 1]
    assert [text.get_text() for text in figure.axes[0].texts] == ["1: 5 went on", "3: 3 went on"]


def test_title_and_caption_say_what_was_saved() -> None:
    results = search_results(spread(6, 3))
    drawing = stopping(results, results.trial_rows)
    assert drawing is not None
    assert drawing.title == "Early stopping: 33 % of the epochs saved"
    assert "36 in all; 6 whole trainings would have taken 54, of which 33 % were saved" in drawing.caption
    assert "ASHA: the best third goes on after 1 and 3 epochs" in drawing.caption


def test_many_trials_are_sorted_and_none_is_lost() -> None:
    results = search_results(spread(80, 50))
    drawing = stopping(results, list(reversed(results.trial_rows)))
    assert drawing is not None
    figure = drawing.draw()
    assert figure is not None
    assert "sorted" in figure.axes[0].get_xlabel()
    heights = sum(bars(figure).values())
    assert heights.tolist() == [9] * 30 + [3] * 50  # type: ignore[union-attr]
