"""Advice about a plan before it is run."""

from __future__ import annotations

import math
from collections.abc import Hashable
from itertools import product

from macil.config import TrialConfig
from macil.io.wording import plural
from macil.loss_weights import ramp_weight
from macil.training.equivalence import training_key
from tune.algorithms.space import Space, active_values, is_active
from tune.algorithms.stopping.registry import StoppingSettings
from tune.planning.equal_rows import equal_rows
from tune.planning.paper_sweeps import Sweep
from tune.storage.run_file import Scalar

_PUBLISHED_RAMP: float = TrialConfig.model_fields["ramp"].default
# Configurations that are compared with one another at most; a space with more has room for any search.
_MOST_COUNTED = 1000


def plan_notes(
    base: TrialConfig,
    space: Space,
    sweep: Sweep | None,
    stopping: StoppingSettings | None,
    usual_grace: int,
    trials: int,
    seeds: int,
    protocol: str,
) -> list[str]:
    """Sentences on what the options make be compared too early, twice, or by the test labels; the defaults need none.

    Args:
        base: The run's configuration.
        space: What is searched; empty for a sweep.
        sweep: The sweep, None for a search.
        stopping: Who stops trials early, None where nobody does.
        usual_grace: Epochs before trials are compared without any option.
        trials: Configurations to try, or trainings of a sweep.
        seeds: Seeds of a sweep's row, or of the winner's refit.
        protocol: `heldout` or `published`.
    """
    notes = []
    early = stopping if stopping is not None and stopping.grace < base.epochs else None
    if early is not None:
        notes += _compared_early(base, space, early, usual_grace)
    if sweep is None:
        notes += _repeated(base, space, trials)
    if sweep is not None:
        alike = _equal_rows(base, sweep, base.epochs)
        if alike:
            notes.append(
                f"rows that are the same training in {base.epochs} epochs: {alike}; raise --epochs to tell them apart"
            )
        if early is not None:
            at_first = _equal_rows(base, sweep, early.grace)
            if at_first != alike:
                notes.append(
                    f"rows that are the same training when {early.title} first compares them: {at_first}"
                )
            notes.append(
                f"{early.flags[0]}: rows that are stopped have no result at the last epoch and enter no mean; a "
                "table of the paper needs every row trained to its end"
            )
    if stopping is not None and protocol == "published":
        notes.append(
            f"published protocol: {stopping.title} stops trials by their test AP, which flatters those that go on"
        )
    if sweep is None and protocol == "published":
        notes.append(
            "published protocol: the search chooses by test AP, which flatters; the headline is the last epoch's; "
            "without --protocol a search selects by a part of the training videos, and reads no test label"
        )
    if sweep is None and seeds > 1:
        notes.append(
            f"each suggestion is trained with one seed; the winner is trained again with {seeds} seeds"
        )
    return notes


def distinct_points(space: Space) -> int | None:
    """How many configurations a space holds; None where it is continuous."""
    named = {other for dimension in space.values() for other in dimension.when}
    deciding = {name: dimension for name, dimension in space.items() if name in named}
    points = 0
    for active in _active_points(deciding):
        others = [
            dimension
            for name, dimension in space.items()
            if name not in named and is_active(dimension, active)
        ]
        if any(dimension.size is None for dimension in others):
            return None
        points += math.prod(dimension.size or 1 for dimension in others)
    return points


def points_text(points: int) -> str:
    """How a number of configurations of a space is written."""
    return "1 point" if points == 1 else f"{points} distinct points"


def distinct_trainings(base: TrialConfig, space: Space) -> int | None:
    """How many different trainings a space holds, by `macil.training.equivalence`; None: any number.

    What is continuous counts once where it changes nothing, as Λ in a single epoch.
    """
    finite = {name: each for name, each in space.items() if each.size is not None}
    continuous = {name: each for name, each in space.items() if name not in finite}
    if math.prod(each.size or 1 for each in finite.values()) > _MOST_COUNTED:
        return None
    keys: set[Hashable] = set()
    for values in _active_points(finite):
        # Weights and keys rise or fall with each value: equal at all corners is equal everywhere.
        own = set()
        for corner in product(*(each.ends for each in continuous.values())):
            ends = dict(zip(continuous, corner, strict=True))
            own.add(training_key(base.replace(**active_values(space, values | ends))))
        if len(own) > 1:
            return None
        keys |= own
    return len(keys)


def _active_points(space: Space) -> list[dict[str, Scalar]]:
    """Every point of a space of finite dimensions once, without what is inactive in it."""
    points: list[dict[str, Scalar]] = [{}]
    for name, dimension in space.items():
        points = [
            {**point, **value}
            for point in points
            for value in (
                [{name: each} for each in dimension.values] if is_active(dimension, point) else [{}]
            )
        ]
    return points


def _compared_early(
    base: TrialConfig, space: Space, stopping: StoppingSettings, usual_grace: int
) -> list[str]:
    """The trials that are one training when they are first compared, if the options make it so."""
    grace = stopping.grace
    largest = max(
        (float(space[name].ends[1]) for name in ("lambda_v2b", "lambda_v2n") if name in space), default=0.0
    )
    fixed = "ramp" not in space
    ramp = base.ramp if fixed else _PUBLISHED_RAMP
    reached = ramp_weight(grace - 1, ramp, math.inf)
    if reached >= largest or (not fixed and grace >= usual_grace):
        return []
    which = f"r = {ramp:g}" if fixed else f"the paper's r = {ramp:g} (r is searched)"
    note = (
        f"{stopping.title} first compares trials after {plural(grace, 'epoch')}, in which λ = r t reaches {reached:g} "
        f"with {which}: trials that differ only in a Λ above that (up to {largest:g}) are the same training until "
        f"then; raise --epochs or --grace, or use {stopping.flags[1]}, to tell them apart"
    )
    return [note]


def _repeated(base: TrialConfig, space: Space, trials: int) -> list[str]:
    """Trials that can only be another one again, digit by digit: all have the same seed."""
    different = distinct_trainings(base, space)
    if different is None or different >= trials:
        return []
    points = distinct_points(space)
    what = plural(different, "training" if different == 1 else "different training")
    if points == different:
        what = points_text(points) + (f" ({what})" if points == 1 else "")
    repeats = "trial repeats" if trials - different == 1 else "trials repeat"
    note = (
        f"the space holds only {what} in {plural(base.epochs, 'epoch')}, fewer than the {trials} trials: all have one "
        f"seed, so at least {trials - different} {repeats} another's training and its result; fix less, or lower "
        "--trials"
    )
    return [note]


def _equal_rows(base: TrialConfig, sweep: Sweep, epochs: int) -> str:
    """Which rows are one and the same training for that many epochs."""
    alike = equal_rows(base, ((row.name, row.changes) for row in sweep.rows), epochs)
    return "; ".join(" = ".join(names) for names in dict.fromkeys(alike.values()) if len(names) > 1)
