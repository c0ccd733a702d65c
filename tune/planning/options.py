"""What was asked for, by a command line or by a call, which the plan is made from."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from macil.commands.cli import given_hyperparameters, resolve_config
from macil.config import PRESETS, TrialConfig
from macil.data.reading import Reading
from macil.data.split import SplitBy
from macil.errors import UsageError
from macil.io.remote import is_uri, local_path
from macil.io.text import brief
from macil.training.settings import KeptScores
from tune.algorithms.samplers.registry import SamplerName
from tune.algorithms.stopping.registry import RuleName
from tune.planning.run_spec import RunProtocol
from tune.storage.run_file import Scalar

_ModelT = TypeVar("_ModelT", bound=BaseModel)

CONFIRM = 3
"""Configurations that --confirm means where it gives no number."""
# Fields that are no flag of their own.
_NO_FLAGS = ("hyperparameters", "base")
# Fields that hold the path of a file.
_FILES = ("config", "space", "enqueue", "split")


class Options(Reading):
    """The options as given, named as on the command line; None where a default applies."""

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
    split_by: SplitBy | None = None
    split: str | None = None
    concurrent: int | None = None
    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None
    trial_timeout: float | None = None
    preset: str | None = None
    config: str | None = None
    space: str | None = None
    search: tuple[str, ...] | None = None
    enqueue: str | None = None
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


def options_of(values: Mapping[str, Any]) -> Options:
    """The options among `values`, by name, with the hyperparameters beside them; paths are made absolute.

    Args:
        values: A command line's or a call's. `config` may be a configuration itself, `search` a mapping of names to
            specifications.

    Raises:
        UsageError: A name that is none, or a value of another type, by name; a configuration that cannot be.
    """
    given = {name: value for name, value in values.items() if value is not None}
    require_names(given, {*Options.model_fields, *TrialConfig.model_fields} - set(_NO_FLAGS))
    hyperparameters = given_hyperparameters(given)
    own = {name: value for name, value in given.items() if name not in hyperparameters}
    if isinstance(own.get("data"), str | os.PathLike) and not is_uri(own["data"]):
        own["data"] = _absolute(own["data"])
    config, preset = own.get("config"), own.get("preset")
    if isinstance(config, TrialConfig):
        if preset is not None:
            raise UsageError("--preset and --config both say where to start from; give one of them")
        own["base"] = own.pop("config").replace(**hyperparameters)
    elif config is not None or preset in PRESETS:
        own["base"] = resolve_config(preset, None if config is None else local_path(config), hyperparameters)
    elif preset is not None:
        raise UsageError(f"--preset {preset} is not known; expected {', '.join(PRESETS)}")
    for name in _FILES:
        if isinstance(own.get(name), str | os.PathLike):
            own[name] = _absolute(own[name])
    if isinstance(search := own.get("search"), Mapping):
        own["search"] = tuple(f"{name}={spec}" for name, spec in search.items())
    elif isinstance(search, list):
        own["search"] = tuple(search)
    return checked(Options, {**own, "hyperparameters": hyperparameters})


def checked(model: type[_ModelT], values: Mapping[str, Any]) -> _ModelT:
    """`values` as a model of options.

    Raises:
        UsageError: Each value of another type, by the name of its option.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = {_flag(str(each["loc"][0])): each for each in error.errors()}
    lines = [
        f"{flag} {brief(each['input'])} is not allowed: {each['msg'][:1].lower()}{each['msg'][1:]}"
        for flag, each in faults.items()
    ]
    raise UsageError("\n".join(lines))


def require_names(given: Mapping[str, Any], known: set[str]) -> None:
    """Refuse what is no option.

    Raises:
        UsageError: Every unknown name, with the one that it is most like.
    """
    lines = []
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), 1)
            lines.append(f"there is no option {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    if lines:
        raise UsageError("\n".join(lines))


def _absolute(path: str | os.PathLike[str]) -> str:
    return str(local_path(path).absolute())


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def as_flags(values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Options by name as flags by the text that is typed."""
    return {f"--{name.removesuffix('_file').replace('_', '-')}": value for name, value in values.items()}
