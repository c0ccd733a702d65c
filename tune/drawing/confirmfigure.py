"""How much the best of a search regressed: the score they were chosen by against those of fresh seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from macil.look import BLACK, COLOURS, WIDTH
from tune.drawing.figures import shorten, unique_handles
from tune.reporting.intervals import MARGIN, Bounds, Estimate, estimate


@dataclass(frozen=True)
class Confirmation:
    """A configuration trained again: its score in the search, those of fresh seeds, and a note below its name."""

    name: str
    note: str
    searched: float | None
    fresh: tuple[float, ...]
    within: Bounds = MARGIN
    """What the scores lie between."""

    @property
    def mean(self) -> Estimate | None:
        """Of `fresh`, with its interval."""
        return estimate(self.fresh, self.within)


def regression(rows: Sequence[Confirmation]) -> Figure | None:
    """Scores of the search (hollow) and of fresh seeds with mean and interval, a row a configuration."""
    if not any(row.fresh for row in rows):
        return None
    figure = Figure(figsize=(WIDTH, 1.1 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        found = row.mean
        if row.searched is not None:
            style: Any = {"markerfacecolor": "white", "markeredgecolor": COLOURS[1], "markersize": 6.5}
            axes.plot(row.searched, place, "D", label="in the search (one seed)", zorder=4, **style)
        if found is None:
            continue
        if row.searched is not None:
            arrow = {"arrowstyle": "->", "color": COLOURS[1], "linewidth": 0.9, "shrinkA": 4, "shrinkB": 4}
            axes.annotate("", (found.mean, place), (row.searched, place), arrowprops=arrow)
        if found.low is not None and found.high is not None:
            ends = (found.low, found.high)
            axes.plot(ends, [place, place], color=COLOURS[0], linewidth=1.8, label="95 % t interval")
        axes.plot(
            row.fresh, [place] * found.n, "|", color=BLACK, markersize=9, label="one fresh seed", zorder=5
        )
        axes.plot(
            found.mean,
            place,
            "o",
            color=COLOURS[0],
            markersize=5.5,
            label="mean of the fresh seeds",
            zorder=4,
        )
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("selection score")
    figure.legend(*unique_handles([axes]), loc="outside lower center", ncols=4)
    return figure


def _label(row: Confirmation) -> str:
    return shorten(row.name, 40) + (f"\n{shorten(row.note, 40)}" if row.note else "")
