"""Which epochs a checkpoint is of, without its weights: a report asks a thousand of them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from macil.io.formats import FileFormat
from macil.training.checkpoint import load_checkpoint
from tune.storage.names import SAVED_FILE, TRAINER_FILE


class SavedEpochs(FileFormat):
    """`saved.json`, beside the weights and scores of a checkpoint.

    Attributes:
        last: The epoch that the weights are of.
        chosen: The epoch whose scores are kept as those of the chosen one; None where none is chosen.
    """

    WHAT: ClassVar[str] = "what a checkpoint is of"

    last: int
    chosen: int | None


def read_saved_epochs(checkpoint: Path) -> SavedEpochs:
    """Which epochs a checkpoint's folder is of; for one of an earlier version from the weights, which takes 10 ms.

    Raises:
        DataError: Nothing says it: the checkpoint is damaged, or is none.
    """
    path = checkpoint / SAVED_FILE
    if path.is_file():
        return SavedEpochs.read(path)
    state = load_checkpoint(checkpoint / TRAINER_FILE)
    return SavedEpochs(last=state["epoch"], chosen=state.get("chosen_epoch"))
