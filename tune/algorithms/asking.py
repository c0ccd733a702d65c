"""A search space as Optuna has it, and how a point of it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial

from tune.algorithms.space import Dimension, is_active


def distributions(space: Mapping[str, Dimension]) -> dict[str, BaseDistribution]:
    """The dimensions as Optuna has them, by name."""
    return {name: distribution(dimension) for name, dimension in space.items()}


def distribution(dimension: Dimension) -> BaseDistribution:
    """The dimension as Optuna has it."""
    if dimension.choices is not None:
        return CategoricalDistribution(dimension.choices)
    low, high, log, step = dimension.low, dimension.high, dimension.log, dimension.step
    if dimension.whole:
        return IntDistribution(low, high, log=log, step=step or 1)  # type: ignore[arg-type]
    return FloatDistribution(low, high, log=log, step=step)  # type: ignore[arg-type]


def ask(trial: BaseTrial, space: Mapping[str, Dimension]) -> dict[str, Any]:
    """The values that a trial of Optuna suggests, one dimension after the other; inactive ones are left out."""
    values: dict[str, Any] = {}
    for name, dimension in space.items():
        if is_active(dimension, values):
            values[name] = _suggest(trial, name, dimension)
    return values


def _suggest(trial: BaseTrial, name: str, dimension: Dimension) -> Any:
    if dimension.choices is not None:
        return trial.suggest_categorical(name, dimension.choices)
    assert dimension.low is not None
    assert dimension.high is not None
    if dimension.whole:
        return trial.suggest_int(
            name, int(dimension.low), int(dimension.high), log=dimension.log, step=int(dimension.step or 1)
        )
    return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log, step=dimension.step)
