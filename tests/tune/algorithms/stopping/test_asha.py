"""ASHA decides as Ray's own scheduler does, whatever comes in, and as it did before when it is asked again."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import ASHAScheduler

from tune.algorithms.stopping.asha import REDUCTION, Asha, rung_epochs
from tune.algorithms.stopping.rule import Decision

CONTROLLER: Any = None  # Ray's scheduler never looks at it


def trial(name: str) -> Any:
    """As much of Tune's trial as Ray's scheduler looks at."""
    return SimpleNamespace(trial_id=name)


def rays(grace: int, epochs: int) -> ASHAScheduler:
    return ASHAScheduler(
        time_attr="epoch",
        metric="score",
        mode="max",
        max_t=epochs,
        grace_period=grace,
        reduction_factor=REDUCTION,
    )


@pytest.mark.parametrize("seed", range(40))
def test_it_stops_the_trials_that_ray_stops(seed: int) -> None:
    """Trials in parallel, of unequal pace, with ties, that end by themselves here and there."""
    draw = random.Random(seed)
    grace, epochs = draw.choice([(1, 9), (1, 27), (1, 50), (2, 18), (5, 7), (15, 50), (4, 4), (3, 243)])
    ours, theirs = Asha(grace, epochs), rays(grace, epochs)
    going, stopped, continued = {}, 0, 0
    for number in range(30):
        theirs.on_trial_add(CONTROLLER, trial(str(number)))
        going[str(number)] = 0
    while going:
        name = draw.choice(list(going))
        going[name] += 1
        score = round(draw.random(), draw.choice([1, 1, 6])) + going[name] / epochs
        result = {"epoch": going[name], "score": score}
        if draw.random() < 0.01:  # as Tune tells the last result of a trial that has ended
            theirs.on_trial_complete(CONTROLLER, trial(name), result)
            ours.complete(name, going.pop(name), score)
            continue
        decision = ours.observe(name, going[name], score)
        assert (decision is Decision.STOP) == (
            theirs.on_trial_result(CONTROLLER, trial(name), result) == "STOP"
        )
        continued += decision is Decision.CONTINUE
        if decision is Decision.STOP:
            stopped += 1
            theirs.on_trial_complete(CONTROLLER, trial(name), result)
            ours.complete(name, going.pop(name), score)
    assert stopped
    assert continued


def test_logs_imply_the_rungs_and_every_later_decision() -> None:
    draw = random.Random(1)
    curves = {
        str(number): {epoch: draw.random() for epoch in range(1, 1 + draw.randint(1, 17))}
        for number in range(20)
    }
    unbroken, recalled = Asha(2, 18), Asha(2, 18)
    for epoch in range(1, 18):
        for name, scores in curves.items():
            if epoch in scores:
                unbroken.observe(name, epoch, scores[epoch])
    for name, scores in reversed(curves.items()):
        recalled.recall(name, scores, len(scores), ended=False)
    assert recalled.rungs == unbroken.rungs
    assert [len(scores) > 1 for scores in unbroken.rungs.values()] == [False, True, True]
    later = {rule.observe("new", 6, score) for rule in (unbroken, recalled) for score in (0.01,)}
    assert later == {Decision.STOP}


def test_the_rungs_are_a_factor_apart_and_before_the_end() -> None:
    assert rung_epochs(15, 50) == [15, 45]
    assert rung_epochs(1, 9) == [1, 3]
    assert rung_epochs(9, 9) == []
    assert rung_epochs(20, 9) == []
    assert list(Asha(2, 18).rungs) == [18, 6, 2], "the last holds scores that nobody is compared with"


def test_a_score_that_is_not_there_stops_nothing_and_enters_nothing() -> None:
    rule = Asha(1, 9)
    rule.observe("a", 1, 0.9)
    assert rule.observe("b", 1, None) is Decision.CONTINUE
    rule.complete("c", 1, None)
    assert rule.rungs[1] == {"a": 0.9}
    assert rule.observe("b", 9, None) is Decision.STOP, "the training is over"
