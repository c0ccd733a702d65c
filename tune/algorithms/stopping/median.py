"""The median stopping rule (Golovin et al. 2017, "Google Vizier", section 3.2.2).

A trial is stopped after an epoch if its best score so far is below the median, over the other trials, of the running
average of their scores up to that epoch. The others are those that have a score of that epoch: unlike in the paper they
need not have ended, so that trials side by side are compared too. Scores of this program are running bests, so the
averages lie below what the others have reached by then, and the rule is a mild one.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from macil.io.formats import FileModel
from tune.algorithms.stopping.rule import Decision, StoppingRule
from tune.storage.run_file import Positive

# The median of fewer says little.
OTHERS = 3


class MedianSettings(FileModel):
    """The rule as a plan has it; see `MedianRule`."""

    title: ClassVar[str] = "the median rule"
    flags: ClassVar[tuple[str, str]] = ("--stopping median", "--stopping none")

    rule: Literal["median"] = "median"
    grace: Positive
    others: Positive = OTHERS

    def make(self, epochs: int) -> MedianRule:
        """The rule for trainings of so many epochs."""
        return MedianRule(self.grace, epochs, self.others)

    def rungs(self, epochs: int) -> list[int]:
        """No epochs of their own: trials are compared after every one."""
        return []

    def describe(self, epochs: int) -> str:
        """What it does with trainings of so many epochs."""
        when = f"from epoch {self.grace} on" if self.grace < epochs else "never"
        return (
            f"the median rule: a trial below the median of the others' running averages ends, {when}, "
            f"where {self.others} others have come as far"
        )


class MedianRule(StoppingRule):
    """The rule.

    Args:
        grace: Epochs that every trial gets.
        epochs: Epochs of a whole training.
        others: Trials with a score of the same epoch that it takes to stop one.
    """

    def __init__(self, grace: int, epochs: int, others: int = OTHERS) -> None:
        super().__init__(epochs)
        self._grace, self._others = grace, others
        self._scores: dict[str, list[float]] = {}
        # Epoch -> running average of the scores up to it, by trial.
        self._averages: dict[int, dict[str, float]] = {}

    def forget(self, trial: str) -> None:
        """Take a trial out of all epochs."""
        self._scores.pop(trial, None)
        for averages in self._averages.values():
            averages.pop(trial, None)

    def _enter(self, trial: str, epoch: int, score: float) -> Decision:
        averages = self._averages.setdefault(epoch, {})
        if trial in averages:
            return Decision.CONTINUE
        others = list(averages.values())
        own = self._scores.setdefault(trial, [])
        own.append(score)
        averages[trial] = sum(own) / len(own)
        if epoch < self._grace or len(others) < self._others or max(own) >= float(np.median(others)):
            return Decision.CONTINUE
        return Decision.STOP
