"""The histories of a batch of trials, read from their folders: a run is resumed from nothing else.

A trial's folder holds its configuration (`params.json`), every epoch that was reported (`result.json`, appended before
anything is decided upon the next one), and its newest checkpoints. Ray Tune's own state is not needed: a training is a
function of its configuration, so that epochs behind the newest checkpoint come out the same again, and what was logged
is never taken back.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from macil.errors import DataError
from macil.training.files import checkpoint_folders
from tune.storage.names import ERROR_FILE, LOG_FILE, ORIGIN_FILE, PARAMS_FILE, SCORES_FILE, TRAINER_FILE
from tune.storage.saved_epochs import read_saved_epochs
from tune.storage.trial_log import read_log
from tune.storage.trial_names import folder_name, member_folders
from tune.storage.trial_params import read_params


@dataclass(frozen=True)
class TrialHistory:
    """The history of one trial.

    Attributes:
        name: Its folder's name.
        epochs: Epochs in its log without a gap, of every seed of a group.
        scores: Epoch to selection score, None where it has none.
        done: Its last report ended it, by itself or stopped.
        diverged: It ended without a result.
        saved: The checkpoint of its last epoch is there, so nothing is left to do.
        error: What its error.txt says; Tune writes it at each failure, so that it may not have been the last.
        trial_id: What its tables call it.
        params: Its configuration as recorded; empty before its start.
        reason: Why it diverged.
        failed: It failed for good, which the study knows.
    """

    name: str
    epochs: int = 0
    scores: Mapping[int, float | None] = field(default_factory=dict)
    done: bool = False
    diverged: bool = False
    saved: bool = False
    error: str | None = None
    trial_id: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None
    failed: bool = False

    @property
    def ended(self) -> bool:
        """Whether it came to an end by itself, with nothing left to do."""
        return self.diverged or (self.done and self.saved)

    @property
    def begun(self) -> bool:
        """Whether it was started at all."""
        return bool(self.params) or self.epochs > 0


def read_numbered(experiment: Path) -> dict[int, TrialHistory]:
    """Number in the study -> history of every trial of a search."""
    if not experiment.is_dir():
        return {}
    names = sorted(path.name for path in experiment.iterdir() if path.is_dir() and path.name.isdigit())
    return {int(name): read_history(experiment, name) for name in names}


def read_listed(experiment: Path, points: Sequence[Mapping[str, Any]]) -> list[TrialHistory]:
    """The histories of a fixed list of configurations, in its order."""
    return [_read_point(experiment, point) for point in points]


def read_history(experiment: Path, name: str) -> TrialHistory:
    """The history of the trial in the folder `name`."""
    folder = experiment / name
    log = read_log(folder / LOG_FILE)
    last = log.reports.get(log.epochs)
    diverged = last is not None and last.diverged
    params = read_params(folder / PARAMS_FILE, [])
    return TrialHistory(
        name=name,
        epochs=log.epochs,
        scores={epoch: log.reports[epoch].selection_score for epoch in range(1, log.epochs + 1)},
        done=last is not None and last.done,
        diverged=diverged,
        saved=_is_saved(folder, log.epochs),
        error=None if diverged else _error(folder / ERROR_FILE),
        trial_id=(last.trial_id if last else None) or params.trial_id,
        params=params.hyperparameters,
        reason=last.reason if last is not None else None,
    )


def _read_point(experiment: Path, point: Mapping[str, Any]) -> TrialHistory:
    members = member_folders(point)
    if not members:
        return read_history(experiment, folder_name(point))
    histories = [read_history(experiment, name) for name in members.values()]
    going = [history for history in histories if not history.diverged]
    errors = [history.error for history in histories if history.error is not None]
    epochs = min((history.epochs for history in going), default=max(history.epochs for history in histories))
    return TrialHistory(
        name=folder_name(point),
        epochs=epochs,
        scores={
            epoch: mean_score(history.scores.get(epoch) for history in histories)
            for epoch in range(1, epochs + 1)
        },
        done=all(history.done for history in histories),
        diverged=not going,
        saved=all(history.saved for history in going),
        error=errors[0] if errors else None,
        params=histories[0].params,
    )


def mean_score(scores: Iterable[float | None]) -> float | None:
    """The score of a group of seeds: the mean over those that have one."""
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None


def _is_saved(folder: Path, epochs: int) -> bool:
    """Whether the newest checkpoint is whole and of the epoch `epochs`."""
    found = checkpoint_folders(folder)
    if not found or not epochs:
        return False
    newest = found[-1]
    # The weights of a run in a bucket stay there.
    archives = [SCORES_FILE] if (folder.parents[1] / ORIGIN_FILE).exists() else [SCORES_FILE, TRAINER_FILE]
    try:
        for archive in archives:
            zipfile.ZipFile(newest / archive).close()
        return read_saved_epochs(newest).last == epochs
    except (DataError, OSError, zipfile.BadZipFile):
        return False


def _error(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
