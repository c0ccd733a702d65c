"""Importances of the hyperparameters: what sets the best trials apart, with how far that depends on the trials."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import optuna
from matplotlib.figure import Figure
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from macil.errors import DataError
from macil.io.pictures import BLACK, COLOURS, WIDTH
from macil.io.wording import plural
from tune.algorithms.asking import distribution
from tune.reporting.figures.axes import described, list_rows
from tune.reporting.figures.captions import score_basis
from tune.reporting.figures.drawing import Drawing
from tune.reporting.figures.hyperparameters import logarithmic, searched
from tune.reporting.statistics.intervals import LEVEL
from tune.results.ranking import different_trainings
from tune.results.rows import TrialRow
from tune.results.run import RunResults

# PED-ANOVA looks at the best tenth of the trials: of fewer, at a handful that chance has put together.
_FEWEST = 50
# Sets of trials that the intervals rest on.
RESAMPLES = 200


def importances(results: RunResults, trials: Sequence[TrialRow]) -> Drawing | None:
    """The figure of a search over at least two hyperparameters.

    Raises:
        DataError: Too few trials were trained to the end, or all have one score.
    """
    if len(searched(results)) < 2:
        return None
    different = [results.active_row(trial) for trial in different_trainings(trials)]
    ended = frozen_trials(results, different)
    repeats = len(trials) - len(different)
    once = f" ({plural(repeats, 'trial')} repeated another's training)" if repeats else ""
    if len(ended) < _FEWEST:
        raise DataError(
            f"{len(ended)} of {len(different)} trials were trained to the end{once}; at least "
            f"{_FEWEST} are needed, since importances rest on the best tenth of them"
        )
    if len({trial.value for trial in ended}) < 2:
        raise DataError("all trials have the same score; nothing can matter")
    if len(_in_every_trial(ended)) < 2:
        raise DataError(
            "fewer than two hyperparameters were searched in every trial; the others have conditions"
        )
    conditional = any(dimension.when for dimension in results.plan.space.values())
    caption = (
        "Share of each hyperparameter in what tells the best tenth of the trials from all of them (PED-ANOVA, as "
        f"Optuna computes it), from the {len(ended)} trials that were trained to the end{once}; those stopped early "
        f"take no part. Lines: 95 % interval, from {RESAMPLES} sets of as many trials drawn with replacement; "
        "hyperparameters whose lines overlap widely are not told apart. "
        + "What was searched under a condition has none: not every trial has it. " * conditional
        + score_basis(results, "one seed a trial")
    )
    found = shares(ended, RESAMPLES)
    alt = "Bars with intervals: " + ", ".join(
        f"{name} {share.value:.2f} from {share.low:.2f} to {share.high:.2f}" for name, share in found.items()
    )
    return Drawing("Importances of the hyperparameters", caption, f"{alt}.", lambda: draw(found))


class Share(NamedTuple):
    """A hyperparameter's importance, from 0 to 1, with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def draw(found: Mapping[str, Share]) -> Figure:
    """Share of each hyperparameter, as bars with their intervals."""
    figure = Figure(figsize=(WIDTH, 0.8 + 0.3 * len(found)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(found)), [share.value for share in found.values()], height=0.6, color=COLOURS[0])
    for index, share in enumerate(found.values()):
        axes.plot((share.low, share.high), (index, index), color=BLACK, linewidth=1.4, marker="|")
    list_rows(axes, list(map(described, found)))
    axes.set(xlabel="importance, share, with its 95 % interval", xlim=(0, 1))
    return figure


def shares(ended: Sequence[FrozenTrial], resamples: int) -> dict[str, Share]:
    """Importance of each hyperparameter, largest first: PED-ANOVA of `ended`.

    The interval is the percentile interval over sets of as many trials, drawn from them with replacement.

    Args:
        ended: Trials with at least two different values.
        resamples: How many sets are drawn; always the same ones.
    """
    random = np.random.default_rng(0)
    drawn = [
        _importances_of([ended[index] for index in random.integers(0, len(ended), len(ended))])
        for _ in range(resamples)
    ]
    tail = (1 - LEVEL) / 2
    found = {}
    for name, value in _importances_of(ended).items():
        low, high = np.quantile([each[name] for each in drawn], (tail, 1 - tail))
        found[name] = Share(value, float(low), float(high))
    return found


def frozen_trials(results: RunResults, trials: Sequence[TrialRow]) -> list[FrozenTrial]:
    """The trials that were trained to the end as Optuna's, made from the tables.

    The study on disk is the search's; a copy of a run may lack it, and a newer Optuna may write it otherwise.
    """
    distributions = _distributions(results, trials)
    ended = [t for t in trials if t.status == "finished" and t.selection_score is not None]
    found = []
    for number, trial in enumerate(ended):
        params = {name: trial.config[name] for name in distributions if name in trial.config}
        found.append(
            FrozenTrial(
                number=number,
                trial_id=number,
                state=TrialState.COMPLETE,
                value=trial.selection_score,
                params=params,
                distributions={name: distributions[name] for name in params},
                datetime_start=None,
                datetime_complete=None,
                user_attrs={},
                system_attrs={},
                intermediate_values={},
            )
        )
    return found


class _Given(InMemoryStorage):
    """A study of trials that are at hand: to add a thousand one by one takes ten times as long as the analysis."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._given = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials for Optuna, never copied: they are only read."""
        del study_id, deepcopy
        return [trial for trial in self._given if states is None or trial.state in states]


def _importances_of(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    with _quiet_optuna():
        study = optuna.create_study(direction="maximize", storage=_Given(trials))
        return optuna.importance.get_param_importances(study, params=_in_every_trial(trials))


def _in_every_trial(trials: Sequence[FrozenTrial]) -> list[str]:
    """The hyperparameters that were searched in all trials: no condition left them out."""
    return [name for name in trials[0].params if all(name in trial.params for trial in trials)]


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Optuna announces every study that is made."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _distributions(results: RunResults, trials: Sequence[TrialRow]) -> dict[str, BaseDistribution]:
    """The plan's space if it holds every value that was tried, else one of the values: a space may have changed."""
    found: dict[str, BaseDistribution] = {}
    for name in searched(results):
        tried: set[Any] = {trial.config[name] for trial in trials if name in trial.config}
        values = sorted(tried)
        if not values:
            continue
        planned = results.plan.space[name]
        if all(map(planned.holds, values)):
            found[name] = distribution(planned)
        else:
            found[name] = _spanning(values, log=name in logarithmic(results))
    return found


def _spanning(values: list[Any], *, log: bool) -> BaseDistribution:
    log = log and values[0] > 0
    if isinstance(values[0], bool | str) or (isinstance(values[0], int) and len(values) <= 5):
        return CategoricalDistribution(values)
    if isinstance(values[0], int):
        return IntDistribution(values[0], values[-1], log=log)
    return FloatDistribution(values[0], values[-1], log=log)
