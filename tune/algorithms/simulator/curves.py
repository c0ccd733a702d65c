"""Recorded trainings, from the tables of a report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet

from macil.errors import DataError
from tune.algorithms.space import Space, active_values
from tune.storage.names import EPOCHS_TABLE, TRIALS_TABLE


@dataclass(frozen=True)
class Curve:
    """One training.

    Attributes:
        params: The searched hyperparameters.
        seed: Of its random numbers.
        scores: The selection score after each epoch, the first one's first; None where an epoch gave none.
        quality: What a choice of this training is judged by; None where it is not known.
        diverged: Whether it ended after these epochs without a result.
        error: Whether it raised after these epochs.
    """

    params: Mapping[str, Any]
    seed: int
    scores: tuple[float | None, ...]
    quality: float | None = None
    diverged: bool = False
    error: bool = False


def configuration_key(params: Mapping[str, Any]) -> str:
    """Equal for values that are equal to the last digit."""
    return json.dumps(params, sort_keys=True)


def read_curves(report: Path, space: Space, quality: str = "ap_trapezoid") -> list[Curve]:
    """The trainings of a run's search, in the order of its trials.

    Args:
        report: The folder of its report.
        space: What is searched.
        quality: The column of the table of trials that choices are judged by.

    Raises:
        DataError: A column is missing.
    """
    trials = pyarrow.parquet.read_table(report / TRIALS_TABLE)
    epochs = pyarrow.parquet.read_table(report / EPOCHS_TABLE)
    missing = [name for name in (*space, "seed", quality) if name not in trials.column_names]
    if missing:
        raise DataError(f"{report / TRIALS_TABLE} has no column {', '.join(missing)}")
    scores: dict[tuple[str, str], dict[int, float | None]] = {}
    for line in epochs.select(["trial_id", "kind", "epoch", "selection_score", "diverged"]).to_pylist():
        if not line["diverged"]:
            found = scores.setdefault((line["kind"], line["trial_id"]), {})
            found[line["epoch"]] = line["selection_score"]
    curves = []
    for row in trials.to_pylist():
        if row["kind"] == "search":
            own = scores.get((row["kind"], row["trial_id"]), {})
            curve = Curve(
                params=active_values(space, row),
                seed=row["seed"],
                scores=tuple(own.get(epoch) for epoch in range(1, max(own, default=0) + 1)),
                quality=row[quality],
                diverged=row["status"] == "diverged",
                error=row["status"] == "failed",
            )
            curves.append(curve)
    return curves
