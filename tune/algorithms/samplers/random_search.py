"""Random search (Bergstra and Bengio 2012): every suggestion is drawn from the whole space, whatever was found."""

from __future__ import annotations

from optuna.samplers import RandomSampler

from tune.algorithms.samplers.settings import SamplerSettings, suggestion_seed


def make_random(search_seed: int, number: int, _: SamplerSettings) -> RandomSampler:
    """The sampler of one suggestion."""
    return RandomSampler(seed=suggestion_seed(search_seed, number))
