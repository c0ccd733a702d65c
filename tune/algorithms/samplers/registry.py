"""The samplers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from optuna.samplers import BaseSampler

from tune.algorithms.samplers.gp import make_gp
from tune.algorithms.samplers.qmc import make_qmc
from tune.algorithms.samplers.random_search import make_random
from tune.algorithms.samplers.settings import SamplerSettings
from tune.algorithms.samplers.tpe import make_tpe

SamplerName = Literal["tpe", "random", "gp", "qmc"]


@dataclass(frozen=True)
class Sampler:
    """A sampler as the search knows it.

    Attributes:
        title: What people call it.
        make: The sampler of one suggestion, from the search seed, the suggestion's number and the search's settings.
        learns: Whether it looks at the scores, after some random suggestions.
        on_view: Whether it is asked on a view of the study (`tune.algorithms.study_view`), not on the study itself.
    """

    title: str
    make: Callable[[int, int, SamplerSettings], BaseSampler]
    learns: bool
    on_view: bool = False


SAMPLERS: Mapping[SamplerName, Sampler] = {
    "tpe": Sampler("TPE", make_tpe, learns=True),
    "random": Sampler("random search", make_random, learns=False),
    "gp": Sampler("a Gaussian process", make_gp, learns=True, on_view=True),
    "qmc": Sampler("scrambled Sobol points", make_qmc, learns=False),
}
