"""The configuration that won a search, confirmed on fresh seeds where that was asked for."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from macil.config import TrialConfig
from macil.errors import MacilError
from macil.files import atomic_path, read_json
from tune.checkpoints import CHECKPOINT
from tune.groups import PREFIX
from tune.plan import Plan
from tune.scheduler import logged_scores

NO_WINNER = (
    "no trial has a result: all of them failed; their reasons are in the report and in trials/*/error.txt"
)
# The folder of the first suggestion, which is the paper's setting where the space holds it.
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


def candidates_to_confirm(trials: Path, plan: Plan) -> tuple[list[Candidate], str | None]:
    """The `plan.confirm` best trials, best first, and the paper's setting beside them.

    Returns:
        The candidates, and the name of the one that is the paper's setting; None where the space does not hold it, or
        its trial failed.

    Raises:
        NoWinnerError: No trial has a score.
    """
    ranked = _ranked(trials)
    chosen = ranked[: plan.confirm]
    if set(plan.first) != set(plan.space):
        return chosen, None
    paper = [candidate for candidate in ranked if candidate.name == _FIRST]
    return [*chosen, *(one for one in paper if one not in chosen)], _FIRST if paper else None


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
