"""The Optuna study that is made of a run's table."""

from __future__ import annotations

import optuna
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from tests.searchruns import SPACE, search_results, spread
from tune.drawing.tablestudy import front_study, score_study, searched


def test_trials_keep_their_order_state_score_and_values() -> None:
    results = search_results(
        [
            {"selection_score": 0.5, "temperature": 0.2},
            {"selection_score": 0.4, "status": "stopped", "epochs_run": 3},
            {"selection_score": None, "status": "failed"},
            {"selection_score": 0.3, "status": "diverged"},
        ]
    )
    study = score_study(results, results.trials.to_pylist())
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL]
    assert [trial.state for trial in study.trials] == states
    assert [trial.values for trial in study.trials] == [[0.5], [0.4], None, None]
    assert study.best_trial.number == 0
    assert study.trials[0].params["temperature"] == 0.2
    assert study.trials[0].distributions == SPACE
    assert searched(results) == list(SPACE)


def test_values_outside_the_planned_space_make_a_space_of_their_own() -> None:
    results = search_results(
        [
            {"selection_score": 0.5, "temperature": 2.0, "hidden_dim": 32, "momentum": 0.5},
            {"selection_score": 0.6, "temperature": 0.1, "hidden_dim": 64, "momentum": 0.9},
        ],
        base=None,
    )
    study = score_study(results, results.trials.to_pylist())
    distributions = study.trials[0].distributions
    assert distributions["temperature"] == FloatDistribution(0.1, 2.0, log=True)
    assert distributions["momentum"] == FloatDistribution(0.5, 0.9)
    assert distributions["hidden_dim"] == CategoricalDistribution([32, 64])


def test_making_a_study_leaves_optunas_log_as_it_was() -> None:
    before = optuna.logging.get_verbosity()
    results = search_results(spread(3))
    score_study(results, results.trials.to_pylist())
    assert optuna.logging.get_verbosity() == before


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), min_size=1, max_size=8))
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    trials = [{"parameters": size, "ap_trapezoid": ap / 10} for size, ap in points]
    study = front_study([*trials, {"parameters": 1, "ap_trapezoid": None}], "ap_trapezoid", 100)
    assert len(study.trials) == len(points)
    expected = {
        (size, 10 * ap)
        for size, ap in points
        if not any(
            (other <= size and better >= ap) and (other, better) != (size, ap) for other, better in points
        )
    }
    assert {(x, round(y, 6)) for x, y in (trial.values for trial in study.best_trials)} == expected
