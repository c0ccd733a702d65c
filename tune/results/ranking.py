"""Who wins: the order of a search's trials and of their confirmations, the winner, and what it is compared with.

The driver decides by these functions, and status and report show their results. All of them read a run as `load_run`
gives it.
"""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from macil.config import TrialConfig
from macil.errors import ConfigError, DataError, MacilError
from macil.training.equivalence import training_key
from tune.algorithms.space import is_whole
from tune.results.rows import TrialRow
from tune.results.trainings import standing_for
from tune.storage.location import RunLocation
from tune.storage.names import LOG_FILE, MODEL_FILE
from tune.storage.run_file import ConfirmedScore, RunConfirmation, RunInfo, RunWinner

if TYPE_CHECKING:
    from macil.model import TwoStreamNetwork
    from tune.results.run import RunResults

# Ways to end, or not to have begun, that leave nothing to rank.
_NO_RESULT = ("failed", "diverged", "pending")


class NoWinnerError(MacilError):
    """Every trial of a run failed."""


@dataclass(frozen=True)
class Winner:
    """The configuration that won, as its trial in the search.

    Attributes:
        trial: That trial.
        epochs: To train it for: those it needed itself, or the median of its confirmations.
        confirmed: Its selection scores on fresh seeds; empty without a confirmation.
        location: The run, of a winner that was read from one (`RunResults.winner`).
    """

    trial: TrialRow
    epochs: int
    confirmed: tuple[float, ...] = ()
    location: RunLocation | None = None

    @property
    def name(self) -> str:
        """The name of the winner's trial."""
        return self.trial.name

    @property
    def score(self) -> float:
        """The winner's selection score in the search."""
        return _score(self.trial)

    @property
    def config(self) -> TrialConfig:
        """The configuration that won, as it was tried in the search."""
        return self.trial.configuration()

    def load(self) -> TwoStreamNetwork:
        """The trained network, on the CPU and in evaluation mode: under `heldout` that of the refit.

        Raises:
            DataError: The run has no model: it has not ended, or was not read with `load_run`; or it is damaged.
        """
        if self.location is None:
            raise DataError(f"the model of trial {self.name} is not known; read the run with load_run")
        # Imported late: whoever ranks trials needs no network.
        from macil.inference.loading import load_trained

        return load_trained(self.location.with_file(MODEL_FILE).parent).network

    @property
    def refit_config(self) -> TrialConfig:
        """The epochs of the refit: as many as the winner needed. No schedule depends on their number."""
        return self.config.replace(epochs=self.epochs)

    @property
    def recorded(self) -> RunWinner:
        """The entry of `run.json`."""
        confirmed = None
        if self.confirmed:
            mean = statistics.fmean(self.confirmed)
            confirmed = ConfirmedScore(mean=mean, n=len(self.confirmed), searched=self.score)
        return RunWinner(
            trial=self.name, selection_score=self.score, chosen_epoch=self.epochs, confirmed=confirmed
        )


@dataclass(frozen=True)
class Confirmation:
    """The configurations to confirm: the best different ones, best first, and the reference.

    Attributes:
        best: Fewer than were asked for where the search tried fewer.
        reference: The trial with the paper's values of what is searched; None where the space does not hold them, or
            it failed.
    """

    best: tuple[TrialRow, ...]
    reference: TrialRow | None

    @property
    def candidates(self) -> tuple[TrialRow, ...]:
        """All of them, each once."""
        beside = () if self.reference is None or self.reference in self.best else (self.reference,)
        return (*self.best, *beside)

    def recorded(self, seeds: Sequence[int]) -> RunConfirmation:
        """The entry of `run.json`."""
        return RunConfirmation(
            rows=tuple(trial.name for trial in self.best),
            reference=self.reference.name if self.reference else None,
            seeds=tuple(seeds),
        )


