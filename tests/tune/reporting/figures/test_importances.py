"""Importances are Optuna's, of trials that are made from the table, with an interval over drawn trials."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, create_trial

from macil.errors import DataError
from tests.support.made_runs import SPACE, conditional_results, search_results, spread
from tune.algorithms.asking import distributions
from tune.reporting.figures import importances as module
from tune.reporting.figures.hyperparameters import searched
from tune.reporting.figures.importances import (
    Share,
    _importances_of,
    draw,
    frozen_trials,
    importances,
    shares,
)


def ended(count: int) -> list[FrozenTrial]:
    results = search_results(spread(count))
    return frozen_trials(results, results.trial_rows)


def optunas(trials: list[FrozenTrial]) -> dict[str, float]:
    """What Optuna makes of the same trials in a study of its own."""
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        create_trial(value=trial.value, params=trial.params, distributions=trial.distributions)
        for trial in trials
    )
    return optuna.importance.get_param_importances(study)


def test_importances_are_optunas_with_an_interval_over_drawn_trials() -> None:
    trials = ended(60)
    found = shares(trials, 20)
    whole = optunas(trials)
    assert {name: share.value for name, share in found.items()} == whole
    assert list(found) == list(whole), "the largest first"
    assert len(found) == len(SPACE)
    assert all(0 <= share.low < share.high <= 1 for share in found.values())
    assert shares(trials, 20) == found


def test_trials_that_were_drawn_twice_count_twice() -> None:
    trials = ended(60)
    twice = [trials[index % 40] for index in range(60)]
    assert _importances_of(twice) == optunas(twice) != optunas(trials[:40])


def test_making_a_study_leaves_optunas_log_as_it_was() -> None:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    try:
        _importances_of(ended(20))
        assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    finally:
        optuna.logging.set_verbosity(before)


def test_bars_name_symbols_and_have_lines() -> None:
    made = {"temperature": Share(0.7, 0.5, 0.8), "momentum": Share(0.3, 0.1, 0.6)}
    (axes,) = draw(made).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["temperature (τ)", "momentum (m)"]
    assert [patch.get_bbox().width for patch in axes.patches] == [0.7, 0.3]  # type: ignore[attr-defined]
    assert [list(np.asarray(line.get_xdata())) for line in axes.get_lines()] == [[0.5, 0.8], [0.1, 0.6]]


def test_only_trials_that_were_trained_to_the_end_take_part() -> None:
    results = search_results(
        [
            {"selection_score": 0.5, "temperature": 0.2},
            {"selection_score": 0.4, "status": "stopped", "epochs_run": 3},
            {"selection_score": None, "status": "failed"},
            {"selection_score": 0.3, "status": "diverged"},
            {"selection_score": 0.6},
        ]
    )
    trials = frozen_trials(results, results.trial_rows)
    assert [trial.values for trial in trials] == [[0.5], [0.6]]
    assert trials[0].params["temperature"] == 0.2
    assert trials[0].distributions == distributions(SPACE)
    assert searched(results) == list(SPACE)


def test_values_outside_the_planned_space_make_a_space_of_their_own() -> None:
    values: list[dict[str, Any]] = [
        {"selection_score": 0.5, "temperature": 2.0, "hidden_dim": 32, "momentum": 0.5},
        {"selection_score": 0.6, "temperature": 0.1, "hidden_dim": 64, "momentum": 0.9},
    ]
    plans: list[dict[str, Any]] = [{}, {"base": None}]
    for base in plans:  # a plan that does not hold them, and none
        results = search_results(values, **base)
        distributions = frozen_trials(results, results.trial_rows)[0].distributions
        assert distributions["temperature"] == FloatDistribution(0.1, 2.0, log=True)
        assert distributions["hidden_dim"] == CategoricalDistribution([32, 64])
    assert distributions["momentum"] == FloatDistribution(0.5, 0.9)


def test_importances_are_drawn_from_fifty_trials_on_with_their_intervals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RESAMPLES", 3)
    fewer, enough = (search_results(spread(60, stopped=stopped)) for stopped in (11, 10))
    with pytest.raises(DataError, match="49 of 60 trials were trained to the end; at least 50 are needed"):
        importances(fewer, fewer.trial_rows)
    drawing = importances(enough, enough.trial_rows)
    assert drawing is not None
    assert (
        "from the 50 trials that were trained to the end; those stopped early take no part" in drawing.caption
    )
    assert "Lines: 95 % interval, from 3 sets" in drawing.caption
    assert "no interval" not in drawing.caption
    figure = drawing.draw()
    assert figure is not None
    assert len(figure.axes[0].patches) == len(SPACE)


def test_importances_count_a_training_once() -> None:
    trials = spread(45)
    results = search_results([*trials, *trials[:7]])
    with pytest.raises(DataError, match=r"45 of 45 .* the end \(7 trials repeated another's training\)"):
        importances(results, results.trial_rows)


def test_nothing_can_matter_where_all_scores_are_equal() -> None:
    results = search_results([{**trial, "selection_score": 0.5} for trial in spread(50)])
    with pytest.raises(DataError, match="the same score"):
        importances(results, results.trial_rows)


def test_what_was_searched_under_a_condition_has_no_importance() -> None:
    results = conditional_results(90)
    drawing = importances(results, results.trial_rows)
    assert drawing is not None
    assert "What was searched under a condition has none" in drawing.caption
    assert "temperature" not in drawing.alt
    assert "momentum" in drawing.alt
    two = {name: results.plan.space[name] for name in ("contrast", "temperature")}
    few = replace(results, plan=results.plan.model_copy(update={"space": two}))
    with pytest.raises(DataError, match="fewer than two hyperparameters were searched in every trial"):
        importances(few, few.trial_rows)
