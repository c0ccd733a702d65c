"""The tree-structured Parzen estimator (TPE) of Optuna, made anew for each suggestion."""

from __future__ import annotations

import hashlib

from optuna.samplers import TPESampler
from optuna.search_space import IntersectionSearchSpace

from tune.algorithms.optuna_internals import share_search_space


def make_tpe(search_seed: int, number: int, startup: int, space: IntersectionSearchSpace) -> TPESampler:
    """The sampler of one suggestion, which is then a function of the study and these numbers alone.

    Args:
        search_seed: Seed of the search.
        number: Of the suggestion.
        startup: Finished trials before the model of the scores is used; random suggestions until then.
        space: The search space of the study's rows so far, kept from suggestion to suggestion.
    """
    digest = hashlib.blake2b(f"{search_seed}/suggestion/{number}".encode(), digest_size=4).digest()
    # constant_liar: running trials count as bad ones, so that parallel trials do not all go to the same point.
    sampler = TPESampler(
        seed=int.from_bytes(digest, "little"), multivariate=True, constant_liar=True, n_startup_trials=startup
    )
    share_search_space(sampler, space)
    return sampler
