"""Names of the files that a training leaves, and the numbered folders of its checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

# One training by itself (`python -m macil train`): its checkpoints, its configuration, one line an epoch.
BEST_FILE = "best.pt"
LAST_FILE = "last.pt"
CONFIG_FILE = "config.toml"
EPOCHS_FILE = "epochs.jsonl"
RECORD_FILE = "record.json"
SCORES_FILE = "scores.npz"
SPLIT_FILE = "split.json"
# A trial of a search: numbered checkpoint folders, named as Ray names them, with the trainer's state in each.
CHECKPOINT_PREFIX = "checkpoint_"
TRAINER_FILE = "trainer.pt"
# A run of many trainings: the network that it ends with, and the folder of its trials.
MODEL_FILE = "model.pt"
TRIALS_FOLDER = "trials"


def checkpoint_number(name: str) -> int:
    """The number in the name of a checkpoint folder, -1 for any other name."""
    digits = name.removeprefix(CHECKPOINT_PREFIX)
    return int(digits) if name.startswith(CHECKPOINT_PREFIX) and digits.isdecimal() else -1


def in_order(names: Iterable[str]) -> list[str]:
    """The `names` that are of checkpoint folders, oldest first."""
    return sorted((name for name in names if checkpoint_number(name) >= 0), key=checkpoint_number)


def checkpoint_folders(trial: Path) -> list[Path]:
    """The checkpoint folders in a trial's folder, oldest first."""
    return (
        [trial / name for name in in_order(path.name for path in trial.iterdir())] if trial.is_dir() else []
    )


def newest_checkpoint(trial: Path, holding: str = TRAINER_FILE) -> Path | None:
    """The newest checkpoint folder with a file `holding`; None without any."""
    folders = (folder for folder in reversed(checkpoint_folders(trial)) if (folder / holding).is_file())
    return next(folders, None)
