"""Measurements by epoch, from which curves are drawn."""

from __future__ import annotations

from dataclasses import dataclass

from tune.results.rows import EpochRow, TrialRow
from tune.results.run import RunResults

Curves = dict[tuple[str, str], list[EpochRow]]  # `TrialRow.key` -> its epochs, in order


@dataclass(frozen=True)
class Group:
    """Trials drawn alike under one name: a row of a sweep, or a single trial."""

    label: str
    trials: tuple[TrialRow, ...]
    refit: bool = False


def curves_of(results: RunResults) -> Curves:
    """The epochs of each training of a run."""
    curves: Curves = {}
    for row in results.epoch_rows:
        curves.setdefault(row.key, []).append(row)
    return curves


def measured(epoch: EpochRow, metric: str) -> float | None:
    """A measurement of an epoch, by the name of its column."""
    value: float | None = getattr(epoch, metric)
    return value
