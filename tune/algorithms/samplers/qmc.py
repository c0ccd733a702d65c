"""Scrambled Sobol points (Owen 1998): they fill the space more evenly than random ones, whatever was found.

A suggestion is the point of its number in the sequence that the search seed scrambles. Optuna's own QMC sampler counts
in the study how many points it gave, so that a suggestion hangs on more than its number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from scipy.stats import qmc

from tune.algorithms.samplers.settings import SamplerSettings


class PointSampler(BaseSampler):
    """Suggests one known value of each hyperparameter."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing depends on what was found."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing depends on what was found."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value of one hyperparameter."""
        return self._values[param_name]


def make_qmc(search_seed: int, number: int, settings: SamplerSettings) -> PointSampler:
    """The sampler of one suggestion."""
    sequence = qmc.Sobol(len(settings.space), rng=np.random.default_rng(search_seed))
    if number:
        sequence.fast_forward(number)
    (point,) = sequence.random(1)
    # Of all dimensions: which of them are searched together is found when the trial asks for them.
    dimensions = zip(settings.space.items(), point, strict=True)
    return PointSampler({name: dimension.at(float(x)) for (name, dimension), x in dimensions})
