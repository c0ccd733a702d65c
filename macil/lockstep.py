"""Several seeds of one configuration trained together on one device, each with the numbers it has alone.

On a GPU a step of this model is bound by what does not grow with the seeds, launching kernels above all. On a CPU five
seeds cost five times as much as one, and separate trainings are the better use of it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from macil.config import TrialConfig
from macil.data.store import FeatureStore
from macil.errors import DataError, DivergedError, UsageError
from macil.training import Trainer


class Lockstep:
    """Trains one configuration with several seeds.

    Args:
        config: What to train; its own seed is not looked at.
        seeds: At least one, all different.
        store: The data.
        options: As of `Trainer`, for all seeds.

    Attributes:
        trainers: One for each seed, in their order.
        diverged: Seed to the error that ended it; it is trained on with the others, and never measured again.

    Raises:
        DataError, UsageError: As `Trainer`; also for no seeds, or one given twice.
    """

    def __init__(
        self, config: TrialConfig, seeds: Sequence[int], store: FeatureStore, **options: Any
    ) -> None:
        if not seeds or len(set(seeds)) < len(seeds):
            raise UsageError(f"a lockstep group needs different seeds, at least one; not {list(seeds)}")
        first = Trainer(config.replace(seed=seeds[0]), store, lockstep=seeds, **options)
        shared = {**options, "split": first.split, "engine": first.engine, "examiner": first.examiner}
        self.trainers = [first.member_of_group()]
        self.trainers += [Trainer(config.replace(seed=seed), store, **shared) for seed in seeds[1:]]
        self.diverged: dict[int, DivergedError] = {}

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return max(trainer.epoch for trainer in self._alive() or self.trainers)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or every seed has diverged."""
        alive = self._alive()
        return not alive or alive[0].finished

    def train_epoch(self) -> dict[int, dict[str, Any] | DivergedError]:
        """One epoch of every seed that has not diverged.

        Returns:
            Seed to its metrics, or to the error that ended it in this epoch. `seconds` are the seed's share of the
            group's.

        Raises:
            UsageError: All epochs are done.
        """
        alive = self._alive()
        if not alive:
            raise UsageError("every seed of this group has diverged")
        started = time.perf_counter()
        losses = alive[0].train_engine()
        results: dict[int, dict[str, Any] | DivergedError] = {}
        common = time.perf_counter() - started
        for trainer in alive:
            seed, began = trainer.config.seed, time.perf_counter()
            slot = trainer.engine.seeds.index(seed)
            try:
                results[seed] = trainer.take_epoch(losses[slot], began - common / len(alive))
            except DivergedError as error:
                results[seed] = self.diverged[seed] = error
        return results

    def report(self, trainer: Trainer, epoch: int) -> dict[str, Any] | DivergedError | None:
        """What an epoch, from 1, gave for one of the trainers; None after the epoch in which it diverged."""
        if len(trainer.history) >= epoch:
            return trainer.history[epoch - 1]
        return self.diverged[trainer.config.seed] if len(trainer.history) == epoch - 1 else None

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs, safe to load with `weights_only=True`."""
        return {
            "epoch": self.epoch,
            "members": {str(trainer.config.seed): trainer.state_dict() for trainer in self.trainers},
            "diverged": {str(seed): str(error) for seed, error in self.diverged.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()` of an equal group.

        Raises:
            DataError: It is of another group; names the differences.
        """
        seeds = [trainer.config.seed for trainer in self.trainers]
        if list(state["members"]) != [str(seed) for seed in seeds]:
            raise DataError(
                f"this checkpoint holds the seeds {list(state['members'])}, this group trains {seeds}"
            )
        for trainer in self.trainers:
            trainer.load_state_dict(state["members"][str(trainer.config.seed)])
        self.diverged = {int(seed): DivergedError(reason) for seed, reason in state["diverged"].items()}

    def _alive(self) -> list[Trainer]:
        return [trainer for trainer in self.trainers if trainer.config.seed not in self.diverged]
