from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

from tune.algorithms.stopping.asha import Asha, AshaSettings
from tune.execution.tune_scheduler import StoppingScheduler
from tune.storage.history import TrialHistory

EPOCHS = 18
ASHA = AshaSettings(grace=2)
CONTROLLER: Any = None  # the scheduler never looks at it


def trial(number: int) -> Any:
    """As much of Tune's trial as a scheduler looks at."""
    return SimpleNamespace(trial_id=f"tune-{number}", config={"number": number})


def history(number: int, scores: list[float], **more: Any) -> TrialHistory:
    return TrialHistory(f"{number:05d}", len(scores), dict(enumerate(scores, start=1)), **more)


def line(epoch: int, score: float | None, **more: Any) -> dict[str, Any]:
    return {"training_iteration": epoch, "selection_score": score, **more}


def curves(number: int = 12) -> dict[int, list[float]]:
    draw = random.Random(0)
    return {n: [draw.random() + epoch / 10 for epoch in range(draw.randint(1, 17))] for n in range(number)}


def resumed(histories: list[TrialHistory]) -> StoppingScheduler:
    return StoppingScheduler(ASHA, EPOCHS, {each.name: each for each in histories})


def rungs(scheduler: StoppingScheduler) -> dict[int, dict[str, float]]:
    assert isinstance(scheduler.rule, Asha)
    return scheduler.rule.rungs


def test_rungs_made_of_the_logs_are_those_of_the_unbroken_run() -> None:
    unbroken = StoppingScheduler(ASHA, EPOCHS)
    for number in curves():
        unbroken.on_trial_add(CONTROLLER, trial(number))
    # Interleaved, as parallel trials report.
    for epoch in range(1, EPOCHS):
        for number, scores in curves().items():
            if epoch <= len(scores):
                unbroken.on_trial_result(CONTROLLER, trial(number), line(epoch, scores[epoch - 1]))

    restored = resumed([history(number, scores) for number, scores in reversed(curves().items())])
    assert rungs(restored) == rungs(unbroken)
    assert sorted(rungs(unbroken)) == [2, 6, 18]
    assert len(rungs(unbroken)[2]) > len(rungs(unbroken)[6]) > 0
    for number, (epoch, score) in enumerate(((2, 0.3), (2, 1.1), (6, 0.8), (6, 1.5)), start=99):
        new = trial(number)
        decisions = {
            scheduler.on_trial_result(CONTROLLER, new, line(epoch, score))
            for scheduler in (unbroken, restored)
        }
        assert len(decisions) == 1
        for scheduler in (unbroken, restored):
            scheduler.rule.forget(f"{number:05d}")


def test_what_was_decided_is_not_decided_again() -> None:
    """A trial repeats epochs after a failure: it went on at 2 when it was alone, and is stopped again where it was."""
    strong = history(1, [0.5, 0.9, 0.9, 0.9, 0.9, 0.9])
    gone_on = history(2, [0.1, 0.2, 0.3])
    stopped = history(3, [0.1, 0.3], done=True)
    scheduler = resumed([strong, gone_on, stopped])
    before = rungs(scheduler)
    for number, epochs, decisions in ((2, (1, 2, 3), ["CONTINUE"] * 3), (3, (1, 2), ["CONTINUE", "STOP"])):
        scheduler.on_trial_add(CONTROLLER, trial(number))
        assert [
            scheduler.on_trial_result(CONTROLLER, trial(number), line(epoch, 0.0)) for epoch in epochs
        ] == decisions
    assert rungs(scheduler) == before
    assert scheduler.on_trial_result(CONTROLLER, trial(4), line(2, 0.1)) == "STOP"
    assert scheduler.on_trial_result(CONTROLLER, trial(2), line(6, 0.3)) == "STOP"


def test_a_diverged_trial_leaves_no_score() -> None:
    scheduler = StoppingScheduler(ASHA, EPOCHS)
    scheduler.on_trial_add(CONTROLLER, trial(0))
    scheduler.on_trial_result(CONTROLLER, trial(0), line(2, 0.5))
    assert rungs(scheduler)[2] == {"00000": 0.5}
    scheduler.on_trial_complete(CONTROLLER, trial(0), line(3, None, diverged=True))
    assert rungs(scheduler)[2] == {}
    assert rungs(resumed([history(0, [0.1, 0.5], diverged=True)]))[2] == {}
