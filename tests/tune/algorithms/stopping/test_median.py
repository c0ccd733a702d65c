"""The median rule decides as its definition says, computed anew from everything that was reported."""

from __future__ import annotations

import random
import statistics

import pytest

from tune.algorithms.stopping.median import OTHERS, MedianRule
from tune.algorithms.stopping.rule import Decision

GRACE, EPOCHS = 2, 9


def falls_behind(reported: dict[str, list[float]], name: str) -> bool:
    """The definition: the best so far is below the median of the others' running averages up to the same epoch."""
    own = reported[name]
    epoch = len(own)
    averages = [
        statistics.fmean(scores[:epoch])
        for other, scores in reported.items()
        if other != name and len(scores) >= epoch
    ]
    return epoch >= GRACE and len(averages) >= OTHERS and max(own) < statistics.median(averages)


@pytest.mark.parametrize("seed", range(10))
def test_it_stops_what_its_definition_stops(seed: int) -> None:
    """Trials in parallel, of unequal pace; scores that are running bests, and some that are not."""
    draw = random.Random(seed)
    rule = MedianRule(GRACE, EPOCHS)
    reported: dict[str, list[float]] = {str(number): [] for number in range(14)}
    going, stopped = list(reported), 0
    while going:
        name = draw.choice(going)
        scores = reported[name]
        scores.append(max(scores, default=0.0) + draw.random() * int(name) if seed % 2 else draw.random())
        decision = rule.observe(name, len(scores), scores[-1])
        ends = len(scores) == EPOCHS
        assert (decision is Decision.STOP) == (ends or falls_behind(reported, name))
        if decision is Decision.STOP:
            going.remove(name)
            stopped += not ends
            rule.complete(name, len(scores), scores[-1])
    assert 0 < stopped < 14


def test_nothing_is_stopped_before_grace_or_beside_too_few_others() -> None:
    rule = MedianRule(GRACE, EPOCHS)
    for name in "abc"[: OTHERS - 1]:
        for epoch in (1, 2):
            rule.observe(name, epoch, 1.0)
    assert [rule.observe("low", epoch, 0.1) for epoch in (1, 2)] == [Decision.CONTINUE] * 2
    rule.observe("third", 1, 1.0)
    rule.observe("third", 2, 1.0)
    assert rule.observe("lower", 1, 0.0) is Decision.CONTINUE, "its grace"
    assert rule.observe("lower", 2, 0.0) is Decision.STOP


def test_a_trial_that_diverged_stops_nobody() -> None:
    rule = MedianRule(GRACE, EPOCHS)
    for name in "abc":
        rule.observe(name, 2, 1.0)
        rule.forget(name)
    assert rule.observe("d", 2, 0.0) is Decision.CONTINUE
