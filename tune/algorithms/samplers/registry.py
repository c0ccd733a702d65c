"""The samplers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from tune.algorithms.samplers.settings import SamplerSettings

SamplerName = Literal["tpe", "random", "gp", "qmc"]


@dataclass(frozen=True)
class Sampler:
    """A sampler as the search knows it.

    Attributes:
        title: What people call it.
        maker: Module in this folder and its function that makes the sampler; imported when it is used, and Optuna
            with it.
        learns: Whether it looks at the scores, after some random suggestions.
        on_view: Whether it is asked on a view of the study (`tune.algorithms.study_view`), not on the study itself.
    """

    title: str
    maker: str
    learns: bool
    on_view: bool = False

    def make(self, search_seed: int, number: int, settings: SamplerSettings) -> BaseSampler:
        """The sampler of one suggestion, from the search seed, its number and the settings of the search."""
        module, _, function = self.maker.partition(":")
        home = import_module(f"tune.algorithms.samplers.{module}")
        make: Callable[[int, int, SamplerSettings], BaseSampler] = getattr(home, function)
        return make(search_seed, number, settings)


SAMPLERS: Mapping[SamplerName, Sampler] = {
    "tpe": Sampler("TPE", "tpe:make_tpe", learns=True),
    "random": Sampler("random search", "random_search:make_random", learns=False),
    "gp": Sampler("a Gaussian process", "gp:make_gp", learns=True, on_view=True),
    "qmc": Sampler("scrambled Sobol points", "qmc:make_qmc", learns=False),
}
