"""The winner's weights as the run's result."""

from __future__ import annotations

import shutil
from pathlib import Path

from macil.files import atomic_path
from tune.checkpoints import CHECKPOINT
from tune.ranking import NoWinnerError


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
