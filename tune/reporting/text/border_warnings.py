"""A best point at the border of the space: what lies beyond was never tried."""

from __future__ import annotations

import math
from typing import Any

from macil.config import Hyperparameter, hyperparameters
from macil.errors import ConfigError
from macil.training.equivalence import training_key
from macil.training.silent_terms import silent_epochs
from tune.algorithms.space import Dimension
from tune.planning.space_file import describe
from tune.reporting.statistics.outcome import Outcome
from tune.reporting.text import wording
from tune.results.rows import TrialRow
from tune.results.run import RunResults

# A value so near to an end, as a share of the range, was suggested there.
_NEAR = 0.01
# What acts through the contrastive terms alone.
_CONTRAST = ("lambda_v2b", "lambda_v2n", "ramp", "temperature")


def border_warnings(results: RunResults, outcome: Outcome) -> list[str]:
    """A sentence for each searched hyperparameter whose value in the chosen trial is at an end of its range.

    An end that is the limit of the hyperparameter itself, as m = 1, is none to look beyond.
    """
    space, trial = results.plan.space, outcome.searched
    if trial is None:
        return []
    messages = []
    for parameter in hyperparameters():
        value = trial.config.get(parameter.name)
        if parameter.name in space and value is not None:
            try:
                beyond = _beyond(parameter, value, space[parameter.name])
            except (ValueError, ArithmeticError):  # a plan that was changed by hand
                continue
            if beyond is not None and _acts(results, trial, parameter.name, beyond):
                end, text, _, further = beyond
                messages.append(_sentence(parameter, value, end, text, further, trial.name))
    return messages


def _acts(results: RunResults, trial: TrialRow, name: str, beyond: tuple[str, str, float, float]) -> bool:
    """Whether the value makes the training what it is: one that had no effect stands at the border by chance.

    So does a Λ that λ = min(r t, Λ) never reached, or an r that reached Λ at once, and all of them where every
    contrastive term was 0.
    """
    _, _, other_end, further = beyond
    own = trial.config[name]
    try:
        keys = [
            training_key(trial.configuration().replace(**{name: type(own)(value)}))
            for value in (own, other_end, further)
        ]
    except ConfigError:  # as a width that its heads do not divide
        return True
    if keys[0] in keys[1:]:
        return False
    silent, epochs = silent_epochs(row.contrast for row in results.epoch_rows if row.key == trial.key)
    return not (name in _CONTRAST and silent == epochs > 0)


def _sentence(
    parameter: Hyperparameter, value: Any, end: str, searched: str, further: float, trial: str
) -> str:
    flag = f"--{parameter.name.replace('_', '-')}"
    name = parameter.symbol or parameter.name
    return (
        f"The best point is at the border of the space: {name} = {wording.value(value, 3)} of trial {trial} is at the "
        f"{end} end of what was searched ({searched}), so that a better one may lie beyond. Look there: the same "
        f"search with {flag} {further:g} fixes it further out."
    )


def _beyond(
    parameter: Hyperparameter, value: Any, dimension: Dimension
) -> tuple[str, str, float, float] | None:
    """Which end, what was searched, its other end, and a value beyond; None inside, or where nothing is beyond."""
    if parameter.type in (bool, str) or (dimension.size is not None and not dimension.holds(value)):
        return None
    low, high = map(float, dimension.ends)
    start, stop, at = (math.log(x) if dimension.log else x for x in (low, high, value))
    share = (at - start) / (stop - start)
    near = _NEAR if dimension.size is None else 0.0
    if near < share < 1 - near or math.isnan(share):
        return None
    upper = share > 0.5
    end, limit = (high, parameter.high) if upper else (low, parameter.low)
    assert limit is not None
    if end == limit:
        return None
    further = _further(dimension, end, high - low, upper=upper)
    further = math.ceil(further) if parameter.type is int else further
    further = min(further, limit) if upper else max(further, limit)
    if further == parameter.low and parameter.low_exclusive:
        further = end / 2
    return "upper" if upper else "lower", describe(dimension), low if upper else high, further


def _further(dimension: Dimension, end: float, width: float, *, upper: bool) -> float:
    if dimension.log or dimension.choices is not None or (not upper and 0 < end <= (dimension.step or 0)):
        return 2 * end if upper else end / 2
    step = width / 4 if dimension.step is None else dimension.step
    return end + step if upper else end - step
