"""The tree-structured Parzen estimator (TPE) of Optuna: what parted the better trials from the others is suggested.

It takes stopped trials as they are: by how far they came, and by the score that they had there.
"""

from __future__ import annotations

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler

from tune.algorithms.optuna_internals import share_search_space
from tune.algorithms.samplers.settings import SamplerSettings, suggestion_seed


def make_tpe(search_seed: int, number: int, settings: SamplerSettings) -> TPESampler:
    """The sampler of one suggestion."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # of `group`
        # constant_liar: running trials count as bad ones, so that parallel trials do not all go to the same point.
        sampler = TPESampler(
            seed=suggestion_seed(search_seed, number),
            multivariate=True,
            constant_liar=True,
            n_startup_trials=settings.startup,
            # Models what is searched only beside some values of others too, apart from the rest.
            group=settings.conditional,
        )
    share_search_space(sampler, settings.seen)
    return sampler
