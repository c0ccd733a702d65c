"""Asynchronous successive halving (ASHA, Li et al. 2020): at each rung the best third of the trials goes on.

A trial that reaches a rung is compared with those that were there before it, and waits for nobody. A rung holds the
first score of each trial at or beyond its epoch, so that logs imply the rungs exactly: a resumed search recalls them.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from macil.io.formats import FileModel
from tune.algorithms.stopping.rule import Decision, StoppingRule
from tune.storage.run_file import Positive

# The best of so many go on at each rung, and each rung is so many times as late as the one before.
REDUCTION = 3


class AshaSettings(FileModel):
    """The rule as a plan has it; see `Asha`."""

    title: ClassVar[str] = "ASHA"
    flags: ClassVar[tuple[str, str]] = ("--asha", "--no-asha")

    rule: Literal["asha"] = "asha"
    grace: Positive
    reduction: Annotated[int, Field(ge=2, le=1000)] = REDUCTION

    def make(self, epochs: int) -> Asha:
        """The rule for trainings of so many epochs."""
        return Asha(self.grace, epochs, self.reduction)

    def rungs(self, epochs: int) -> list[int]:
        """The epochs at which trials are compared."""
        return rung_epochs(self.grace, epochs, self.reduction)

    def describe(self, epochs: int) -> str:
        """What it does with trainings of so many epochs."""
        when = " and ".join(map(str, self.rungs(epochs))) or f"{epochs} (never)"
        share = {2: "half", 3: "third"}.get(self.reduction, f"1/{self.reduction}")
        return f"ASHA: the best {share} goes on after {when} epochs"


def rung_epochs(grace: int, epochs: int, reduction: int = REDUCTION) -> list[int]:
    """The epochs at which trials are compared, `grace` the first; none at the last epoch of a training."""
    rungs = []
    while 0 < grace < epochs:
        rungs.append(grace)
        grace *= reduction
    return rungs


class Asha(StoppingRule):
    """The rule.

    Args:
        grace: Epochs that every trial gets; the first rung.
        epochs: Epochs of a whole training.
        reduction: One of so many goes on at each rung, and each rung is so many times as late as the one before.
    """

    def __init__(self, grace: int, epochs: int, reduction: int = REDUCTION) -> None:
        super().__init__(epochs)
        self._reduction = reduction
        # Epoch of the rung -> score by trial, the latest rung first; one at the last epoch stops nothing.
        self._rungs: dict[int, dict[str, float]] = {
            epoch: {} for epoch in reversed(rung_epochs(grace, epochs + 1, reduction))
        }

    @property
    def rungs(self) -> dict[int, dict[str, float]]:
        """Epoch of the rung -> score by trial, the latest rung first."""
        return {epoch: dict(scores) for epoch, scores in self._rungs.items()}

    def forget(self, trial: str) -> None:
        """Take a trial out of all rungs."""
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
