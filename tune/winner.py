"""The trial that won a run, and its training again on all training videos."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from macil.config import TrialConfig
from macil.errors import MacilError
from macil.files import atomic_path, read_json
from tune.scheduler import logged_scores
from tune.trainable import CHECKPOINT

NO_WINNER = (
    "no trial has a result: all of them failed; their reasons are in the report and in trials/*/error.txt"
)


class NoWinnerError(MacilError):
    """Every trial of a run failed."""


@dataclass(frozen=True)
class Winner:
    """The best trial.

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
    def refit_config(self) -> TrialConfig:
        """What the refit trains: as many epochs as the winner needed. No schedule depends on their number."""
        return self.config.replace(epochs=self.epoch)

    def to_dict(self) -> dict[str, Any]:
        """For `run.json`."""
        return {"trial": self.folder.name, "selection_score": self.score, "chosen_epoch": self.epoch}


def choose_winner(trials: Path) -> Winner:
    """The trial of the best selection score; the earlier folder among equals. Failed and diverged ones never win.

    Raises:
        NoWinnerError: There is none.
    """
    best: Winner | None = None
    for folder in sorted(path for path in trials.iterdir() if (path / "params.json").is_file()):
        scores = list(logged_scores(folder / "result.json"))
        if not scores or (folder / "error.txt").exists():
            continue
        epoch, score = max(scores, key=lambda item: (item[1], -item[0]))
        if best is None or score > best.score:
            params = read_json(folder / "params.json")
            config = TrialConfig.from_dict({k: v for k, v in params.items() if k in TrialConfig.model_fields})
            best = Winner(folder, config, score, epoch)
    if best is None:
        raise NoWinnerError(NO_WINNER)
    return best


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
