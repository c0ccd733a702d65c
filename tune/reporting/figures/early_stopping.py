"""Savings of early stopping: the epochs of each trial against the budget of a whole training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from macil.io.pictures import BLACK, COLOURS, GREY, WIDTH
from tune.planning.counts import epochs_text
from tune.reporting.figures.axes import (
    unique_handles,
    whole_numbers,
)
from tune.reporting.figures.captions import basis
from tune.reporting.figures.drawing import Drawing
from tune.reporting.text import wording
from tune.results.rows import TrialRow
from tune.results.run import RunResults
from tune.results.trainings import trained_epochs

# More bars than this are no picture in the order of start.
_MOST_BARS = 60
_SAID = {"finished": "trained to the end", "stopped": "stopped early"}
_LOOKS: dict[str, dict[str, Any]] = {
    "trained to the end": {"facecolor": COLOURS[0]},
    "stopped early": {"facecolor": COLOURS[4], "hatch": "////", "edgecolor": "white"},
    "failed or unfinished": {"facecolor": GREY, "hatch": "....", "edgecolor": "white"},
}


def stopping(results: RunResults, trials: Sequence[TrialRow]) -> Drawing | None:
    """The picture of a run whose trials could be stopped early; None of any other."""
    rule = results.plan.stopping
    if rule is None or not trials:
        return None
    budget = max((trial.epochs or 0 for trial in trials), default=0)
    milestones = rule.rungs(budget)
    share = saved_share(trials)
    spent = sum(trial.epochs_run for trial in trials)
    run = trained_epochs(results.trial_rows)
    among = "in all" if spent == sum(run.values()) else f"of the run's {epochs_text(run)}"
    saved = "" if share is None else f"{100 * share:.0f} % of the epochs saved"
    counts = {status: sum(trial.status == status for trial in trials) for status in ("finished", "stopped")}
    order = "row by row" if results.info.sweep else "in the order of start"
    if len(trials) > _MOST_BARS:
        kinds = list(_LOOKS)
        trials = sorted(trials, key=lambda trial: (kinds.index(_kind(trial)), -trial.epochs_run))
        order = "sorted by the number of epochs"
    message = basis(results, "one seed a trial, no interval", rule="epochs spent")
    caption = (
        f"Epochs that each trial was given, {wording.count(spent)} {among}"
        + ("" if share is None else f"; {sum(counts.values())} whole trainings would have taken ")
        + (
            ""
            if share is None
            else f"{wording.count(_whole(trials))}, of which {100 * share:.0f} % were saved"
        )
        + f". By the selection score, {rule.describe(budget)}. {message}"
    )
    alt = f"Bars: {counts['finished']} trials trained to the end, {counts['stopped']} stopped early; {saved}."
    title = f"Early stopping: {saved}" if saved else "Early stopping"
    return Drawing(title, caption, alt, lambda: draw(trials, milestones, order))


def saved_share(trials: Sequence[TrialRow]) -> float | None:
    """Share of the epochs of whole trainings that was spared; only trials that ended so count, None without any."""
    if not _whole(trials):
        return None
    return 1 - sum(trial.epochs_run for trial in _ended(trials)) / _whole(trials)


def draw(trials: Sequence[TrialRow], milestones: Sequence[int], order: str) -> Figure | None:
    """Epochs of each trial in `order`, as they come; the rungs with the number of trials that went beyond each."""
    if not trials or not any(trial.epochs_run for trial in trials):
        return None
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.subplots()
    budget = max(trial.epochs or trial.epochs_run for trial in trials)
    edges = np.arange(len(trials) + 1) - 0.5
    for label, look in _LOOKS.items():
        own = [_kind(trial) == label for trial in trials]
        # One patch for all bars of a kind, and no gaps where there are too many to distinguish.
        width = 0.8 if len(trials) <= _MOST_BARS else 1.0
        spent = np.where(own, [trial.epochs_run for trial in trials], 0)
        if not spent.any():
            continue
        steps = (np.arange(len(trials))[:, None] + [-width / 2, width / 2]).ravel()
        heights = np.column_stack([spent, np.zeros_like(spent)]).ravel()[:-1]  # a bar, a gap, a bar
        axes.stairs(heights, steps, fill=True, linewidth=0, label=label, **look)
    axes.axhline(budget, color=BLACK, linewidth=1, label=f"a whole training: {budget} epochs")
    for milestone in milestones:
        beyond = sum(trial.epochs_run > milestone for trial in trials)
        axes.axhline(milestone, color=BLACK, linestyle=(0, (4, 2)), linewidth=0.9, label="rung")
        axes.annotate(
            f"{milestone}: {beyond} went on",
            (1.01, milestone),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
            annotation_clip=False,
        )
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.06 * budget), ylabel="epochs")
    axes.set_xlabel(f"trial, {order}")
    axes.xaxis.set_major_locator(whole_numbers())
    axes.yaxis.set_major_locator(whole_numbers())
    axes.grid(visible=False, axis="x")
    figure.legend(*unique_handles([axes]), loc="outside lower center", ncols=3)
    return figure


def _kind(trial: TrialRow) -> str:
    return _SAID.get(trial.status, "failed or unfinished")


def _ended(trials: Sequence[TrialRow]) -> list[TrialRow]:
    return [trial for trial in trials if trial.status in _SAID and trial.epochs]


def _whole(trials: Sequence[TrialRow]) -> int:
    """Epochs that the trials which ended would have taken without early stopping."""
    return sum(trial.epochs or 0 for trial in _ended(trials))
