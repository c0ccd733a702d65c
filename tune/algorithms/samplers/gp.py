"""A Gaussian process on the scores and the logarithm of its expected improvement (Ament et al. 2023), Optuna's.

It models finished trials alone, so it is asked on a view of the study in which stopped trials are finished
(`tune.algorithms.study_view`). What is searched beside certain values of others alone is drawn at random: it is no
dimension of the process. The process is fitted anew for every suggestion, on one thread.
"""

from __future__ import annotations

from optuna.samplers import GPSampler

from tune.algorithms.optuna_internals import optimise_one_by_one
from tune.algorithms.samplers.settings import SamplerSettings, suggestion_seed


def make_gp(search_seed: int, number: int, settings: SamplerSettings) -> GPSampler:
    """The sampler of one suggestion."""
    optimise_one_by_one()
    return GPSampler(
        seed=suggestion_seed(search_seed, number),
        n_startup_trials=settings.startup,
        warn_independent_sampling=False,
    )
