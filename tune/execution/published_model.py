"""The winner's weights as the run's result."""

from __future__ import annotations

import shutil
from pathlib import Path

from macil.io.files import atomic_path
from macil.training.files import newest_checkpoint
from tune.results.ranking import NoWinnerError
from tune.storage.names import ERROR_FILE, TRAINER_FILE


def publish_model(trial: Path, target: Path) -> None:
    """Copy a trial's newest checkpoint to `target`, in one step.

    Raises:
        NoWinnerError: The trial left none.
    """
    newest = newest_checkpoint(trial)
    if newest is None:
        raise NoWinnerError(f"{trial} left no checkpoint; see {trial / ERROR_FILE}")
    with atomic_path(target) as temporary:
        shutil.copyfile(newest / TRAINER_FILE, temporary)
