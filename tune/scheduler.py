"""ASHA whose rungs survive a restore.

Ray's restore makes an empty scheduler: trials that were running compare themselves with nobody, and finished ones are
forgotten. Here every trial that Tune adds brings the results it has logged; they are entered again, in order, which
rebuilds the rungs exactly, since a rung holds only the first result of each trial at or beyond its milestone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler

from tune.plan import REDUCTION

METRIC = "selection_score"
TIME = "training_iteration"


class ReplayASHA(ASHAScheduler):
    """Asynchronous successive halving on `selection_score`, larger is better; keeps the best third at each rung.

    Args:
        grace_period: Epochs that every trial gets; the first rung.
        epochs: Epochs of a whole training.
    """

    def __init__(self, grace_period: int, epochs: int) -> None:
        super().__init__(
            time_attr=TIME,
            metric=METRIC,
            mode="max",
            max_t=epochs,
            grace_period=grace_period,
            reduction_factor=REDUCTION,
        )

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Register a trial and enter what it has already reported."""
        super().on_trial_add(tune_controller, trial)
        if not trial.has_reported_at_least_once:
            return
        for epoch, score in logged_scores(Path(str(trial.path)) / "result.json"):
            if epoch <= int(trial.last_result.get(TIME, 0)):
                self._trial_info[trial.trial_id].on_result(trial, epoch, score)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Forget a trial that ended; one that diverged leaves no score behind."""
        if result.get(METRIC) is None:
            self._trial_info.pop(trial.trial_id, None)
        else:
            super().on_trial_complete(tune_controller, trial, result)

    @property
    def rungs(self) -> dict[int, dict[str, float]]:
        """Milestone in epochs -> score by trial id."""
        return {int(milestone): dict(recorded) for milestone, recorded in self._brackets[0]._rungs}


def logged_scores(log: Path) -> Iterator[tuple[int, float]]:
    """(epoch, selection score) of each line of a trial's `result.json`; half-written or diverged lines are left out."""
    if not log.exists():
        return
    with log.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                result = json.loads(line)
            except ValueError:
                continue
            if isinstance(result.get(METRIC), float) and isinstance(result.get(TIME), int):
                yield result[TIME], result[METRIC]
