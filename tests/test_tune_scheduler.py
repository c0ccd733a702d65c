from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tune.scheduler import ReplayASHA, logged_scores

GRACE, EPOCHS = 2, 18
CONTROLLER: Any = None  # the scheduler never looks at it


class FakeTrial(SimpleNamespace):
    """As much of Tune's trial as a scheduler looks at."""


def trial(folder: Path, name: str, scores: list[float]) -> Any:
    path = folder / name
    path.mkdir(exist_ok=True)
    lines = [line(epoch, score) for epoch, score in enumerate(scores, start=1)]
    (path / "result.json").write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    return FakeTrial(
        trial_id=name,
        path=str(path),
        has_reported_at_least_once=bool(scores),
        last_result=lines[-1] if lines else {},
    )


def line(epoch: int, score: float | None) -> dict[str, Any]:
    return {"training_iteration": epoch, "selection_score": score}


def curves(number: int = 12) -> dict[str, list[float]]:
    draw = random.Random(0)
    return {
        f"t{n}": [draw.random() + epoch / 10 for epoch in range(draw.randint(1, 17))] for n in range(number)
    }


def test_rungs_after_a_restore_are_those_of_the_unbroken_run(tmp_path: Path) -> None:
    unbroken = ReplayASHA(GRACE, EPOCHS)
    trials = {name: trial(tmp_path, name, []) for name in curves()}
    for each in trials.values():
        unbroken.on_trial_add(CONTROLLER, each)
    # Interleaved, as parallel trials report.
    for epoch in range(1, EPOCHS):
        for name, scores in curves().items():
            if epoch <= len(scores):
                unbroken.on_trial_result(CONTROLLER, trials[name], line(epoch, scores[epoch - 1]))

    restored = ReplayASHA(GRACE, EPOCHS)
    for name, scores in reversed(curves().items()):
        restored.on_trial_add(CONTROLLER, trial(tmp_path, name, scores))
    assert restored.rungs == unbroken.rungs
    assert sorted(unbroken.rungs) == [2, 6, 18]
    assert len(unbroken.rungs[2]) > len(unbroken.rungs[6]) > 0
    for epoch, score in ((2, 0.3), (2, 1.1), (6, 0.8), (6, 1.5)):
        new = trial(tmp_path, "new", [])
        for scheduler in (unbroken, restored):
            scheduler.on_trial_add(CONTROLLER, new)
        decisions = {
            scheduler.on_trial_result(CONTROLLER, new, line(epoch, score))
            for scheduler in (unbroken, restored)
        }
        assert len(decisions) == 1
        for scheduler in (unbroken, restored):
            scheduler._brackets[0]._rungs = [
                (milestone, {name: value for name, value in scores.items() if name != "new"})
                for milestone, scores in scheduler._brackets[0]._rungs
            ]


def test_results_that_tune_has_forgotten_do_not_count(tmp_path: Path) -> None:
    ahead = trial(tmp_path, "t", [0.1, 0.2, 0.3])
    ahead.last_result = line(1, 0.1)
    scheduler = ReplayASHA(GRACE, EPOCHS)
    scheduler.on_trial_add(CONTROLLER, ahead)
    assert scheduler.rungs[2] == {}


def test_a_trial_added_again_after_a_failure_counts_once(tmp_path: Path) -> None:
    scheduler = ReplayASHA(GRACE, EPOCHS)
    for _ in range(2):
        scheduler.on_trial_add(CONTROLLER, trial(tmp_path, "t", [0.1, 0.2, 0.9]))
    assert scheduler.rungs[2] == {"t": 0.2}


@pytest.mark.parametrize("restored", [False, True])
def test_a_trial_stopped_before_it_was_saved_is_stopped_again_where_it_was(
    tmp_path: Path, restored: bool
) -> None:
    """Its worker or the driver was lost in between, so it repeats epochs whose scores are in the rung already."""
    scheduler = ReplayASHA(GRACE, EPOCHS)
    better = trial(tmp_path, "better", [0.5, 0.9])
    begun, stopped = trial(tmp_path, "stopped", []), trial(tmp_path, "stopped", [0.1, 0.2])
    scheduler.on_trial_add(CONTROLLER, better)
    scheduler.on_trial_add(CONTROLLER, begun)
    assert scheduler.on_trial_result(CONTROLLER, begun, line(2, 0.2)) == "STOP"
    if restored:
        scheduler = ReplayASHA(GRACE, EPOCHS)
        scheduler.on_trial_add(CONTROLLER, better)
        log = tmp_path / "stopped" / "result.json"
        log.write_text(
            "".join(json.dumps(each) + "\n" for each in (line(1, 0.1), {**line(2, 0.2), "done": True}))
        )
    scheduler.on_trial_add(CONTROLLER, stopped)
    decisions = [
        scheduler.on_trial_result(CONTROLLER, stopped, line(epoch, score))
        for epoch, score in ((1, 0.1), (2, 0.2))
    ]
    assert decisions == ["CONTINUE", "STOP"]
    scheduler.on_trial_complete(CONTROLLER, stopped, line(2, 0.2))
    assert scheduler.rungs[2] == {"better": 0.9, "stopped": 0.2}


def test_a_diverged_trial_leaves_no_score(tmp_path: Path) -> None:
    scheduler = ReplayASHA(GRACE, EPOCHS)
    diverged = trial(tmp_path, "t", [0.1])
    scheduler.on_trial_add(CONTROLLER, diverged)
    scheduler.on_trial_complete(CONTROLLER, diverged, line(2, None))
    assert scheduler.rungs[2] == {}


@pytest.mark.parametrize(
    "tail", ['{"training_iteration": 3, "selec', "", "not json\n", '{"selection_score": 1.0}\n']
)
def test_damaged_lines_of_a_log_are_left_out(tmp_path: Path, tail: str) -> None:
    log = tmp_path / "result.json"
    log.write_text(f"{json.dumps(line(1, 0.5))}\n{json.dumps(line(2, None))}\n{tail}")
    assert list(logged_scores(log)) == [(1, 0.5)]
