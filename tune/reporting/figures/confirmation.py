"""How much the best of a search regressed: the score they were chosen by against those of fresh seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from macil.errors import DataError
from macil.io.pictures import BLACK, COLOURS, WIDTH, shorten
from tune.reporting.figures.axes import list_rows, unique_handles
from tune.reporting.figures.captions import basis
from tune.reporting.figures.drawing import Drawing
from tune.reporting.statistics.confirmation import confirmed_rows
from tune.reporting.statistics.intervals import FEWEST_SEEDS, MARGIN, Bounds, Estimate, bounds_of, estimate
from tune.reporting.tables.confirmation_table import configuration_notes
from tune.reporting.text import wording
from tune.results.ranking import ranked_trials
from tune.results.run import RunResults


@dataclass(frozen=True)
class Confirmation:
    """A configuration trained again: its score in the search, those of fresh seeds, and a note below its name."""

    name: str
    note: str
    searched: float | None
    fresh: tuple[float, ...]
    within: Bounds = MARGIN
    """The bounds of the scores."""

    @property
    def mean(self) -> Estimate | None:
        """The mean of `fresh`, with its interval."""
        return estimate(self.fresh, self.within)


def confirmation(results: RunResults) -> Drawing | None:
    """The figure of a search with a confirmation.

    Raises:
        DataError: No training of it has finished.
    """
    rows = confirmed_rows(results)
    if not rows:
        return None
    most = max(len(row.by_seed("selection_score")) for row in rows)
    if not most:
        raise DataError("no confirming training has finished yet")
    ranks = {trial.name: rank for rank, trial in enumerate(ranked_trials(results), start=1)}
    drawn = [
        Confirmation(
            f"trial {row.name}",
            ", ".join(
                [
                    *([f"{nth(ranks[row.name])} searched"] if ranks.get(row.name) else []),
                    *configuration_notes(row),
                ]
            ),
            row.searched.selection_score if row.searched else None,
            tuple(row.by_seed("selection_score").values()),
            bounds_of("selection_score", results.protocol),
        )
        for row in rows
    ]
    caption = (
        "Selection score in the search, by which the configurations were picked, against that of the same "
        "configurations trained again on fresh seeds; an arrow to the left is what picking the best had flattered. "
        + basis(
            results,
            f"one seed in the search, up to {most} fresh"
            + (", 95 % t interval" if most >= FEWEST_SEEDS else ""),
            rule=f"selection score: {wording.selection_metric(results.protocol)} of the training",
        )
    )
    falls = [
        f"{row.name}: {row.searched:.4f} in the search, {found.mean:.4f} on fresh seeds"
        for row in drawn
        if (found := row.mean) and row.searched is not None
    ]
    return Drawing("Confirmation on fresh seeds", caption, "; ".join(falls) + ".", lambda: draw(drawn))


def nth(rank: int) -> str:
    """A rank as text: 1st, 2nd, 11th."""
    ending = "th" if 10 < rank % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"{rank}{ending}"


def draw(rows: Sequence[Confirmation]) -> Figure | None:
    """Scores of the search (hollow) and of fresh seeds with mean and interval, a row a configuration."""
    if not any(row.fresh for row in rows):
        return None
    figure = Figure(figsize=(WIDTH, 1.1 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for index, row in enumerate(rows):
        found = row.mean
        if row.searched is not None:
            style: Any = {"markerfacecolor": "white", "markeredgecolor": COLOURS[1], "markersize": 6.5}
            axes.plot(row.searched, index, "D", label="in the search (one seed)", zorder=4, **style)
        if found is None:
            continue
        if row.searched is not None:
            arrow = {"arrowstyle": "->", "color": COLOURS[1], "linewidth": 0.9, "shrinkA": 4, "shrinkB": 4}
            axes.annotate("", (found.mean, index), (row.searched, index), arrowprops=arrow)
        if found.low is not None and found.high is not None:
            ends = (found.low, found.high)
            axes.plot(ends, [index, index], color=COLOURS[0], linewidth=1.8, label="95 % t interval")
        seeds = [index] * found.n
        axes.plot(row.fresh, seeds, "|", color=BLACK, markersize=9, label="one fresh seed", zorder=5)
        mean = "mean of the fresh seeds"
        axes.plot(found.mean, index, "o", color=COLOURS[0], markersize=5.5, label=mean, zorder=4)
    list_rows(
        axes, [shorten(row.name, 40) + (f"\n{shorten(row.note, 40)}" if row.note else "") for row in rows]
    )
    axes.set_xlabel("selection score")
    figure.legend(*unique_handles([axes]), loc="outside lower center", ncols=4)
    return figure
