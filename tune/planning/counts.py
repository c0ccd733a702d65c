"""Counts that several outputs show, each counted and worded in one way."""

from __future__ import annotations

from collections.abc import Mapping

from macil.io.wording import plural

# Kind of a training -> what its epochs were spent on.
_SPENT_ON = {"search": "in the trials", "confirm": "in the confirmation", "refit": "in the refit"}


def counted_rows(rows: int, trainings: int, seeds: int) -> str:
    """How many rows, of how many different trainings, with how many seeds: "12 rows that are 6 trainings × 3 seeds"."""
    same = f" that are {plural(trainings, 'training')}" if trainings < rows else ""
    return f"{plural(rows, 'row')}{same} × {plural(seeds, 'seed')}"


def epochs_text(by_kind: Mapping[str, int]) -> str:
    """The sum of the epochs, with their shares if there are several: "178 (170 in the trials, 8 in the refit)"."""
    parts = [f"{by_kind[kind]:,} {where}" for kind, where in _SPENT_ON.items() if by_kind.get(kind)]
    return f"{sum(by_kind.values()):,}" + (f" ({', '.join(parts)})" if len(parts) > 1 else "")
