"""A run's trials as an Optuna study in memory, so that Optuna's own plots draw partial and mirrored runs too.

The study on disk is the search's; a copy of a run may lack it, and a newer Optuna may write it otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial

from macil.config import TrialConfig, hyperparameters
from macil.errors import MacilError
from tune.results import RunResults
from tune.space import search_space

Trial = dict[str, Any]

_STATES = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED}


def searched(results: RunResults) -> list[str]:
    """The hyperparameters of the search space, in the order of `TrialConfig`; empty for a sweep."""
    space = results.plan.get("space")
    names = set(space) if isinstance(space, dict) else set()
    return [parameter.name for parameter in hyperparameters() if parameter.name in names]


def score_study(results: RunResults, trials: Sequence[Trial]) -> optuna.Study:
    """The trials with their selection score: COMPLETE where trained to the end, PRUNED where stopped, else FAIL."""
    distributions = _distributions(results, trials)
    with _quiet():
        study = optuna.create_study(direction="maximize")
    study.add_trials(
        create_trial(
            state=_state(trial),
            values=None if _state(trial) == TrialState.FAIL else [trial["selection_score"]],
            params=_params(trial, distributions),
            distributions={name: distributions[name] for name in _params(trial, distributions)},
        )
        for trial in trials
    )
    return study


def front_study(trials: Sequence[Trial], column: str, scale: float) -> optuna.Study:
    """Few parameters against a high `column` (times `scale`), two objectives; only trials that have both."""
    with _quiet():
        study = optuna.create_study(directions=["minimize", "maximize"])
    study.add_trials(
        create_trial(values=[trial["parameters"], scale * trial[column]])
        for trial in trials
        if None not in (trial["parameters"], trial[column])
    )
    return study


def _state(trial: Trial) -> TrialState:
    if trial["selection_score"] is None:
        return TrialState.FAIL
    return _STATES.get(trial["status"], TrialState.FAIL)


def _params(trial: Trial, distributions: dict[str, BaseDistribution]) -> dict[str, Any]:
    return {name: trial[name] for name in distributions if trial[name] is not None}


def _distributions(results: RunResults, trials: Sequence[Trial]) -> dict[str, BaseDistribution]:
    """Those of the plan where they hold every value that was tried, else of the values: a space may have changed."""
    planned = _planned(results)
    found: dict[str, BaseDistribution] = {}
    for name in searched(results):
        values = sorted({trial[name] for trial in trials if trial[name] is not None})
        if not values:
            continue
        known = planned.get(name)
        if known is not None and all(_holds(known, value) for value in values):
            found[name] = known
        else:
            found[name] = _spanning(values, log="logarithmic" in str(results.plan["space"][name]))
    return found


def _planned(results: RunResults) -> dict[str, BaseDistribution]:
    try:
        return search_space(TrialConfig.from_dict(results.plan["base"]), results.plan.get("fixed") or ())
    except (MacilError, KeyError):
        return {}


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except ValueError:
        return False


def _spanning(values: list[Any], *, log: bool) -> BaseDistribution:
    log = log and values[0] > 0
    if isinstance(values[0], bool | str) or (isinstance(values[0], int) and len(values) <= 5):
        return CategoricalDistribution(values)
    if isinstance(values[0], int):
        return IntDistribution(values[0], values[-1], log=log)
    return FloatDistribution(values[0], values[-1], log=log)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna announces every study that is made."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
