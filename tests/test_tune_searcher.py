from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from macil.config import TrialConfig
from tune.searcher import REASON, TRIAL_ID, StudySearch, load_study
from tune.space import Space, published_point, search_space

EPOCHS = 4
SPACE: Space = search_space(TrialConfig())


def make(folder: Path, seed: int = 0) -> StudySearch:
    return StudySearch(
        SPACE,
        folder / "study.journal",
        seed=seed,
        epochs=EPOCHS,
        startup=3,
        first=(published_point(SPACE),),
    )


def result(epoch: int, score: float | None, **more: Any) -> dict[str, Any]:
    return {"training_iteration": epoch, "selection_score": score, **more}


def score_of(suggestion: dict[str, Any]) -> float:
    return round(1 / (1 + abs(suggestion["lambda_v2b"] - 2) + suggestion["temperature"]), 6)


def run_trials(searcher: StudySearch, first: int, last: int) -> list[dict[str, Any]]:
    """One trial at a time, `first` to `last`; every third one is stopped early."""
    suggestions = []
    for number in range(first, last):
        suggestion = searcher.suggest(f"t{number}")
        assert suggestion is not None
        suggestions.append(suggestion)
        end = 2 if number % 3 == 2 else EPOCHS
        for epoch in range(1, end):
            searcher.on_trial_result(f"t{number}", result(epoch, score_of(suggestion) * epoch / EPOCHS))
        searcher.on_trial_complete(f"t{number}", result(end, score_of(suggestion) * end / EPOCHS))
    return suggestions


def test_the_papers_best_point_comes_first_and_numbers_count_from_zero(tmp_path: Path) -> None:
    suggestions = run_trials(make(tmp_path), 0, 2)
    defaults = TrialConfig()
    assert {name: suggestions[0][name] for name in SPACE} == {name: getattr(defaults, name) for name in SPACE}
    assert [suggestion["number"] for suggestion in suggestions] == [0, 1]


def test_every_suggestion_is_a_valid_configuration(tmp_path: Path) -> None:
    for suggestion in run_trials(make(tmp_path), 0, 12):
        TrialConfig().replace(**{name: suggestion[name] for name in SPACE})


def test_suggestions_are_a_function_of_seed_and_study(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
    random.seed(1)
    one = run_trials(make(tmp_path / "a"), 0, 8)
    random.seed(2)
    assert run_trials(make(tmp_path / "b"), 0, 8) == one
    assert run_trials(make(tmp_path / "c", seed=1), 0, 8)[1:] != one[1:]


def test_a_restored_searcher_suggests_what_the_unbroken_one_does(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    unbroken = run_trials(make(tmp_path / "a"), 0, 9)

    before = make(tmp_path / "b")
    suggestions = run_trials(before, 0, 5)
    before.save(str(tmp_path / "state"))
    after = make(tmp_path / "b")
    after.restore(str(tmp_path / "state"))
    assert suggestions + run_trials(after, 5, 9) == unbroken


def test_the_first_point_is_enqueued_once(tmp_path: Path) -> None:
    before = make(tmp_path)
    before.save(str(tmp_path / "state"))
    after = make(tmp_path)
    after.restore(str(tmp_path / "state"))
    run_trials(after, 0, 3)
    study = load_study(tmp_path / "study.journal")
    assert [trial.state for trial in study.trials].count(TrialState.WAITING) == 0
    assert len(study.trials) == 3
    assert study.trials[0].params == published_point(SPACE)
    assert study.trials[1].params != published_point(SPACE)


def test_the_study_says_how_every_trial_ended(tmp_path: Path) -> None:
    searcher = make(tmp_path)
    for number in range(5):
        searcher.suggest(f"t{number}")
    searcher.on_trial_result("t0", result(1, 0.5))
    searcher.on_trial_complete("t0", result(EPOCHS, 0.75))
    searcher.on_trial_result("t1", result(1, 0.25))
    searcher.on_trial_complete("t1", result(2, 0.3))
    searcher.on_trial_result("t2", result(1, 0.4))
    searcher.on_trial_complete("t2", result(2, None, diverged=True, reason="diverged in epoch 2: NaN"))
    searcher.on_trial_complete("t3", error=True)
    searcher.on_trial_result("t4", result(1, float("nan")))
    searcher.on_trial_complete("t4", result(2, float("nan")))

    trials = load_study(tmp_path / "study.journal").trials
    assert [trial.state for trial in trials] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.FAIL,
        TrialState.FAIL,
    ]
    assert trials[0].value == 0.75
    assert trials[0].intermediate_values == {1: 0.5, EPOCHS: 0.75}
    assert trials[1].intermediate_values == {1: 0.25, 2: 0.3}
    assert trials[2].user_attrs[REASON] == "diverged in epoch 2: NaN"
    assert trials[2].value is None
    assert trials[4].intermediate_values == {}
    assert [trial.user_attrs[TRIAL_ID] for trial in trials] == [f"t{number}" for number in range(5)]


def test_what_is_told_twice_counts_once(tmp_path: Path) -> None:
    searcher = make(tmp_path)
    searcher.suggest("t0")
    searcher.on_trial_result("t0", result(1, 0.5))
    searcher.on_trial_result("t0", result(1, 0.5))
    searcher.on_trial_complete("t0", result(EPOCHS, 0.75))
    searcher.on_trial_complete("t0", result(EPOCHS, 0.8))
    searcher.on_trial_result("t0", result(EPOCHS, 0.9))
    (trial,) = load_study(tmp_path / "study.journal").trials
    assert trial.intermediate_values == {1: 0.5, EPOCHS: 0.75}
    assert trial.value == 0.75


def test_a_row_the_snapshot_does_not_know_fails_instead_of_running_for_ever(tmp_path: Path) -> None:
    searcher = make(tmp_path)
    searcher.suggest("t0")
    searcher.save(str(tmp_path / "state"))
    searcher.suggest("lost")
    after = make(tmp_path)
    after.restore(str(tmp_path / "state"))
    states = [trial.state for trial in load_study(tmp_path / "study.journal").trials]
    assert states == [TrialState.RUNNING, TrialState.FAIL]


def test_parallel_suggestions_differ(tmp_path: Path) -> None:
    searcher = make(tmp_path)
    run_trials(searcher, 0, 6)
    at_once = [searcher.suggest(f"p{number}") for number in range(4)]
    assert len({tuple(sorted((suggestion or {}).items())) for suggestion in at_once}) == 4
    assert len({(suggestion or {})["lambda_v2b"] for suggestion in at_once}) == 4


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
