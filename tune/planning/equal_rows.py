"""Rows of a sweep that are one and the same training: trained once, shown in all of them, counted once."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from macil.config import TrialConfig
from macil.errors import ConfigError
from macil.training.equivalence import training_key
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


def planned_equal_rows(plan: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """`equal_rows` of a plan.json: as it says; computed where it does not, as one of an earlier version.

    A plan without the configurations of its rows has no two that are known to be equal.
    """
    rows = [row for row in plan.get("rows") or [] if isinstance(row, dict)]
    if any("trained_as" in row for row in rows):
        groups: dict[str, list[str]] = {}
        for row in rows:
            groups.setdefault(str(row.get("trained_as") or row.get("name")), []).append(str(row.get("name")))
        return {name: tuple(names) for names in groups.values() for name in names}
    pairs = [(str(row.get("name")), row.get("changes") or {}) for row in rows]
    return dict(_computed(json.dumps([plan.get("base"), pairs], sort_keys=True, default=str)))


def trained_folder(plan: Mapping[str, Any], trial: str) -> tuple[str, str, str] | None:
    """Where the training of a row lies that is the same as an earlier row's.

    Args:
        plan: plan.json.
        trial: The folder that the row's training would have had, `11_seed0`.

    Returns:
        The row, the row that was trained, and its folder; None when `trial` is no such row's.
    """
    for row, alike in planned_equal_rows(plan).items():
        for seed in plan.get("seeds") or ():
            if trial == folder_name({"row": {"name": row}, "seed": seed}) and row != alike[0]:
                return row, alike[0], folder_name({"row": {"name": alike[0]}, "seed": seed})
    return None


@lru_cache(maxsize=8)
def _computed(content: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """A report asks often, and a sweep may have a thousand rows."""
    base, pairs = json.loads(content)
    try:
        groups = equal_rows(TrialConfig.from_dict(base), pairs) if base else {}
    except ConfigError:
        groups = {}
    return tuple((name, groups.get(name, (name,))) for name, _ in pairs)
