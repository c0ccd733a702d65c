"""The view of a study: stopped trials compared with finished ones at equal epochs; the study stays as it is."""

from __future__ import annotations

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from tune.algorithms.study_view import view_of

SPACE: dict[str, optuna.distributions.BaseDistribution] = {
    "x": optuna.distributions.FloatDistribution(0.0, 1.0)
}


def row(state: TrialState, *scores: float) -> FrozenTrial:
    ended = state in (TrialState.COMPLETE, TrialState.PRUNED)
    return create_trial(
        state=state,
        value=scores[-1] if ended else None,
        params={"x": len(scores) / 10},
        distributions=SPACE,
        intermediate_values=dict(enumerate(scores, start=1)),
    )


def seen(*rows: FrozenTrial) -> list[tuple[TrialState, float | None]]:
    view = view_of(rows, RandomSampler(seed=0))
    return [(trial.state, trial.value) for trial in view.trials]


COMPLETE, PRUNED, RUNNING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING


def test_a_stopped_trial_is_finished_and_lies_as_far_from_the_others_as_at_its_last_epoch() -> None:
    finished = [row(COMPLETE, 0.1, 0.4, 0.6), row(COMPLETE, 0.2, 0.3, 0.7), row(COMPLETE, 0.3, 0.5, 0.9)]
    found = seen(*finished, row(PRUNED, 0.1, 0.2), row(PRUNED, 0.05))
    assert [score for _, score in found[:3]] == [0.6, 0.7, 0.9]
    # From the second epoch on they gained 0.2, 0.4 and 0.4; from the first on 0.5, 0.5 and 0.6.
    assert [score for _, score in found[3:]] == [pytest.approx(0.6), pytest.approx(0.55)]
    assert {state for state, _ in found} == {COMPLETE}


def test_before_any_trial_has_finished_stopped_ones_are_as_they_are() -> None:
    assert seen(row(PRUNED, 0.1, 0.2), row(PRUNED, 0.3)) == [(COMPLETE, 0.2), (COMPLETE, 0.3)]


def test_what_runs_is_seen_to_run_and_what_failed_is_not_seen() -> None:
    assert seen(row(RUNNING, 0.5), row(TrialState.FAIL, 0.5), row(TrialState.WAITING)) == [(RUNNING, None)]
