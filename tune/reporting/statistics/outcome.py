"""The outcome of a run: the training whose numbers are the result, these numbers, and how to get them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from macil.io.wording import plural
from tune.reporting.pages.blocks import Tile
from tune.reporting.statistics.confirmation import confirmed_rows, tied_with
from tune.reporting.statistics.intervals import MARGIN, PERCENT, Estimate, bounds_of, estimate
from tune.reporting.statistics.model_interval import ModelInterval
from tune.reporting.statistics.sweep_rows import (
    RowResult,
    headline_column,
    reference_row,
    sweep_rows,
    trained_rows,
)
from tune.reporting.tables.run_tables import rows_title
from tune.reporting.text import wording
from tune.reporting.text.confirmation_verdict import trials_text
from tune.results.next_commands import replay_command
from tune.results.ranking import ranked_trials, winner_name, winning_trial
from tune.results.rows import TrialRow
from tune.results.run import RunResults


@dataclass(frozen=True)
class Outcome:
    """The result of a run, and with it the reported training: the one that all facts of a single training are of.

    Attributes:
        subject: Whose numbers follow, in a sentence; "" for a sweep without a finished row.
        trials: The trainings behind the headline, one per seed, the lowest first; empty without any.
        searched: The searched trial that was chosen; None for a sweep, or before there is one.
        row: The row of a sweep that is shown, the one that stands for its training; None for a search.
    """

    subject: str
    trials: tuple[TrialRow, ...] = ()
    searched: TrialRow | None = None
    row: RowResult | None = None

    @property
    def replayed(self) -> TrialRow | None:
        """The training that is replayed, drawn and shown with its configuration: of several seeds the lowest."""
        return self.trials[0] if self.trials else None

    @property
    def name(self) -> str:
        """The reported training without its seed: "row 11", "trial 00003", "the refit of trial 00003"; else ""."""
        first = self.replayed
        if first is None:
            return ""
        if first.kind == "refit":
            return f"the refit of {f'trial {self.searched.name}' if self.searched else 'the winner'}"
        return f"trial {first.name}" if first.row is None else f"row {rows_title(first)}"

    @property
    def replayed_name(self) -> str:
        """`name`, with the seed that is replayed."""
        return f"{self.name}, seed {self.replayed.seed}" if self.replayed else ""


def find_outcome(results: RunResults) -> Outcome:
    """The refit, else the best trial of a search; of a sweep the best row by the mean that the run may compare by."""
    if results.info.sweep:
        return _sweep_outcome(results)
    refits = tuple(row for row in results.trial_rows if row.status == "refit")
    if refits:
        name, searched = winner_name(results) or "of the search", winning_trial(results)
        how = _confirmed(results)
        subject = f"Trial {name}{how and f', {how}'}, trained again on all training videos: the run's result."
        return Outcome(subject, refits, searched)
    ranked = ranked_trials(results)
    if not ranked:
        return Outcome("No trial has a selection score yet.")
    named = winning_trial(results) or ranked[0]
    by = "by selection score"
    by += ", which is its best test AP: it flatters" if results.protocol == "published" else ""
    how = _confirmed(results)
    if results.status != "finished":
        subject = f"Trial {named.name} ({named.status}), the best so far {by}."
    elif how and results.protocol == "published":  # without a refit
        subject = f"Trial {named.name}, {how}; its training in the search is the run's result."
    else:
        subject = f"Trial {named.name}, {how or f'the best {by}'}."
    return Outcome(subject, (named,), named)


def _confirmed(results: RunResults) -> str:
    """How the winner stands on fresh seeds; "" without a confirmation."""
    row = next((row for row in confirmed_rows(results) if row.winner and row.finished), None)
    if row is None:
        return ""
    tied, seeds = [name for name in tied_with(results) if name != row.name], len(row.finished)
    text = f"the best mean score on {plural(seeds, 'fresh seed')}"
    return f"{text} (a tie with {trials_text(tied)})" if tied else text


def replay(results: RunResults, trial: TrialRow | None) -> str:
    """The command that trains `trial` again; "" without one."""
    if trial is None:
        return ""
    return replay_command(results.location.shown, trial.trial_dir.removeprefix("trials/"))


def expected(trial: TrialRow | None) -> list[tuple[str, str]]:
    """The test AP that a replay must give, to the last digit; [] where none is measured."""
    if trial is None:
        return []
    return [
        (f"{wording.SHORT_DEFINITIONS[name]}, {where}", repr(trial.result(f"{name}{suffix}")))
        for suffix, where in _epochs_of(trial)
        for name in ("ap_trapezoid", "ap")
        if trial.result(f"{name}{suffix}") is not None
    ]


def headline_estimate(
    outcome: Outcome, intervals: Mapping[str, ModelInterval], column: str = "ap_trapezoid"
) -> Estimate | None:
    """Mean over the seeds; for one seed its AP with the interval over test videos, where there is one."""
    found = _over_seeds(outcome.trials, column)
    if found is not None and found.n == 1:
        trial = next(trial for trial in outcome.trials if trial.result(column) is not None)
        if trial.trial_dir in intervals:
            return intervals[trial.trial_dir].around(found.mean, column)
    return found


def basis(outcome: Outcome, intervals: Mapping[str, ModelInterval], column: str = "ap_trapezoid") -> str:
    """Everything that the headline depends on, in words."""
    first = outcome.trials[0]
    figure = headline_estimate(outcome, intervals, column)
    seeds = figure.n if figure else len(outcome.trials)
    message = wording.ap_statement(column, str(first.protocol), first.epoch_rule, seeds)
    if figure is None:
        return f"not measured ({message})"
    if figure.n == 1 and figure.low is not None:
        videos = next(iter(intervals.values())).videos
        message = message.replace(
            wording.seeds(1),
            f"one seed; 95 % bootstrap interval over the {videos} test videos, without the noise between seeds",
        )
    return "; ".join([message, *wording.cut_notes([figure], PERCENT)])


def result_tiles(
    results: RunResults, outcome: Outcome, intervals: Mapping[str, ModelInterval]
) -> tuple[Tile, ...]:
    """Both definitions of the AP, the published convention under its name, the score that chose, the parameters."""
    if not outcome.trials:
        return ()
    first = outcome.trials[0]
    tiles = []
    for column in ("ap_trapezoid", "ap"):
        figure = headline_estimate(outcome, intervals, column)
        number = wording.estimate_text(figure)
        tiles.append(
            Tile(
                f"AP, {wording.SHORT_DEFINITIONS[column]}",
                number if figure is None else f"{number} %",
                basis(outcome, intervals, column),
            )
        )
    if first.protocol == "published" and first.ap_trapezoid_best is not None:
        tiles.append(_convention(outcome.trials))
    if outcome.searched is not None and first.protocol != "published":
        tiles.append(_selection(results, outcome.searched))
    tiles.append(
        Tile(
            "Parameters",
            wording.count(first.parameters),
            f"in use; {wording.count(first.parameters_published)} in the published convention",
        )
    )
    return tuple(tiles)


def _sweep_outcome(results: RunResults) -> Outcome:
    every = sweep_rows(results)
    rows = [row for row in trained_rows(every) if row.finished]
    column, rule = headline_column(results)
    by = column if results.protocol == "published" else "selection_score"
    rows = [row for row in rows if row.estimate(by)]
    if not rows:
        return Outcome("No row has a finished training yet.")
    # A mean over the seeds that a row happened to finish is no equal of those with more; of equals, the reference.
    reference = reference_row(results, every)
    best = max(rows, key=lambda row: (len(row.finished), _mean(row.estimate(by)), row == reference))
    how = (
        f"by mean test AP at the {rule}: chosen on the test set, so its number flatters"
        if results.protocol == "published"
        else "by mean selection score"
    )
    so_far = "" if results.status == "finished" else " so far"
    among = f"{len(rows)} trainings" if len(trained_rows(every)) < len(every) else f"{len(rows)}"
    subject = f"Row {best.title}, the best{so_far} of {among} {how}."
    trials = tuple(sorted(best.finished, key=lambda trial: trial.seed or 0))
    return Outcome(subject, trials, None, best)


def _mean(figure: Estimate | None) -> float:
    return figure.mean if figure else float("-inf")


def _epochs_of(trial: TrialRow) -> list[tuple[str, str]]:
    if trial.epoch_rule == "last":
        return [("", f"last epoch ({trial.epochs_run})")]
    return [("", f"chosen epoch ({trial.chosen_epoch})"), ("_last", f"last epoch ({trial.epochs_run})")]


def _convention(trials: Sequence[TrialRow]) -> Tile:
    figure = _over_seeds(trials, "ap_trapezoid_best")
    cut = "".join(f"; {note}" for note in wording.cut_notes([figure], PERCENT))
    seeds = figure.n if figure else 0
    which = f"epoch {trials[0].best_epoch} chosen" if len(trials) == 1 else "an epoch of each seed chosen"
    return Tile(
        "AP, trapezoidal, best test epoch",
        f"{wording.estimate_text(figure)} %",
        f"the published convention: {which} on the test set, which flatters; "
        f"{wording.DEFINITIONS['ap_trapezoid']}; protocol published; {wording.seeds(seeds)}{cut}",
    )


def _over_seeds(trials: Sequence[TrialRow], column: str) -> Estimate | None:
    protocol = str(trials[0].protocol) if trials else ""
    return estimate((trial.result(column) for trial in trials), bounds_of(column, protocol))


def _selection(results: RunResults, searched: TrialRow) -> Tile:
    row = next((row for row in confirmed_rows(results) if row.name == searched.name), None)
    fresh = row.estimate("selection_score") if row else None
    if fresh is not None:
        cut = "".join(f"; {note}" for note in wording.cut_notes([fresh], MARGIN))
        return Tile(
            "Selection score",
            wording.score_text(fresh),
            "on fresh seeds, what the winner is chosen by: held-out training videos only; "
            f"{wording.seeds(fresh.n)}{cut}; in the search it was {wording.decimal(searched.selection_score)} "
            "(one seed)",
        )
    return Tile(
        "Selection score",
        wording.decimal(searched.selection_score),
        "what the winner is chosen by: held-out training videos only, best of its epochs "
        f"(epoch {wording.count(searched.chosen_epoch)}); one seed, no interval",
    )
