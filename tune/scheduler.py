"""ASHA whose rungs survive a restore.

Ray's restore makes an empty scheduler: trials that were running compare themselves with nobody, and finished ones are
forgotten. Here every trial that Tune adds brings the results it has logged; they are entered again, in order, which
rebuilds the rungs exactly, since a rung holds only the first result of each trial at or beyond its milestone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.result import SHOULD_CHECKPOINT
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from tune.plan import REDUCTION

METRIC = "selection_score"
TIME = "training_iteration"
# What Tune, the searcher and the display read of a result; a flag that is absent is not set.
_READ = (
    METRIC,
    TIME,
    "done",
    "diverged",
    "reason",
    "trial_id",
    "time_total_s",
    "pid",
    "node_ip",
    SHOULD_CHECKPOINT,
)


class ReplayASHA(ASHAScheduler):
    """Asynchronous successive halving on `selection_score`, larger is better; keeps the best third at each rung.

    A trial that was stopped, lost its worker before it was saved, and comes back from an older checkpoint is stopped
    where it was stopped before: its score is in the rung already, so the rung would let it pass.

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
        self._stopped: dict[str, int] = {}

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Register a trial and enter what it has already reported."""
        super().on_trial_add(tune_controller, trial)
        if not trial.has_reported_at_least_once:
            return
        for result in _logged_results(Path(str(trial.path)) / "result.json"):
            if result[TIME] <= int(trial.last_result.get(TIME, 0)):
                self._trial_info[trial.trial_id].on_result(trial, result[TIME], result[METRIC])
                if result.get("done"):
                    self._stopped[trial.trial_id] = result[TIME]

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Whether the trial goes on after this epoch."""
        decision = str(super().on_trial_result(tune_controller, trial, result))
        if decision == TrialScheduler.STOP:
            self._stopped[trial.trial_id] = result[TIME]
        elif result[TIME] >= self._stopped.get(trial.trial_id, math.inf):
            decision = TrialScheduler.STOP
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Forget a trial that ended; one that diverged leaves no score behind."""
        self._stopped.pop(trial.trial_id, None)
        if result.get(METRIC) is None:
            self._trial_info.pop(trial.trial_id, None)
        else:
            super().on_trial_complete(tune_controller, trial, result)

    @property
    def rungs(self) -> dict[int, dict[str, float]]:
        """Milestone in epochs -> score by trial id."""
        return {int(milestone): dict(recorded) for milestone, recorded in self._brackets[0]._rungs}


def for_tune(result: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an epoch's result that Tune should keep.

    It keeps the last result of every trial and those of its checkpoints, averages every number in them, and writes it
    all each time it saves its state: all of a result would be half of the driver's memory in a long search.
    """
    return {key: value for key, value in result.items() if key in _READ and value is not False}


def logged_scores(log: Path) -> Iterator[tuple[int, float]]:
    """(epoch, selection score) of each line of a trial's `result.json`; half-written or diverged lines are left out."""
    for result in _logged_results(log):
        yield result[TIME], result[METRIC]


def _logged_results(log: Path) -> Iterator[dict[str, Any]]:
    if not log.exists():
        return
    with log.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                result = json.loads(line)
            except ValueError:
                continue
            if isinstance(result.get(METRIC), float) and isinstance(result.get(TIME), int):
                yield result
