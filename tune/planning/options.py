"""The command line as given, which the plan is made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from macil.config import TrialConfig
from macil.data.reading import Reading
from macil.training.trainer import KeptScores
from tune.algorithms.samplers.registry import SamplerName
from tune.algorithms.stopping.registry import RuleName
from tune.planning.run_spec import RunProtocol
from tune.storage.run_file import Scalar

# Fields that are no flag of their own.
_NO_FLAGS = ("hyperparameters", "base")


class Options(Reading):
    """The options as typed; None where a default applies."""

    data: str | None = None
    sweep: str | None = None
    seeds: int | None = None
    trials: int | None = None
    protocol: RunProtocol | None = None
    sampler: SamplerName | None = None
    stopping: RuleName | Literal["none"] | None = None
    grace: int | None = None
    confirm: int | None = None
    confirm_seeds: int | None = None
    keep_scores: KeptScores | None = None
    search_seed: int | None = None
    split_seed: int | None = None
    concurrent: int | None = None
    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None
    trial_timeout: float | None = None
    preset: str | None = None
    config_file: str | None = None
    space_file: str | None = None
    search: tuple[str, ...] | None = None
    enqueue_file: str | None = None
    base: TrialConfig | None = None
    """The configuration of the preset or the file, with the hyperparameters over it."""
    hyperparameters: Mapping[str, Scalar] = {}

    def flags(self) -> dict[str, Scalar]:
        """Flag -> value, of those that are given."""
        own = {name: getattr(self, name) for name in type(self).model_fields if name not in _NO_FLAGS}
        # One text, in which each is a word.
        own["search"] = " ".join("".join(each.split()) for each in self.search or ()) or None
        given = {name: each for name, each in own.items() if each is not None}
        return as_flags({**given, **self.hyperparameters})


def as_flags(values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Options by name as flags by the text that is typed."""
    return {f"--{name.removesuffix('_file').replace('_', '-')}": value for name, value in values.items()}
