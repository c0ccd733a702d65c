"""Who wins: the order of a search's trials and of their confirmations, the winner, and what it is compared with.

The driver decides by these functions, and status and report show what they say. All of them read a run as `load_run`
gives it.
"""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from macil.config import TrialConfig
from macil.equivalence import training_key
from macil.errors import ConfigError, MacilError
from tune.equalrows import standing_for
from tune.runtables import TRIALS_SCHEMA

if TYPE_CHECKING:
    from tune.results import RunResults

Trial = dict[str, Any]

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
    """

    trial: Trial
    epochs: int
    confirmed: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """What its trial is called."""
        return trial_name(self.trial)

    @property
    def score(self) -> float:
        """Its selection score in the search."""
        return float(self.trial["selection_score"])

    @property
    def refit_config(self) -> TrialConfig:
        """What the refit trains: as many epochs as the winner needed. No schedule depends on their number."""
        return configuration(self.trial).replace(epochs=self.epochs)

    def to_dict(self) -> dict[str, Any]:
        """For `run.json`."""
        confirmed = None
        if self.confirmed:
            confirmed = {
                "mean": statistics.fmean(self.confirmed),
                "n": len(self.confirmed),
                "searched": self.score,
            }
        return {
            "trial": self.name,
            "selection_score": self.score,
            "chosen_epoch": self.epochs,
            "confirmed": confirmed,
        }


@dataclass(frozen=True)
class Confirmation:
    """What is confirmed: the best different configurations, best first, and the reference.

    Attributes:
        best: Fewer than were asked for where the search tried fewer.
        reference: The trial with the paper's values of what is searched; None where the space does not hold them, or
            it failed.
    """

    best: tuple[Trial, ...]
    reference: Trial | None

    @property
    def candidates(self) -> tuple[Trial, ...]:
        """All of them, each once."""
        beside = () if self.reference is None or self.reference in self.best else (self.reference,)
        return (*self.best, *beside)

    def to_dict(self, seeds: Sequence[int]) -> dict[str, Any]:
        """For `run.json`."""
        return {
            "rows": [trial_name(trial) for trial in self.best],
            "reference": trial_name(self.reference) if self.reference else None,
            "seeds": list(seeds),
        }


def trial_name(trial: Mapping[str, Any]) -> str:
    """What a trial is called: its folder, which is also where to look."""
    return str(trial["trial_dir"]).rsplit("/", 1)[-1]


def configuration(trial: Mapping[str, Any]) -> TrialConfig:
    """The configuration of a row of `results.trials`.

    Raises:
        ConfigError: The row holds none.
    """
    return TrialConfig.from_dict({name: trial[name] for name in TrialConfig.model_fields})


def counted_trials(results: RunResults) -> list[Trial]:
    """The rows of `results.trials` without repeated trainings of a sweep, see `tune.equalrows.standing_for`."""
    rows = results.trials.to_pylist()
    standing = standing_for(rows, results.plan)
    return [
        row for row in rows if row["kind"] != "search" or row["row"] is None or row["trial_dir"] in standing
    ]


def ranked_trials(results: RunResults) -> list[Trial]:
    """The trials of the search by selection score, best first; among equals the earlier one.

    Trials that failed, diverged or never reported are not among them, nor are trainings of a sweep's row for which
    another one stands.
    """
    ranked = [row for row in counted_trials(results) if row["kind"] == "search" and _has_result(row)]
    return sorted(ranked, key=lambda row: -row["selection_score"])


def leaderboard(results: RunResults) -> pa.Table:
    """The refitted winner, then the ranked trials, best first.

    Column `rank` comes first and counts from 1; it is null for the refit, which is no candidate.
    """
    refit = [row for row in results.trials.to_pylist() if row["status"] == "refit"]
    table = [{"rank": None, **row} for row in refit]
    table += [{"rank": rank, **row} for rank, row in enumerate(ranked_trials(results), start=1)]
    return pa.Table.from_pylist(table, schema=TRIALS_SCHEMA.insert(0, pa.field("rank", pa.int64())))


def winner_of(info: Mapping[str, Any]) -> str | None:
    """The trial that `run.json` names as the winner of a search; None before, and for a sweep."""
    winner = info.get("winner")
    return str(winner["trial"]) if isinstance(winner, dict) and winner.get("trial") else None


def winner_name(results: RunResults) -> str | None:
    """The trial that won, once `run.json` names it, else the best so far; None for a sweep, or without any."""
    if results.info.get("sweep"):
        return None
    return winner_of(results.info) or next((trial_name(row) for row in ranked_trials(results)), None)


def winning_trial(results: RunResults) -> Trial | None:
    """The ranked trial that is called `winner_name`."""
    ranked = [] if results.info.get("sweep") else ranked_trials(results)
    name = winner_of(results.info)
    return next((row for row in ranked if name in (None, trial_name(row))), None)


def reference_trial(results: RunResults) -> Trial | None:
    """The trial with the paper's values of all that is searched: as run.json names it, else the first that has them.

    None where no trial has them: the first suggestion leaves a searched hyperparameter open when the paper's value is
    outside the space, and a sweep has rows instead.
    """
    trials = [row for row in results.trials.to_pylist() if row["kind"] == "search"]
    confirm = results.info.get("confirm")
    named = confirm.get("reference") if isinstance(confirm, dict) else None
    if named is not None:
        return next((row for row in trials if trial_name(row) == str(named)), None)
    first, space = results.plan.get("first"), results.plan.get("space")
    if not isinstance(first, dict) or not isinstance(space, dict) or not first or set(first) != set(space):
        return None
    return next((row for row in trials if all(row.get(name) == value for name, value in first.items())), None)


def different_trainings(trials: Sequence[Trial]) -> list[Trial]:
    """Rows of `results.trials` without those that are a training again: suggestions of a search repeat.

    Of trials that are the same training the first of those that went furthest is left.
    """
    found: dict[Hashable, Trial] = {}
    for trial in trials:
        key = _training(trial)
        if key not in found or (trial["epochs_run"] or 0) > (found[key]["epochs_run"] or 0):
            found[key] = trial
    return list(found.values())


def fresh_trainings(trials: Iterable[Trial], name: str) -> list[Trial]:
    """The trainings of trial `name` on fresh seeds, in the order of the seeds, whatever became of them."""
    rows = (row for row in trials if row["kind"] == "confirm" and str(row["row"]) == name)
    return sorted(rows, key=lambda row: row["seed"] or 0)


def finished_trainings(trainings: Iterable[Trial]) -> list[Trial]:
    """Those that were trained and saved to the end."""
    return [row for row in trainings if row["status"] == "finished" and row["error"] is None]


def fresh_scores(trainings: Iterable[Trial]) -> list[float]:
    """The selection scores of those trainings on fresh seeds that were finished."""
    scores = (row["selection_score"] for row in finished_trainings(trainings))
    return [float(score) for score in scores if score is not None]


def confirmed_order(scores: Sequence[float]) -> tuple[int, float]:
    """Sorts configurations by their scores on fresh seeds, the winner first: by the mean.

    One of which a training failed stands behind all that have more of them: a mean over the seeds that it happened to
    survive is no equal of theirs. Equals keep their order, in which the better of the search comes first.
    """
    return (-len(scores), -statistics.fmean(scores)) if scores else (0, 0.0)


def choose_winner(results: RunResults) -> Winner:
    """The best trial of the search.

    Raises:
        NoWinnerError: There is none.
    """
    best = _ranked(results)[0]
    return Winner(best, best["chosen_epoch"])


def choose_to_confirm(results: RunResults, count: int) -> Confirmation:
    """The `count` best different configurations and the reference beside them, unless `run.json` names them already.

    Suggestions repeat, and some differ in what makes no difference (`training_key`): of trials that are the same
    training the best stands for all.

    Raises:
        NoWinnerError: No trial has a score.
    """
    ranked = _ranked(results)
    recorded = results.info.get("confirm")
    if recorded:
        by_name = {trial_name(trial): trial for trial in ranked}
        named = [by_name[name] for name in recorded["rows"] if name in by_name]
        return Confirmation(tuple(named), by_name.get(str(recorded["reference"])))
    different: dict[Hashable, Trial] = {}
    for trial in ranked:
        different.setdefault(_training(trial), trial)
    reference = reference_trial(results)
    if reference not in ranked:
        reference = None
    return Confirmation(
        tuple(different.values())[:count], None if reference is None else different[_training(reference)]
    )


def choose_confirmed(results: RunResults, candidates: Sequence[Trial]) -> Winner:
    """The first of `candidates` by `confirmed_order`, best first.

    Raises:
        NoWinnerError: No confirmation has a result.
    """
    trials, winners = results.trials.to_pylist(), []
    for trial in candidates:
        found = [row for row in fresh_trainings(trials, trial_name(trial)) if fresh_scores([row])]
        if found:
            epochs = int(statistics.median_low([row["chosen_epoch"] for row in found]))
            winners.append(Winner(trial, epochs, tuple(fresh_scores(found))))
    if not winners:
        raise NoWinnerError(
            "no confirmation has a result: all of them failed; their reasons are in the report and in "
            "confirm/*/error.txt"
        )
    return min(winners, key=lambda one: confirmed_order(one.confirmed))


def _ranked(results: RunResults) -> list[Trial]:
    ranked = ranked_trials(results)
    if not ranked:
        raise NoWinnerError(
            "no trial has a result: all of them failed; their reasons are in the report and in trials/*/error.txt"
        )
    return ranked


def _has_result(trial: Trial) -> bool:
    """Whether a trial may be ranked; one that failed after its last epoch left no checkpoint to go on with."""
    return (
        trial["status"] not in _NO_RESULT and trial["error"] is None and trial["selection_score"] is not None
    )


def _training(trial: Trial) -> Hashable:
    """Equal for trials that are the same training; a trial whose configuration is not known is its own."""
    try:
        return training_key(configuration(trial))
    except ConfigError:
        return str(trial["trial_dir"])
