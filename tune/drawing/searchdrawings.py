"""The figures of a search: how it went, what mattered, what it cost, and how its best hold up on fresh seeds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import optuna
from optuna.trial import TrialState

from macil.errors import DataError
from macil.io.wording import plural
from tune.drawing import confirmfigure, stopfigure, studyfigures
from tune.drawing.captions import basis
from tune.drawing.confirmfigure import Confirmation
from tune.drawing.figures import Drawing, Entry
from tune.drawing.marks import hyperparameter_scores
from tune.drawing.tablestudy import front_study, score_study, searched
from tune.ranking import different_trainings, leaderboard, reference_trial, trial_name
from tune.reporting import wording
from tune.reporting.confirmed import confirmed_rows
from tune.reporting.intervals import FEWEST_SEEDS, bounds_of
from tune.reporting.reference import reference_called
from tune.reporting.sections import varied
from tune.results import RunResults

Trial = dict[str, Any]

_GROUP = "The search"
_ONE_SEED = "one seed a trial, no interval"
# PED-ANOVA looks at the best tenth of the trials: of fewer, at a handful that chance has put together.
_FEWEST = 50


def entries(results: RunResults) -> list[Entry]:
    """What a search gets, from what it found to what it cost."""
    trials = [row for row in results.trials.to_pylist() if row["kind"] == "search"]
    study = cache(lambda: score_study(results, trials))
    rows: list[tuple[str, str, Callable[[], Drawing | None]]] = [
        ("confirmation", "Confirmation on fresh seeds", lambda: _confirmation(results)),
        ("history", "Optimisation history", lambda: _history(results, study())),
        ("importances", "Importances of the hyperparameters", lambda: _importances(results, trials)),
        ("hyperparameters", "Hyperparameters against selection score", lambda: _slices(results, trials)),
        ("parallel", "Parallel coordinates", lambda: _parallel(results, study())),
        ("pareto", "AP against parameters", lambda: _pareto(results)),
        ("early-stopping", "Early stopping", lambda: stopfigure.stopping(results, trials)),
    ]
    return [Entry(name, title, _GROUP, make) for name, title, make in rows]


def _history(results: RunResults, study: optuna.Study) -> Drawing:
    ended = _ended(study)
    if not ended:
        raise DataError("no trial was trained to the end yet")
    best = max(ended, key=lambda trial: trial.value or 0.0)
    stopped = len(study.get_trials(deepcopy=False, states=(TrialState.PRUNED,)))
    caption = (
        "Selection score of each trial in the order of start; the line is the best so far of those trained to the "
        f"end, hollow marks were stopped early. {_basis(results)}"
    )
    alt = (
        f"{len(ended)} trials trained to the end and {stopped} stopped early; the best score, {best.value:.4f}, "
        f"is that of trial {best.number}."
    )
    return Drawing("Optimisation history", caption, alt, lambda: studyfigures.history(study))


def _importances(results: RunResults, trials: list[Trial]) -> Drawing | None:
    if len(searched(results)) < 2:
        return None
    different = different_trainings(trials)
    study = score_study(results, different)
    ended = _ended(study)
    repeats = len(trials) - len(different)
    once = f" ({plural(repeats, 'trial')} repeated another's training)" if repeats else ""
    if len(ended) < _FEWEST:
        raise DataError(
            f"{len(ended)} of {len(different)} trials were trained to the end{once}; at least "
            f"{_FEWEST} are needed, since importances rest on the best tenth of them"
        )
    if len({trial.value for trial in ended}) < 2:
        raise DataError("all trials have the same score; nothing can matter")
    caption = (
        "Share of each hyperparameter in what tells the best tenth of the trials from all of them (PED-ANOVA, as "
        f"Optuna computes it), from the {len(ended)} trials that were trained to the end{once}; those stopped early "
        "take no part. Lines: 95 % interval, from "
        f"{studyfigures.RESAMPLES} sets of as many trials drawn with replacement; hyperparameters whose lines overlap "
        f"widely are not told apart. {_basis(results, 'one seed a trial')}"
    )
    shares = studyfigures.shares(study, studyfigures.RESAMPLES)
    alt = "Bars with intervals: " + ", ".join(
        f"{name} {share.value:.2f} from {share.low:.2f} to {share.high:.2f}" for name, share in shares.items()
    )
    return Drawing(
        "Importances of the hyperparameters", caption, f"{alt}.", lambda: studyfigures.importances(shares)
    )


def _slices(results: RunResults, trials: list[Trial]) -> Drawing:
    space = results.plan.get("space")
    space = space if isinstance(space, dict) else {}
    logarithmic = frozenset(name for name, text in space.items() if "logarithmic" in str(text))
    names = varied(results)
    caption = (
        "One mark per trial: filled where it was trained to the end, hollow where it ended early (its score is the "
        f"best of fewer epochs); the ring is the best. {_basis(results)}"
    )
    alt = f"Scatter of the selection score against {', '.join(names) or 'nothing'}, a panel each."
    return Drawing(
        "Hyperparameters against selection score",
        caption,
        alt,
        lambda: hyperparameter_scores(trials, names, logarithmic),
    )


def _parallel(results: RunResults, study: optuna.Study) -> Drawing | None:
    ended, names = _ended(study), searched(results)
    if len(names) < 2:
        return None
    if len(ended) < 2:
        raise DataError(f"{len(ended)} trials were trained to the end; at least 2 are needed")
    caption = (
        f"One line for each of the {len(ended)} trials that were trained to the end, through its selection score and "
        f"its hyperparameters; the darker, the better; of more than 40 the best tenth is thicker. {_basis(results)}"
    )
    best = max(ended, key=lambda trial: trial.value or 0.0)
    values = ", ".join(f"{name} {wording.value(value, 3)}" for name, value in best.params.items())
    alt = f"{len(ended)} lines; the best, {best.value:.4f}, passes through {values}."
    return Drawing(
        "Parallel coordinates", caption, alt, lambda: studyfigures.parallel_coordinates(study, names)
    )


def _pareto(results: RunResults) -> Drawing | None:
    ranked = [row for row in leaderboard(results).to_pylist() if row["rank"] is not None]
    ranked = [row for row in ranked if row["parameters"] is not None]
    if len({row["parameters"] for row in ranked}) < 2:
        return None  # without different sizes there is nothing to trade
    measured = any(row["ap_trapezoid"] is not None for row in ranked)
    column, scale = ("ap_trapezoid", 100.0) if measured else ("selection_score", 1.0)
    label = "test AP (%), trapezoidal" if measured else "selection score"
    study = front_study(ranked, column, scale)
    reference = reference_trial(results)
    ringed = None
    if reference is not None and None not in (reference["parameters"], reference[column]):
        called = reference_called(reference)
        ringed = (float(reference["parameters"]), scale * reference[column], called)
    what = "Test AP" if measured else "Selection score (the test AP has not been measured)"
    caption = (
        f"{what} against parameters in use, of all ranked trials, those stopped early included. Diamonds: no trial is "
        f"both smaller and better.{' A look back: no trial was chosen by it.' if measured else ''}"
        f"{f' Ring: the {ringed[2]}.' if ringed else ''} "
        + basis(results, _ONE_SEED, definition="ap_trapezoid" if measured else None)
    )
    front = sorted({tuple(trial.values) for trial in study.best_trials})
    alt = "The front: " + "; ".join(f"{x:,.0f} parameters, {y:.4g}" for x, y in front) + "."
    return Drawing(
        "AP against parameters", caption, alt, lambda: studyfigures.pareto_front(study, label, ringed)
    )


def _confirmation(results: RunResults) -> Drawing | None:
    rows = confirmed_rows(results)
    if not rows:
        return None
    most = max(len(row.by_seed("selection_score")) for row in rows)
    if not most:
        raise DataError("no confirming training has finished yet")
    ranks = {trial_name(row): row["rank"] for row in leaderboard(results).to_pylist()}
    drawn = []
    for row in rows:
        notes = [f"{_nth(ranks[row.name])} searched"] if ranks.get(row.name) else []
        notes += row.notes
        searched = row.searched["selection_score"] if row.searched else None
        drawn.append(
            Confirmation(
                f"trial {row.name}",
                ", ".join(notes),
                searched,
                tuple(row.by_seed("selection_score").values()),
                bounds_of("selection_score", results.protocol),
            )
        )
    caption = (
        "Selection score in the search, by which the configurations were picked, against that of the same "
        "configurations trained again on fresh seeds; an arrow to the left is what picking the best had flattered. "
        + basis(
            results,
            f"one seed in the search, up to {most} fresh"
            + (", 95 % t interval" if most >= FEWEST_SEEDS else ""),
            rule=f"selection score: {wording.steering(results.protocol)} of the training",
        )
    )
    falls = [
        f"{row.name}: {row.searched:.4f} in the search, {found.mean:.4f} on fresh seeds"
        for row in drawn
        if (found := row.mean) and row.searched is not None
    ]
    return Drawing(
        "Confirmation on fresh seeds",
        caption,
        "; ".join(falls) + ".",
        lambda: confirmfigure.regression(drawn),
    )


def _nth(rank: int) -> str:
    ending = "th" if 10 < rank % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"{rank}{ending}"


def _ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _basis(results: RunResults, seeds: str = _ONE_SEED) -> str:
    return basis(results, seeds, rule=f"selection score: {wording.steering(results.protocol)} so far")
