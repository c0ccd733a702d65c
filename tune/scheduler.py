"""ASHA whose rungs survive a restart of the search.

A new scheduler would be empty: trials that were running would compare themselves with nobody. Here it begins with what
the trials have logged, which rebuilds the rungs exactly, since a rung holds only the first result of each trial at or
beyond its milestone. A decision that was made is not made again: an epoch that a trial repeats, because its worker was
lost before it was saved, goes as it went before.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ray.tune.experiment import Trial
from ray.tune.result import SHOULD_CHECKPOINT
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from tune.groups import folder_name
from tune.plan import REDUCTION
from tune.storage.trial_log import METRIC, TIME

if TYPE_CHECKING:
    from tune.ledger import TrialHistory

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

    Args:
        grace_period: Epochs that every trial gets; the first rung.
        epochs: Epochs of a whole training.
        pasts: What trials reported before, by folder.
    """

    def __init__(
        self, grace_period: int, epochs: int, pasts: Mapping[str, TrialHistory] | None = None
    ) -> None:
        super().__init__(
            time_attr=TIME,
            metric=METRIC,
            mode="max",
            max_t=epochs,
            grace_period=grace_period,
            reduction_factor=REDUCTION,
        )
        # Of each trial: the last epoch that was decided upon, and whether it was stopped there.
        self._decided: dict[str, tuple[int, bool]] = {}
        for name, past in (pasts or {}).items():
            self._decided[name] = past.epochs, past.done
            for epoch, score in sorted(past.scores.items()):
                if score is not None and not past.diverged:
                    self._enter(name, epoch, score)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Whether the trial goes on after this epoch."""
        name, epoch = folder_name(trial.config), int(result[TIME])
        last, stopped = self._decided.get(name, (0, False))
        if epoch <= last:
            return TrialScheduler.STOP if stopped and epoch == last else TrialScheduler.CONTINUE
        decision = TrialScheduler.CONTINUE
        score = result.get(METRIC)
        if score is not None:
            decision = self._enter(name, epoch, score)
        if epoch >= self._max_t:
            decision = TrialScheduler.STOP
        self._decided[name] = epoch, decision == TrialScheduler.STOP
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Forget a trial that ended; one that diverged leaves no score behind."""
        self._trial_info.pop(trial.trial_id, None)
        name, score = folder_name(trial.config), result.get(METRIC)
        if result.get("diverged"):
            for _, recorded in self._brackets[0]._rungs:
                recorded.pop(name, None)
        elif score is not None:
            self._enter(name, int(result[TIME]), score)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Forget a trial that never ran."""
        self._trial_info.pop(trial.trial_id, None)

    @property
    def rungs(self) -> dict[int, dict[str, float]]:
        """Milestone in epochs -> score by trial's folder."""
        return {int(milestone): dict(recorded) for milestone, recorded in self._brackets[0]._rungs}

    def _enter(self, name: str, epoch: int, score: float) -> str:
        stand_in: Any = SimpleNamespace(trial_id=name)  # a bracket asks for nothing else
        return str(self._brackets[0].on_result(stand_in, epoch, score))


def for_tune(result: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an epoch's result that Tune should keep.

    It keeps the last result of every trial and those of its checkpoints, averages every number in them, and writes it
    all each time it saves its state: all of a result would be half of the driver's memory in a long search.
    """
    return {key: value for key, value in result.items() if key in _READ and value is not False}
