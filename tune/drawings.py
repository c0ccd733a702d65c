"""Which figures a run gets, and what stands below them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from tune import figures, marks
from tune.figures import Curves, Group, SavedFigure, save_figure
from tune.results import RunResults, leaderboard
from tune.sections import trial_name, varied
from tune.sweeprows import compared_column, dot_rows, sweep_rows

_LINES = "In colour: the first five by selection score; each line is one trial (one seed)."


def draw_all(results: RunResults, folder: Path) -> list[SavedFigure]:
    """Write every figure that the run has data for into `folder`."""
    groups, epochs = _groups(results), _curves(results)
    refits = _refits(results)
    published = results.protocol == "published"
    trials = [row for row in results.trials.to_pylist() if row["kind"] == "search"]
    logarithmic = frozenset(name for name, text in _space(results).items() if "logarithmic" in str(text))
    _, compared = compared_column(results)
    basis = f"protocol {results.protocol}"
    rows: list[tuple[str, str, str, Callable[[], Figure | None]]] = [
        (
            "rows",
            "Rows of the sweep",
            (
                f"Test AP, trapezoidal (the published definition), {compared}, {basis}; mean over the finished seeds, "
                "with 95 % t interval where there are several. Diamonds: as printed in the paper (best test epoch, "
                "one seed)."
            ),
            lambda: marks.dots(dot_rows(results), f"test AP (%), trapezoidal, {compared}"),
        ),
        (
            "selection-score",
            "Selection score over epochs",
            (
                "Running best of the test AP (trapezoidal), which flatters. "
                if published
                else "Running best of the held-out score. "
            )
            + f"{_LINES} {basis.capitalize()}.",
            lambda: figures.learning_curves(
                groups, epochs, "selection_score", "selection score (best so far)"
            ),
        ),
        (
            "heldout-ap",
            "Held-out AP over epochs",
            f"Video-level AP on the held-out training videos, step-wise definition. {_LINES}",
            lambda: figures.learning_curves(
                groups, epochs, "heldout_ap", "held-out AP, video level (%)", 100
            ),
        ),
        (
            "test-ap",
            "Test AP over epochs",
            f"Frame-level test AP, trapezoidal (the published definition), every epoch, protocol published. {_LINES}",
            lambda: figures.learning_curves(groups, epochs, "ap_trapezoid", "test AP (%), trapezoidal", 100),
        ),
        (
            "losses",
            "Losses over epochs",
            f"Mean over the epoch's bags, before weighting by λ. {_LINES}"
            + (" Black: the refit." if refits else ""),
            lambda: figures.losses([*refits, *groups], epochs),
        ),
        (
            "hyperparameters",
            "Hyperparameters against selection score",
            (
                "One mark per trial (one seed): filled where it was trained to the end, hollow where it ended early "
                f"(its score is the best of fewer epochs); the ring is the best. {basis.capitalize()}."
            ),
            lambda: marks.hyperparameter_scores(trials, varied(results), logarithmic),
        ),
    ]
    if not results.info.get("sweep"):
        rows = [row for row in rows if row[0] != "rows"]
    drawn = [save_figure(draw, folder, name, title, caption) for name, title, caption, draw in rows]
    return [figure for figure in drawn if figure is not None]


def _groups(results: RunResults) -> list[Group]:
    """Rows of a sweep by mean score, or trials by rank; trials without a rank follow."""
    trials = [row for row in results.trials.to_pylist() if row["kind"] == "search"]
    if results.info.get("sweep"):
        rows = [row for row in sweep_rows(results) if row.trials]
        return [
            Group(f"{row.name} ({len(row.trials)} seed{'s' if len(row.trials) > 1 else ''})", row.trials)
            for row in sorted(rows, key=lambda row: -_mean(row.estimate("selection_score")))
        ]
    ranks = {
        row["trial_dir"]: row["rank"] for row in leaderboard(results).to_pylist() if row["rank"] is not None
    }
    trials.sort(key=lambda row: ranks.get(row["trial_dir"], math.inf))
    return [
        Group(
            f"{ranks[row['trial_dir']]}: trial {trial_name(row)}"
            if row["trial_dir"] in ranks
            else trial_name(row),
            (row,),
        )
        for row in trials
    ]


def _refits(results: RunResults) -> list[Group]:
    rows = [row for row in results.trials.to_pylist() if row["kind"] == "refit"]
    return [Group("refit of the winner", tuple(rows), refit=True)] if rows else []


def _curves(results: RunResults) -> Curves:
    curves: Curves = {}
    for row in results.epochs.to_pylist():
        curves.setdefault((row["kind"], row["trial_id"]), []).append(row)
    return curves


def _space(results: RunResults) -> dict[str, Any]:
    space = results.plan.get("space")
    return space if isinstance(space, dict) else {}


def _mean(figure: Any) -> float:
    return figure.mean if figure else float("-inf")
