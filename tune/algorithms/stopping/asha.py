"""Asynchronous successive halving (ASHA, Li et al. 2020): at each rung the best third of the trials goes on.

A trial that reaches a rung is compared with those that were there before it, and waits for nobody. A rung holds the
first score of each trial at or beyond its epoch, so that logs imply the rungs exactly: a resumed search recalls them. A
decision that was made is not made again: an epoch that a trial repeats, because its worker was lost before it was
saved, goes as it went before.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tune.algorithms.stopping.decision import Decision

# The best of so many go on at each rung, and each rung is so many times as late as the one before.
REDUCTION = 3


def rung_epochs(grace: int, epochs: int, reduction: int = REDUCTION) -> list[int]:
    """The epochs at which trials are compared, `grace` the first; none at the last epoch of a training."""
    rungs = []
    while 0 < grace < epochs:
        rungs.append(grace)
        grace *= reduction
    return rungs


class Asha:
    """The rule on a score of which larger is better.

    Args:
        grace: Epochs that every trial gets; the first rung.
        epochs: Epochs of a whole training.
        reduction: One of so many goes on at each rung, and each rung is so many times as late as the one before.
    """

    def __init__(self, grace: int, epochs: int, reduction: int = REDUCTION) -> None:
        self._epochs, self._reduction = epochs, reduction
        # Epoch of the rung -> score by trial, the latest rung first; one at the last epoch stops nothing.
        self._rungs: dict[int, dict[str, float]] = {
            epoch: {} for epoch in reversed(rung_epochs(grace, epochs + 1, reduction))
        }
        # Of each trial: the last epoch that was decided upon, and whether it was stopped there.
        self._decided: dict[str, tuple[int, Decision]] = {}

    @property
    def rungs(self) -> dict[int, dict[str, float]]:
        """Epoch of the rung -> score by trial, the latest rung first."""
        return {epoch: dict(scores) for epoch, scores in self._rungs.items()}

    def recall(self, trial: str, scores: Mapping[int, float | None], last: int, *, ended: bool) -> None:
        """Take in what a trial has logged.

        Args:
            trial: Its name.
            scores: Epoch -> score, None where it has none.
            last: Its last logged epoch.
            ended: Whether its last report ended it.
        """
        self._decided[trial] = last, Decision.STOP if ended else Decision.CONTINUE
        for epoch, score in sorted(scores.items()):
            if score is not None:
                self._enter(trial, epoch, score)

    def observe(self, trial: str, epoch: int, score: float | None) -> Decision:
        """Whether a trial goes on after an epoch that gave it this score so far."""
        last, decision = self._decided.get(trial, (0, Decision.CONTINUE))
        if epoch <= last:
            return decision if epoch == last else Decision.CONTINUE
        decision = Decision.CONTINUE if score is None else self._enter(trial, epoch, score)
        if epoch >= self._epochs:
            decision = Decision.STOP
        self._decided[trial] = epoch, decision
        return decision

    def complete(self, trial: str, epoch: int, score: float | None) -> None:
        """Take in the last epoch of a trial that ended by itself."""
        if score is not None:
            self._enter(trial, epoch, score)

    def forget(self, trial: str) -> None:
        """Take a trial out of all rungs: one that diverged leaves no score behind."""
        for scores in self._rungs.values():
            scores.pop(trial, None)

    def _enter(self, trial: str, epoch: int, score: float) -> Decision:
        """Into the latest rung that the trial has reached; one that is in a rung already has been compared there."""
        for rung, scores in self._rungs.items():
            if epoch < rung or trial in scores:
                continue
            others = list(scores.values())
            scores[trial] = score
            if others and score < np.nanpercentile(others, (1 - 1 / self._reduction) * 100):
                return Decision.STOP
            break
        return Decision.CONTINUE
