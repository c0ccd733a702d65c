"""The seam of the stopping rules: what a rule is asked after an epoch, and what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import Enum


class Decision(Enum):
    """Whether a trial is trained on."""

    CONTINUE = "continue"
    STOP = "stop"


class StoppingRule(ABC):
    """A rule on a score of which larger is better; what it knows of a trial is implied by the trial's log.

    A new rule says how a score is taken in (`_enter`) and how a trial is left out (`forget`). A decision that was made
    is not made again: an epoch that a trial repeats, because its worker was lost before it was saved, goes as it went
    before.

    Args:
        epochs: Epochs of a whole training, after which a trial ends whatever its score.
    """

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        # Of each trial: the last epoch that was decided upon, and whether it was stopped there.
        self._decided: dict[str, tuple[int, Decision]] = {}

    @abstractmethod
    def _enter(self, trial: str, epoch: int, score: float) -> Decision:
        """Compare a score with those of other trials and take it in; one that is known already changes nothing."""

    @abstractmethod
    def forget(self, trial: str) -> None:
        """Leave a trial out of all comparisons: one that diverged leaves no score behind."""

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
