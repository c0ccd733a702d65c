from __future__ import annotations

import logging
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from macil.config import TrialConfig
from macil.errors import DataError
from tests.support.studies import load_study
from tune.algorithms.journal import TRIAL_ID, repair_journal
from tune.algorithms.space import Dimension, Space
from tune.algorithms.study import REASON, SearchStudy
from tune.execution.tune_search import ListSearch, StudySearch
from tune.planning.space import published_point, search_space
from tune.storage.history import TrialHistory
from tune.storage.trial_names import LOGGED, NUMBER

EPOCHS = 4
SPACE: Space = search_space(TrialConfig())


def make(
    folder: Path,
    seed: int = 0,
    histories: dict[int, TrialHistory] | None = None,
    space: Space = SPACE,
) -> StudySearch:
    study = SearchStudy(
        space,
        folder / "study.journal",
        seed=seed,
        epochs=EPOCHS,
        startup=3,
        initial=(published_point(space),),
        histories=histories,
    )
    return StudySearch(study)


def result(epoch: int, score: float | None, **more: Any) -> dict[str, Any]:
    return {"training_iteration": epoch, "selection_score": score, **more}


def score_of(suggestion: dict[str, Any]) -> float:
    return round(1 / (1 + abs(suggestion.get("lambda_v2b", 1.0) - 2) + suggestion.get("temperature", 0.2)), 6)


def run_trials(searcher: StudySearch, first: int, last: int) -> list[dict[str, Any]]:
    """One trial at a time, `first` to `last`; every third one is stopped early."""
    suggestions = []
    for number in range(first, last):
        suggestion = searcher.suggest(f"t{number}")
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
    suggestions = run_trials(make(tmp_path), 0, 12)
    assert len(suggestions) == 12
    for suggestion in suggestions:
        TrialConfig().replace(**{name: suggestion[name] for name in SPACE})