def counted_trials(results: RunResults) -> list[TrialRow]:
    """The trainings without repeated trainings of a sweep, see `tune.results.trainings.standing_for`."""
    rows = results.trial_rows
    standing = standing_for(rows, results.plan)
    return [row for row in rows if row.kind != "search" or row.row is None or row.trial_dir in standing]


def ranked_trials(results: RunResults) -> list[TrialRow]:
    """The trials of the search by selection score, best first; among equals the earlier one.

    Trials that failed, diverged or never reported are not among them, nor are trainings of a sweep's row for which
    another one stands.
    """
    ranked = [row for row in counted_trials(results) if row.kind == "search" and _has_result(row)]
    return sorted(ranked, key=lambda row: -_score(row))


def leaderboard(results: RunResults) -> list[tuple[int | None, TrialRow]]:
    """The refitted winner, which is no candidate and has no rank, then the ranked trials with theirs, best first."""
    refits = [(None, row) for row in results.trial_rows if row.status == "refit"]
    return [*refits, *enumerate(ranked_trials(results), start=1)]


def winner_of(info: RunInfo) -> str | None:
    """The trial that `run.json` names as the winner of a search; None before, and for a sweep."""
    return info.winner.trial if info.winner else None


def winner_name(results: RunResults) -> str | None:
    """The trial that won, once `run.json` names it, else the best so far; None for a sweep, or without any."""
    if results.info.sweep:
        return None
    return winner_of(results.info) or next((row.name for row in ranked_trials(results)), None)


def winning_trial(results: RunResults) -> TrialRow | None:
    """The ranked trial that is called `winner_name`."""
    ranked = [] if results.info.sweep else ranked_trials(results)
    name = winner_of(results.info)
    return next((row for row in ranked if name in (None, row.name)), None)


def reference_trial(results: RunResults) -> TrialRow | None:
    """The trial with the paper's values of all that is searched: as run.json names it, else the first that has them.

    None where no trial has them: the first suggestion leaves a searched hyperparameter open when the paper's value is
    outside the space, and a sweep has rows instead.
    """
    trials = [row for row in results.trial_rows if row.kind == "search"]
    confirm = results.info.confirm
    if confirm and confirm.reference is not None:
        return next((row for row in trials if row.name == confirm.reference), None)
    first = results.plan.first
    if not first or not is_whole(results.plan.space, first):
        return None
    return next(
        (row for row in trials if all(row.config.get(name) == value for name, value in first.items())), None
    )


def different_trainings(trials: Sequence[TrialRow]) -> list[TrialRow]:
    """Trials without those that are a training again: suggestions of a search repeat.

    Of trials that are the same training the first of those that went furthest is left.
    """
    found: dict[Hashable, TrialRow] = {}
    for trial in trials:
        key = _training(trial)
        if key not in found or trial.epochs_run > found[key].epochs_run:
            found[key] = trial
    return list(found.values())


def fresh_trainings(trials: Iterable[TrialRow], name: str) -> list[TrialRow]:
    """The trainings of trial `name` on fresh seeds, in the order of the seeds, whatever became of them."""
    rows = (row for row in trials if row.kind == "confirm" and str(row.row) == name)
    return sorted(rows, key=lambda row: row.seed or 0)


def finished_trainings(trainings: Iterable[TrialRow]) -> list[TrialRow]:
    """The trials that were trained and saved to the end."""
    return [row for row in trainings if row.status == "finished" and row.error is None]


def fresh_scores(trainings: Iterable[TrialRow]) -> list[float]:
    """The selection scores of those trainings on fresh seeds that were finished."""
    scores = (row.selection_score for row in finished_trainings(trainings))
    return [float(score) for score in scores if score is not None]


def confirmed_order(scores: Sequence[float]) -> tuple[int, float]:
    """Sorts configurations by their scores on fresh seeds, the winner first: by the mean.

    One of which a training failed stands behind all that have more of them: a mean over the seeds that it happened to
    survive is no equal of theirs. Equals keep their order, in which the better of the search comes first.
    """
    return (-len(scores), -statistics.fmean(scores)) if scores else (0, 0.0)


