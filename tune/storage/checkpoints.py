"""A trial's checkpoints: numbered folders, each made in one step; the last good one is what a training goes on from.

Which folders are checkpoints, and which is the newest, says `macil.training.files`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from macil.errors import DataError
from macil.io.folders import atomic_folder, remove_unfinished
from macil.io.remote import Remote
from macil.training.checkpoint import load_checkpoint
from macil.training.files import checkpoint_folders, checkpoint_number, in_order
from tune.storage.names import DAMAGED_PREFIX, TRAINER_FILE

# How a note begins that reports no damage.
WENT_ON = "went on from"
# The newest, and one to fall back upon.
KEPT = 2


def last_good(trial: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The state in the newest checkpoint that can be read; None without any.

    Args:
        trial: The trial's folder. A damaged checkpoint is renamed, so that nobody takes it for the newest.
        warn: Told which one it is, and about each damaged one.
    """

    def set_aside(name: str) -> None:
        aside = trial / f"{DAMAGED_PREFIX}{name}"
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(trial / name, aside)

    names = [folder.name for folder in checkpoint_folders(trial)]
    return newest_readable(names, lambda name: load_checkpoint(trial / name / TRAINER_FILE), set_aside, warn)


def newest_readable(
    names: Sequence[str],
    load: Callable[[str], dict[str, Any]],
    set_aside: Callable[[str], None],
    warn: Callable[[str], None],
) -> dict[str, Any] | None:
    """The state of the last of `names` that `load` can read; those after it are set aside."""
    damaged: list[str] = []
    for name in reversed(names):
        try:
            state = load(name)
        except DataError as error:
            damaged.append(error.message)
            set_aside(name)
            continue
        warn("; ".join([*damaged, f"{WENT_ON} {name}, epoch {state['epoch']}"]))
        return state
    if damaged:
        warn(f"{'; '.join(damaged)}; there is no other, so it was trained again from its first epoch")
    return None


def highest_number(names: Iterable[str]) -> int:
    """The highest number of a checkpoint among the folders of a trial, also of a damaged one; -1 without any."""
    return max((checkpoint_number(name.removeprefix(DAMAGED_PREFIX)) for name in names), default=-1)


def put(source: Path, target: Path) -> None:
    """Make `target` a copy of the folder `source`, in one step.

    Raises:
        OSError: The storage refused; nothing is left of it.
    """
    remove_unfinished(target)
    with atomic_folder(target) as building:
        for file in source.iterdir():
            # Not copytree: its error hides the reason.
            shutil.copyfile(file, building / file.name)


def bucket_checkpoints(trial: Remote) -> list[str]:
    """The checkpoints of a trial's folder in a bucket that are there, oldest first: the weights are put last."""
    files = (name.partition("/") for name in trial.files())
    return in_order(folder for folder, _, file in files if file == TRAINER_FILE)


def prune(trial: Path) -> None:
    """Remove all but the newest checkpoints."""
    for folder in checkpoint_folders(trial)[:-KEPT]:
        shutil.rmtree(folder, ignore_errors=True)
