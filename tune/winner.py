"""The configuration that won a search, confirmed on fresh seeds where that was asked for."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from macil.config import TrialConfig
from macil.equivalence import training_key
from macil.errors import MacilError
from macil.files import atomic_path, read_json
from tune.checkpoints import CHECKPOINT
from tune.groups import PREFIX
from tune.plan import Plan
from tune.scheduler import logged_scores

NO_WINNER = (
    "no trial has a result: all of them failed; their reasons are in the report and in trials/*/error.txt"
)
# The folder of the first suggestion: the reference, where the space holds the paper's values of what is searched.
_FIRST = "00000"


class NoWinnerError(MacilError):
    """Every trial of a run failed."""


@dataclass(frozen=True)
class Candidate:
    """One training that has a score.

    Attributes:
        folder: Its folder.
        config: Its configuration.
        score: Its selection score.
        epoch: The first epoch that reached it.
    """

    folder: Path
    config: TrialConfig
    score: float
    epoch: int

    @property
    def name(self) -> str:
        """What its trial is called."""
        return self.folder.name


@dataclass(frozen=True)
class Winner:
    """The configuration that won, as its trial in the search.

    Attributes:
        candidate: That trial.
        epoch: Epochs to train it for: those it needed itself, or the median of its confirmations.
        confirmed: Its selection scores on fresh seeds; empty without a confirmation.
    """

    candidate: Candidate
    epoch: int
    confirmed: tuple[float, ...] = ()

    @property
    def refit_config(self) -> TrialConfig:
        """What the refit trains: as many epochs as the winner needed. No schedule depends on their number."""
        return self.candidate.config.replace(epochs=self.epoch)

    def to_dict(self) -> dict[str, Any]:
        """For `run.json`."""
        confirmed = None
        if self.confirmed:
            confirmed = {
                "mean": statistics.fmean(self.confirmed),
                "n": len(self.confirmed),
                "searched": self.candidate.score,
            }
        return {
            "trial": self.candidate.name,
            "selection_score": self.candidate.score,
            "chosen_epoch": self.epoch,
            "confirmed": confirmed,
        }


def choose_winner(trials: Path) -> Winner:
    """The trial of the best selection score; the earlier folder among equals. Failed and diverged ones never win.

    Raises:
        NoWinnerError: There is none.
    """
    best = _ranked(trials)[0]
    return Winner(best, best.epoch)


@dataclass(frozen=True)
class Confirmation:
    """What is confirmed: the best different configurations, best first, and the reference.

    Attributes:
        best: Fewer than were asked for where the search tried fewer.
        reference: The trial with the paper's values of what is searched; None where the space does not hold them, or
            it failed.
    """

    best: tuple[Candidate, ...]
    reference: Candidate | None

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All of them, each once."""
        beside = () if self.reference is None or self.reference in self.best else (self.reference,)
        return (*self.best, *beside)

    def to_dict(self, seeds: Sequence[int]) -> dict[str, Any]:
        """For `run.json`."""
        return {
            "rows": [candidate.name for candidate in self.best],
            "reference": self.reference.name if self.reference else None,
            "seeds": list(seeds),
        }


def choose_to_confirm(trials: Path, plan: Plan, recorded: Mapping[str, Any] | None = None) -> Confirmation:
    """The `plan.confirm` best configurations and the reference beside them.

    Suggestions repeat, and some differ in what makes no difference (`training_key`): of trials that are the same
    training the best stands for all.

    Args:
        trials: Folder of the search's trials.
        plan: The plan.
        recorded: What `run.json` says was chosen before the run was resumed.

    Raises:
        NoWinnerError: No trial has a score.
    """
    ranked = _ranked(trials)
    if recorded:
        by_name = {candidate.name: candidate for candidate in ranked}
        named = [by_name[name] for name in recorded["rows"] if name in by_name]
        return Confirmation(tuple(named), by_name.get(str(recorded["reference"])))
    different: dict[Hashable, Candidate] = {}
    for candidate in ranked:
        different.setdefault(training_key(candidate.config), candidate)
    best = tuple(different.values())[: plan.confirm]
    first = next((candidate for candidate in ranked if candidate.name == _FIRST), None)
    if first is None or set(plan.first) != set(plan.space):
        return Confirmation(best, None)
    return Confirmation(best, different[training_key(first.config)])


def choose_confirmed(confirmations: Path, candidates: Sequence[Candidate]) -> Winner:
    """The candidate of the best mean selection score over its confirmations.

    A candidate of which a confirmation failed stands behind all that have more of them: a mean over the seeds that it
    happened to survive is no equal of theirs. Among equals the better of the search wins.

    Raises:
        NoWinnerError: No confirmation has a result.
    """
    winners = []
    for candidate in candidates:
        found = [one for one in _scored(confirmations) if one.name.startswith(f"{candidate.name}_seed")]
        if found:
            epoch = int(statistics.median_low([one.epoch for one in found]))
            winners.append(Winner(candidate, epoch, tuple(one.score for one in found)))
    if not winners:
        raise NoWinnerError(
            "no confirmation has a result: all of them failed; their reasons are in the report and in "
            "confirm/*/error.txt"
        )
    return max(winners, key=lambda one: (len(one.confirmed), statistics.fmean(one.confirmed)))


def publish_model(trial: Path, target: Path) -> None:
    """Copy a trial's newest checkpoint to `target`, in one step.

    Raises:
        NoWinnerError: The trial left none.
    """
    checkpoints = sorted(trial.glob(f"checkpoint_*/{CHECKPOINT}"), key=lambda path: path.parent.name)
    if not checkpoints:
        raise NoWinnerError(f"{trial} left no checkpoint; see {trial / 'error.txt'}")
    with atomic_path(target) as temporary:
        shutil.copyfile(checkpoints[-1], temporary)


def _ranked(trials: Path) -> list[Candidate]:
    """Best first; the earlier folder among equals."""
    found = sorted(_scored(trials), key=lambda candidate: -candidate.score)
    if not found:
        raise NoWinnerError(NO_WINNER)
    return found


def _scored(trials: Path) -> Iterator[Candidate]:
    """Every training below `trials` that has a score and did not fail, by folder."""
    folders = (path for path in trials.iterdir() if not path.name.startswith(PREFIX))
    for folder in sorted(path for path in folders if (path / "params.json").is_file()):
        scores = list(logged_scores(folder / "result.json"))
        if not scores or (folder / "error.txt").exists():
            continue
        epoch, score = max(scores, key=lambda item: (item[1], -item[0]))
        params = read_json(folder / "params.json")
        config = TrialConfig.from_dict({k: v for k, v in params.items() if k in TrialConfig.model_fields})
        yield Candidate(folder, config, score, epoch)