def recorded_winner(results: RunResults) -> Winner | None:
    """The winner as `run.json` names it; None before one is named, for a sweep, and where its trial is not there."""
    named, name = results.info.winner, winner_of(results.info)
    trial = next((row for row in results.trial_rows if row.kind == "search" and row.name == name), None)
    if named is None or trial is None:
        return None
    scores = fresh_scores(fresh_trainings(results.trial_rows, trial.name)) if named.confirmed else []
    return Winner(trial, named.chosen_epoch or trial.epochs_run, tuple(scores), results.location)


def choose_winner(results: RunResults) -> Winner:
    """The best trial of the search.

    Raises:
        NoWinnerError: There is none.
        DataError: Its log does not say how many epochs it needed.
    """
    best = _ranked(results)[0]
    return Winner(best, _chosen_epoch(best))


def choose_to_confirm(results: RunResults, count: int) -> Confirmation:
    """The `count` best different configurations and the reference beside them, unless `run.json` names them already.

    Suggestions repeat, and some differ in what makes no difference (`training_key`): of trials that are the same
    training the best stands for all.

    Raises:
        NoWinnerError: No trial has a score.
    """
    ranked = _ranked(results)
    if recorded := results.info.confirm:
        by_name = {trial.name: trial for trial in ranked}
        named = [by_name[name] for name in recorded.rows if name in by_name]
        return Confirmation(tuple(named), by_name.get(str(recorded.reference)))
    different: dict[Hashable, TrialRow] = {}
    for trial in ranked:
        different.setdefault(_training(trial), trial)
    reference = reference_trial(results)
    if reference not in ranked:
        reference = None
    return Confirmation(
        tuple(different.values())[:count], None if reference is None else different[_training(reference)]
    )


def choose_confirmed(results: RunResults, candidates: Sequence[TrialRow]) -> Winner:
    """The first of `candidates` by `confirmed_order`, best first.

    Raises:
        NoWinnerError: No confirmation has a result.
        DataError: The log of one does not say how many epochs it needed.
    """
    winners = []
    for trial in candidates:
        found = [row for row in fresh_trainings(results.trial_rows, trial.name) if fresh_scores([row])]
        if found:
            epochs = int(statistics.median_low([_chosen_epoch(row) for row in found]))
            winners.append(Winner(trial, epochs, tuple(fresh_scores(found))))
    if not winners:
        raise NoWinnerError(
            "no confirmation has a result: all of them failed; their reasons are in the report and in "
            "confirm/*/error.txt"
        )
    return min(winners, key=lambda one: confirmed_order(one.confirmed))


def _ranked(results: RunResults) -> list[TrialRow]:
    ranked = ranked_trials(results)
    if not ranked:
        raise NoWinnerError(
            "no trial has a result: all of them failed; their reasons are in the report and in trials/*/error.txt"
        )
    return ranked


def _has_result(trial: TrialRow) -> bool:
    """Whether a trial may be ranked; one that failed after its last epoch left no checkpoint to go on with."""
    return trial.status not in _NO_RESULT and trial.error is None and trial.selection_score is not None


def _score(trial: TrialRow) -> float:
    assert trial.selection_score is not None
    return trial.selection_score


def _chosen_epoch(trial: TrialRow) -> int:
    if trial.chosen_epoch is None or not 1 <= trial.chosen_epoch <= trial.epochs_run:
        raise DataError(
            f"{trial.trial_dir}/{LOG_FILE} is damaged: after epoch {trial.epochs_run} chosen_epoch is "
            f"{trial.chosen_epoch}, expected the epoch of the best score; put the file back from a copy, or begin a "
            "new run"
        )
    return trial.chosen_epoch


def _training(trial: TrialRow) -> Hashable:
    """Equal for trials that are the same training; a trial whose configuration is not known is its own."""
    try:
        return training_key(trial.configuration())
    except ConfigError:
        return trial.trial_dir