def test_suggestions_are_a_function_of_seed_and_study(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
    random.seed(1)
    one = run_trials(make(tmp_path / "a"), 0, 8)
    random.seed(2)
    assert run_trials(make(tmp_path / "b"), 0, 8) == one
    assert run_trials(make(tmp_path / "c", seed=1), 0, 8)[1:] != one[1:]


def histories_of(folder: Path) -> dict[int, TrialHistory]:
    """What the trials' folders would hold if everything in the study had been logged."""
    histories = {}
    for row in load_study(folder / "study.journal").trials:
        scores: dict[int, float | None] = dict(row.intermediate_values)
        ended = row.state.is_finished()
        histories[row.number] = TrialHistory(
            f"{row.number:05d}", len(scores), scores, done=ended, saved=ended, params=row.params
        )
    return histories


def test_a_resumed_searcher_suggests_what_the_unbroken_one_does(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    unbroken = run_trials(make(tmp_path / "a"), 0, 9)
    suggestions = run_trials(make(tmp_path / "b"), 0, 5)
    after = make(tmp_path / "b", histories=histories_of(tmp_path / "b"))
    assert (after.study.open_rows, after.study.rows) == (0, 5)
    assert suggestions + run_trials(after, 5, 9) == unbroken


def test_what_its_condition_rules_out_is_not_suggested_and_a_lost_study_is_made_again_without_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("optuna"), "propagate", True)
    when = {"contrast": (True,)}
    space = {
        "contrast": Dimension(choices=(True, False)),
        "lambda_v2b": SPACE["lambda_v2b"].model_copy(update={"when": when}),
        "temperature": SPACE["temperature"].model_copy(update={"when": when}),
        "momentum": SPACE["momentum"],
    }
    for name in "ab":
        (tmp_path / name).mkdir()
    unbroken = run_trials(make(tmp_path / "a", space=space), 0, 14)
    assert {suggestion["contrast"] for suggestion in unbroken} == {True, False}
    for suggestion in unbroken:
        assert ("temperature" in suggestion) == ("lambda_v2b" in suggestion) == suggestion["contrast"]
    suggestions = run_trials(make(tmp_path / "b", space=space), 0, 10)
    histories = histories_of(tmp_path / "b")
    base = TrialConfig().to_dict()
    recorded = {
        number: replace(history, params=base | dict(history.params)) for number, history in histories.items()
    }
    (tmp_path / "b" / "study.journal").unlink()
    after = make(tmp_path / "b", histories=recorded, space=space)
    rows = load_study(tmp_path / "b" / "study.journal").trials
    assert [row.params for row in rows] == [
        {name: value for name, value in suggestion.items() if name in space} for suggestion in suggestions
    ]
    assert suggestions + run_trials(after, 10, 14) == unbroken
    assert caplog.text == "", "what is sampled by itself is no warning"


def test_trials_that_have_not_ended_are_offered_again_before_anything_new(tmp_path: Path) -> None:
    before = make(tmp_path)
    first = [before.suggest(f"t{number}") for number in range(3)]
    before.on_trial_result("t1", result(1, 0.5))
    before.on_trial_complete("t2", error=True)

    after = make(tmp_path, histories=histories_of(tmp_path))
    assert (after.study.open_rows, after.study.rows) == (2, 3)
    again = [after.suggest(f"u{number}") for number in range(3)]
    assert [one[NUMBER] for one in again] == [0, 1, 3]
    assert [one.get(LOGGED) for one in again] == [0, 1, None]
    for one, other in zip(again[:2], first[:2], strict=True):
        assert {name: one[name] for name in SPACE} == {name: other[name] for name in SPACE}
    after.on_trial_result("u1", result(1, 0.5))  # repeated
    after.on_trial_result("u1", result(2, 0.6))
    after.on_trial_complete("u1", result(EPOCHS, 0.75))
    rows = load_study(tmp_path / "study.journal").trials
    assert rows[1].intermediate_values == {1: 0.5, 2: 0.6, EPOCHS: 0.75}
    assert rows[1].value == 0.75
    assert len(rows) == 4


def test_the_first_point_is_enqueued_once(tmp_path: Path) -> None:
    make(tmp_path)
    run_trials(make(tmp_path), 0, 3)
    study = load_study(tmp_path / "study.journal")
    assert [trial.state for trial in study.trials].count(TrialState.WAITING) == 0
    assert len(study.trials) == 3
    assert study.trials[0].params == published_point(SPACE)
    assert study.trials[1].params != published_point(SPACE)


def test_a_study_is_repaired_from_what_the_trials_logged(tmp_path: Path) -> None:
    """Killed between a trial's last epoch and the study; the same for every way to end."""
    before = make(tmp_path)
    params = [before.suggest(f"t{number}") for number in range(6)]
    before.on_trial_result("t0", result(1, 0.5))
    scores: dict[int, float | None] = {1: 0.5, 2: 0.6, 3: 0.7, 4: 0.8}
    histories = {
        0: TrialHistory("00000", 4, scores, done=True, saved=True),
        1: TrialHistory("00001", 2, {1: 0.5, 2: 0.4}, done=True, saved=True),
        2: TrialHistory(
            "00002", 2, {1: 0.5, 2: None}, done=True, diverged=True, reason="diverged in epoch 2"
        ),
        3: TrialHistory("00003", 1, {1: 0.5}, error="failed"),
        4: TrialHistory("00004", 4, scores, done=True, saved=False),
        5: TrialHistory("00005", 1, {1: 0.25}, params=params[5]),
    }
    after = make(tmp_path, histories=histories)
    rows = load_study(tmp_path / "study.journal").trials
    states = [row.state for row in rows]
    # What failed may have been going to be tried again.
    assert states == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, *[TrialState.RUNNING] * 3]
    assert rows[0].intermediate_values == scores
    assert rows[0].value == 0.8
    assert rows[2].user_attrs[REASON] == "diverged in epoch 2"
    assert rows[5].intermediate_values == {1: 0.25}
    assert [after.suggest(f"u{number}")[NUMBER] for number in range(4)] == [3, 4, 5, 6]


def test_a_study_that_was_lost_is_made_again_from_the_folders(tmp_path: Path) -> None:
    unbroken = run_trials(make(tmp_path), 0, 7)
    rows = load_study(tmp_path / "study.journal").trials
    histories = histories_of(tmp_path)
    journal = tmp_path / "study.journal"
    for kept in (0, 3):
        if kept:
            lines = journal.read_bytes().splitlines(keepends=True)
            journal.write_bytes(b"".join(lines[: len(lines) // 2]))
            repair_journal(journal)
        else:
            journal.unlink()
        after = make(tmp_path, histories=histories)
        again = load_study(journal).trials
        assert [
            (row.number, row.state, row.params, row.values, row.intermediate_values) for row in again
        ] == [(row.number, row.state, row.params, row.values, row.intermediate_values) for row in rows]
        assert after.study.rows == 7
    del unbroken


def test_a_lost_row_without_its_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no row 0, and trials/00000/params\.json .*lambda_v2b"):
        make(tmp_path, histories={0: TrialHistory("00000", 1, {1: 0.5})})


def test_a_list_is_offered_in_order_and_ends() -> None:
    search = ListSearch([({"seed": 1}, 0), ({"seed": 2}, 7)])
    assert search.suggest("a") == {"seed": 1, LOGGED: 0}
    assert search.suggest("b") == {"seed": 2, LOGGED: 7}
    assert search.suggest("c") == ListSearch.FINISHED


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


def test_parallel_suggestions_differ(tmp_path: Path) -> None:
    searcher = make(tmp_path)
    run_trials(searcher, 0, 6)
    at_once = [searcher.suggest(f"p{number}") for number in range(4)]
    assert len({tuple(sorted(suggestion.items())) for suggestion in at_once}) == 4
    assert len({suggestion["lambda_v2b"] for suggestion in at_once}) == 4


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
