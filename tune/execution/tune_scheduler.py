"""Who stops trials early, as Ray Tune asks it; and what Tune keeps of a result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ray.tune.experiment import Trial
from ray.tune.result import SHOULD_CHECKPOINT
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tune.algorithms.stopping.registry import StoppingSettings
from tune.algorithms.stopping.rule import Decision
from tune.storage.trial_log import METRIC, TIME
from tune.storage.trial_names import folder_name

if TYPE_CHECKING:
    from tune.storage.history import TrialHistory

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


class StoppingScheduler(FIFOScheduler):
    """Stops trials by a rule on `selection_score`; a trial is known by its folder, on whatever worker it runs.

    Args:
        settings: The rule.
        epochs: Epochs of a whole training.
        histories: What trials reported before, by folder. Without them a trial that goes on would be compared with
            nobody.
    """

    def __init__(
        self,
        settings: StoppingSettings,
        epochs: int,
        histories: Mapping[str, TrialHistory] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rule = settings.make(epochs)
        for name, history in (histories or {}).items():
            self.rule.recall(
                name, {} if history.diverged else history.scores, history.epochs, ended=history.done
            )

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Whether the trial goes on after this epoch."""
        decision = self.rule.observe(folder_name(trial.config), int(result[TIME]), result.get(METRIC))
        return TrialScheduler.STOP if decision is Decision.STOP else TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Take in the last result of a trial that ended by itself; one that diverged leaves no score behind."""
        name = folder_name(trial.config)
        if result.get("diverged"):
            self.rule.forget(name)
        elif METRIC in result:
            self.rule.complete(name, int(result[TIME]), result[METRIC])


def for_tune(result: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an epoch's result that Tune should keep.

    It keeps the last result of every trial and those of its checkpoints, averages every number in them, and writes it
    all each time it saves its state: all of a result would be half of the driver's memory in a long search.
    """
    return {key: value for key, value in result.items() if key in _READ and value is not False}
