"""Rows of a run's tables with values of the test's choice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from macil.config import TrialConfig
from tune.results.rows import EpochRow, TrialRow

_USUAL = {"kind": "search", "status": "finished", "epoch_rule": "last"}


def trial_rows(rows: Iterable[Mapping[str, Any]]) -> list[TrialRow]:
    """A row from the columns that are given, hyperparameters among them; the others as of a finished trial."""
    found = []
    for row in rows:
        given = {name: value for name, value in row.items() if value is not None}
        values = {**_USUAL, "trial_id": row["trial_dir"], **given}
        config = {name: values.pop(name) for name in TrialConfig.model_fields if name in values}
        found.append(TrialRow(**values, config=config))
    return found


def epoch_rows(rows: Iterable[Mapping[str, Any]]) -> list[EpochRow]:
    """A row from the columns that are given."""
    return [EpochRow(**{"kind": "search", **row}) for row in rows]
