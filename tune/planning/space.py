"""The search space of a run: what the command line asks for, less what it fixes or switches off."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from macil.config import FIDELITY, TrialConfig, departures, head_fault, hyperparameters
from macil.errors import ConfigError, UsageError
from macil.io.command_line import command_line
from macil.io.wording import plural
from macil.training.equivalence import training_key
from tune.algorithms.space import Dimension, Space, active_values
from tune.planning.space_file import (
    DEFAULT,
    default_space,
    describe,
    in_order,
    read_search,
    read_space,
    text_of,
    to_text,
)
from tune.storage.run_file import Scalar

_HEADS = ("hidden_dim", "num_heads")
# Points of the space at which a dimension is looked at, and positions on it.
_LOOKED_AT, _POSITIONS = 32, (0.0, 0.37, 1.0)
# Faults of one kind that are shown.
_SHOWN = 3


def search_space(
    base: TrialConfig,
    fixed: Collection[str] = (),
    file: str | None = None,
    changes: Sequence[str] = (),
) -> Space:
    """The dimensions to search, in the order in which they are suggested; conditions name other dimensions alone.

    Args:
        base: The configuration the suggestions are put into. Dimensions whose condition is false in it leave the space.
        fixed: Hyperparameters given on the command line; they leave the space.
        file: A space file, in place of the default space.
        changes: Dimensions as `NAME=SPEC`, which are added or replace one.

    Raises:
        UsageError: Every fault of the file and of the changes; or nothing is left to search.
    """
    in_file: list[str] = []
    in_changes: list[str] = []
    default = default_space()
    given = default if file is None else read_space(Path(file), in_file)
    changed = read_search(changes, default | given, in_changes)
    twice = [name for name in changed if name in fixed]
    in_changes += [f"--search {name} is fixed too, by {_flag(name)}; leave one out" for name in twice]
    # A dimension with a fault is left out, and must not look like one that is fixed.
    whole = not (in_file or in_changes)
    given = in_order(given | changed, in_file)
    if whole and not in_file:
        space = _searched(given, base, fixed)
        for name in (each for each in given if each not in fixed):
            if name in changed and (fault := _no_effect(name, given, space, base)):
                in_changes.append(f"--search {name} can have no effect: {fault}")
            elif file is not None and name in space and (fault := _no_effect(name, given, space, base)):
                in_file.append(f"[{name}] can have no effect: {fault}")
        in_changes += _impossible(space, base, fixed)
    if in_file or in_changes:
        head = f"--space {file}:\n  " if file is not None and in_file else ""
        raise UsageError("\n".join([head + "\n  ".join(in_file)] * bool(in_file) + in_changes))
    if not space:
        once = command_line("macil", "train", "DATA", "--out", "DIR")
        raise UsageError(
            "nothing is left to search: every hyperparameter of the space is fixed on the command line or switched "
            f"off; leave one of {', '.join(given)} open, or train once: {once}"
        )
    return space


def published_point(space: Space) -> dict[str, Any]:
    """The paper's best point (Table 4 row 10, Figure 3, section 5.2), restricted to `space`: the first suggestion.

    A value outside its dimension is left out, and with it what is searched on its condition.
    """
    defaults = {parameter.name: parameter.default for parameter in hyperparameters()}
    held = {name: defaults[name] for name, dimension in space.items() if dimension.holds(defaults[name])}
    return active_values(space, held)


def space_text(space: Space) -> str:
    """The space as a file that `--space` reads; the default one with its comments."""
    if space == search_space(TrialConfig()):
        return DEFAULT.read_text(encoding="utf-8")
    return to_text(space)


def reference_title(values: Mapping[str, Any]) -> str:
    """The name of the reference configuration: "the paper's setting" only where it is that."""
    return "the reference" if departures(values) else "the paper's setting"


def _searched(given: Space, base: TrialConfig, fixed: Collection[str]) -> Space:
    """The dimensions that are searched, with those conditions that the base does not settle."""
    space: Space = {}
    for name, dimension in given.items():
        if name not in fixed and _unmet(dimension, base, space) is None:
            when = {
                other: tuple(filter(space[other].holds, values))
                for other, values in dimension.when.items()
                if other in space
            }
            space[name] = dimension.model_copy(update={"when": when})
    return space


def _unmet(dimension: Dimension, base: TrialConfig, space: Space) -> str | None:
    """The condition of a dimension that is met by no configuration, in words."""
    for other, values in dimension.when.items():
        value = getattr(base, other)
        if not any(map(space[other].holds, values)) if other in space else value not in values:
            wanted = " or ".join(map(text_of, values))
            found = f"searched as {describe(space[other])}" if other in space else text_of(value)
            return f"it is searched only with {other} = {wanted}, and {other} is {found}"
    return None


def _no_effect(name: str, given: Space, space: Space, base: TrialConfig) -> str | None:
    """Why all values of a dimension give the same training; None where they do not."""
    if name not in space:
        return _unmet(given[name], base, space)
    if _acts(space, name, base):
        return None
    for switch in ("contrast", "distill"):
        off = switch not in space and not getattr(base, switch)
        if off and _acts(space, name, base.replace(**{switch: True})):
            return f"{switch} is false"
    return f"in {plural(base.epochs, 'epoch')}, all its values give the same training"


def _acts(space: Space, name: str, base: TrialConfig) -> bool:
    """Whether two values of a dimension can give different trainings."""
    random = np.random.default_rng(0)
    dimension = space[name]
    for number in range(_LOOKED_AT):
        values = {other: each.at(random.random()) for other, each in space.items()} | _conditions(
            space, name, number
        )
        keys = set()
        for position in _POSITIONS if dimension.choices is None else np.arange(0.5, len(dimension.choices)):
            at = float(position) / (len(dimension.choices) if dimension.choices else 1)
            try:
                keys.add(
                    training_key(base.replace(**active_values(space, values | {name: dimension.at(at)})))
                )
            except ConfigError:  # told by itself
                continue
        if len(keys) > 1:
            return True
    return False


def _conditions(space: Space, name: str, number: int) -> dict[str, Scalar]:
    """Values of other dimensions with which this one is active; other ones for another number."""
    values: dict[str, Scalar] = {}
    for other, allowed in space[name].when.items():
        values |= {other: allowed[number % len(allowed)], **_conditions(space, other, number)}
    return values


def _impossible(space: Space, base: TrialConfig, fixed: Collection[str]) -> Iterator[str]:
    """What the dimensions give together and no configuration can be."""
    presets = {name for switches in FIDELITY.values() for name in switches}
    if "fidelity" in space:
        own = [
            name
            for name in TrialConfig.model_fields
            if name in presets - space.keys()
            and (name in fixed or getattr(base, name) != FIDELITY[base.fidelity][name])
        ]
        if own:
            yield (
                f"fidelity sets {', '.join(own)}, which the configuration sets itself; search those in its place, or "
                "leave them as they are preset"
            )
    if not space.keys().isdisjoint(_HEADS):
        found = {
            (values["hidden_dim"], values["num_heads"]): None for values in _width_and_heads(space, base)
        }
        wrong = [fault for width, heads in found if (fault := head_fault(width, heads))]
        if wrong:
            more = f" (and {len(wrong) - _SHOWN} more such pairs)" if len(wrong) > _SHOWN else ""
            pairs = "; ".join(fault.partition(";")[0] for fault in wrong[:_SHOWN])
            yield (
                f"the space holds what no configuration can be: {pairs}{more}; every head needs the same whole width: "
                "choose steps of hidden_dim that every num_heads divides, as --search hidden_dim=LOW..HIGH:step=STEP, "
                "or fix one of them"
            )


def _width_and_heads(space: Space, base: TrialConfig) -> Iterator[dict[str, int]]:
    """Each hidden size with each number of heads that the space can give with it."""
    names = list(_HEADS)
    for name in names:  # and what they depend on, and so on
        if name in space:
            names += [other for other in space[name].when if other not in names]
    concerned = {name: dimension for name, dimension in space.items() if name in names}
    for point in product(*(_told_apart(name, concerned) for name in concerned)):
        active = active_values(concerned, dict(zip(concerned, point, strict=True)))
        yield {name: active.get(name, getattr(base, name)) for name in _HEADS}


def _told_apart(name: str, space: Space) -> list[Scalar]:
    """The values of a dimension; of one that only conditions look at, one of those that they do not tell apart."""
    values = space[name].values
    if name in _HEADS:
        return list(values)
    named = {value for dimension in space.values() for value in dimension.when.get(name, ())}
    others = [value for value in values if value not in named]
    return [*(value for value in values if value in named), *others[:1]]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
