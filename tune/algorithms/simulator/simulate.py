"""A simulated search: what is suggested and stopped, and how many epochs that takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from macil.errors import DataError
from tune.algorithms.samplers.registry import SamplerName
from tune.algorithms.simulator.curves import Curve
from tune.algorithms.simulator.environment import Environment
from tune.algorithms.space import Space
from tune.algorithms.stopping.registry import StoppingSettings
from tune.algorithms.stopping.rule import Decision, StoppingRule
from tune.algorithms.study import SearchStudy


@dataclass(frozen=True)
class SimulatedTrial:
    """What became of a trial.

    Attributes:
        number: Its row in the study.
        params: Its configuration.
        scores: The selection score after each epoch that it was given.
        stopped: Whether it was stopped before its last epoch.
        failed: Whether it diverged or raised.
        quality: What its configuration is worth.
    """

    number: int
    params: Mapping[str, Any]
    scores: tuple[float | None, ...]
    stopped: bool
    failed: bool
    quality: float | None

    @property
    def epochs(self) -> int:
        """Epochs that it was given."""
        return len(self.scores)


@dataclass
class _Going:
    """A trial that is being trained: its curve, and the epochs that it has had."""

    name: str
    number: int
    curve: Curve
    epoch: int = 0


def simulate(
    space: Space,
    environment: Environment,
    *,
    trials: int,
    startup: int,
    seed: int = 0,
    sampler: SamplerName = "tpe",
    stopping: StoppingSettings | None = None,
    initial: tuple[Mapping[str, Any], ...] = (),
    together: int = 1,
    budget: int | None = None,
    journal: Path | None = None,
) -> list[SimulatedTrial]:
    """Search, as `SearchStudy` and the stopping rule of a real search do.

    Args:
        space: What is searched.
        environment: What takes the place of training.
        trials: Suggestions, at most.
        startup, seed, sampler, initial: See `tune.algorithms.study.SearchStudy`.
        stopping: The rule; None to train all to their end.
        together: Trials at once, one epoch each in turn.
        budget: Epochs of all trials; no trial begins when they are spent, and those that go beyond them are left out.
            None is no limit.
        journal: File of the study; None for none.

    Returns:
        The trials by number.

    Raises:
        DataError: A curve is shorter than what a trial is to be trained for.
    """
    study = SearchStudy(
        space,
        journal,
        sampler=sampler,
        seed=seed,
        epochs=environment.epochs,
        startup=startup,
        initial=initial,
        settle=environment.settle,
    )
    rule = None if stopping is None else stopping.make(environment.epochs)
    going: list[_Going] = []
    ended: list[SimulatedTrial] = []
    spent = 0
    while True:
        while len(going) < together and study.rows < trials and (budget is None or spent < budget):
            name = f"{study.rows:05d}"
            found = study.suggest(name)
            going.append(_Going(name, found.number, environment.train(found.params, found.number)))
        if not going:
            return sorted(ended, key=lambda trial: trial.number)
        for trial in list(going):
            trial.epoch += 1
            spent += 1
            done = _train_epoch(trial, study, rule, environment.epochs)
            if done is not None:
                going.remove(trial)
                if budget is None or spent <= budget:
                    ended.append(done)


def _train_epoch(
    trial: _Going, study: SearchStudy, rule: StoppingRule | None, epochs: int
) -> SimulatedTrial | None:
    """One more epoch of a trial; what became of it, if it ended."""
    curve, epoch = trial.curve, trial.epoch
    if epoch > len(curve.scores):
        if not (curve.diverged or curve.error):
            raise DataError(f"the curve of {dict(curve.params)} ends before epoch {epoch}")
        if rule is not None and curve.diverged:
            rule.forget(trial.name)
        study.end(trial.name, epoch, None)
        return SimulatedTrial(trial.number, curve.params, curve.scores, False, True, curve.quality)
    score = curve.scores[epoch - 1]
    study.report(trial.name, epoch, score)
    stop = False
    if epoch == epochs:
        if rule is not None:
            rule.complete(trial.name, epoch, score)
    elif rule is not None:
        stop = rule.observe(trial.name, epoch, score) is Decision.STOP
    if not stop and epoch < epochs:
        return None
    study.end(trial.name, epoch, score)
    return SimulatedTrial(
        trial.number, curve.params, curve.scores[:epoch], stop, score is None, curve.quality
    )
