"""Axes as all figures of a report have them: ticks, limits, legends and names.

How pictures look and are saved is in `macil.io.pictures`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import MaxNLocator

from macil.config import hyperparameters

SKY = "#56B4E9"  # the palette's light blue: what stands behind COLOURS[0]


def whole_numbers() -> MaxNLocator:
    """Ticks at round whole numbers."""
    return MaxNLocator(integer=True, steps=[1, 2, 5, 10])


def mark_size(count: int) -> float:
    """Area of a mark in square points: fewer than `count` would hide one another if they were large."""
    return 20.0 if count <= 200 else 7.0


def view(marks: Sequence[float], intervals: Sequence[tuple[float, float] | None]) -> tuple[float, float]:
    """Limits of an axis of percentages that shows every mark, and of the intervals what is near them.

    The interval of three seeds is several times as wide as they are apart: it would leave little of all else to see.
    """
    low, high = min(marks), max(marks)
    reach = max(0.6 * (high - low), 1.0)
    ends = [end for interval in intervals if interval for end in interval]
    low, high = (
        max(low - reach, min([low - 0.1 * reach, *ends])),
        min(high + reach, max([high + 0.1 * reach, *ends])),
    )
    return max(low, 0.0), min(high, 100.5)


def unique_handles(panels: Iterable[Axes]) -> tuple[list[Any], list[str]]:
    """Legend entries of several panels, each name once."""
    by_label: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        by_label |= {
            label: handle for label, handle in zip(labels, handles, strict=True) if label not in by_label
        }
    return list(by_label.values()), list(by_label)


def described(name: str) -> str:
    """A hyperparameter with its symbol, where it has one: "momentum (m)"."""
    symbol = {parameter.name: parameter.symbol for parameter in hyperparameters()}.get(name)
    return f"{name} ({symbol})" if symbol else name


def list_rows(axes: Axes, names: Sequence[str]) -> None:
    """A name beside each position 0, 1, … of the vertical axis, from the top."""
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 of each decade, so that an axis of less than a decade has labels too; of many, 1 and 5."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    return [tick for tick in ticks if f"{tick:e}"[0] in "15"] if len(ticks) > 6 else ticks


def label_log_axis(axis: Axis) -> None:
    """Plain numbers at `log_ticks`."""
    ticks = log_ticks(*sorted(axis.get_view_interval()))
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axis.set_ticks([], minor=True)
