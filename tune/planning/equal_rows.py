"""Rows of a sweep that are one and the same training: trained once, shown in all of them, counted once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from macil.config import TrialConfig
from macil.training.equivalence import training_key
from tune.planning.paper_sweeps import Row
from tune.planning.plan import Plan, PlannedRow
from tune.storage.trial_names import folder_name


def equal_rows(
    base: TrialConfig, rows: Iterable[tuple[str, Mapping[str, Any]]], epochs: int | None = None
) -> dict[str, tuple[str, ...]]:
    """Row -> all rows that are the same training as it, itself among them, in the order of the sweep.

    Args:
        base: The run's configuration.
        rows: Names and the hyperparameters that each sets.
        epochs: How long they are trained; None for as long as `base` says.

    Raises:
        ConfigError: A row is no configuration.
    """
    alike: dict[Hashable, list[str]] = {}
    for name, changes in rows:
        config = base.replace(**{**changes, "epochs": base.epochs if epochs is None else epochs})
        alike.setdefault(training_key(config), []).append(name)
    return {name: tuple(names) for names in alike.values() for name in names}


def planned_rows(base: TrialConfig, rows: Iterable[Row]) -> tuple[PlannedRow, ...]:
    """The rows of a sweep, each with the one that it is trained as.

    Raises:
        ConfigError: A row is no configuration together with `base`.
    """
    rows = list(rows)
    alike = equal_rows(base, ((row.name, row.changes) for row in rows))
    own = set(Row.model_fields)
    return tuple(PlannedRow(**row.model_dump(include=own), trained_as=alike[row.name][0]) for row in rows)


def planned_equal_rows(plan: Plan) -> dict[str, tuple[str, ...]]:
    """`equal_rows`, as the plan says; of rows without a `trained_as` no two are known to be equal."""
    groups: dict[str, list[str]] = {}
    for row in plan.rows:
        groups.setdefault(row.trained_as or row.name, []).append(row.name)
    return {name: tuple(names) for names in groups.values() for name in names}


def trained_folder(plan: Plan, trial: str) -> tuple[str, str, str] | None:
    """Where the training of a row lies that is the same as an earlier row's.

    Args:
        plan: Of the run.
        trial: The folder that the row's training would have had, `11_seed0`.

    Returns:
        The row, the row that was trained, and its folder; None when `trial` is no such row's.
    """
    for row, alike in planned_equal_rows(plan).items():
        for seed in plan.seeds:
            if trial == folder_name({"row": {"name": row}, "seed": seed}) and row != alike[0]:
                return row, alike[0], folder_name({"row": {"name": alike[0]}, "seed": seed})
    return None
