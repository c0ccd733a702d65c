"""A trained audio-visual network, from whatever holds one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from macil.errors import DataError, UsageError
from macil.inference.released import load_released
from macil.inference.safetensors_format import SUFFIX, load_safetensors
from macil.io.remote import local_path
from macil.model import TwoStreamNetwork
from macil.training.checkpoint import load_checkpoint, network_of
from macil.training.files import (
    BEST_FILE,
    LAST_FILE,
    MODEL_FILE,
    TRAINER_FILE,
    TRIALS_FOLDER,
    newest_checkpoint,
)


class Trained(NamedTuple):
    """A network and where it comes from."""

    network: TwoStreamNetwork
    """The network, on the CPU and in evaluation mode."""
    file: Path
    origin: dict[str, Any]
    """Facts about the training, plain values: `epoch`, `protocol`, `seed`; or `origin`, in words."""


def load_trained(path: str | Path, *, released: bool = False, num_heads: int | None = None) -> Trained:
    """Open a checkpoint, a run (its model.pt), a trial's folder, a .safetensors export or the authors' weights.

    Args:
        path: The file or folder.
        released: `path` is a weight file of the authors' code.
        num_heads: Attention heads of released weights, which do not record them; None for the published 4.

    Raises:
        DataError: Nothing of the kind is there, or it is damaged; names the file.
        UsageError: `num_heads` without `released`.
    """
    path = local_path(path)
    if released:
        network = load_released(path, num_heads or 4)
        return Trained(network, path, {"origin": "released weights"})
    if num_heads is not None:
        raise UsageError("--num-heads belongs to --released; every other file says how many heads it has")
    if path.is_dir():
        path = _model_of_run(path)
    if path.suffix == SUFFIX:
        loaded = load_safetensors(path)
        return Trained(loaded.network, path, loaded.origin)
    state = load_checkpoint(path)
    return Trained(network_of(state, path), path, _describe(state))


def _model_of_run(folder: Path) -> Path:
    """The run's model.pt, or the newest checkpoint of a trial's folder."""
    model = folder / MODEL_FILE
    if model.is_file():
        return model
    newest = newest_checkpoint(folder)
    if newest is not None:
        return newest / TRAINER_FILE
    files = [folder / name for name in (BEST_FILE, LAST_FILE) if (folder / name).is_file()]
    trials = [trial for trial in sorted((folder / TRIALS_FOLDER).glob("*")) if newest_checkpoint(trial)]
    advice = "a search writes it when its winner has been trained again"
    if files:
        advice = f"give one of the checkpoints in it: {', '.join(map(str, files))}"
    elif trials:
        advice = f"give the folder of one of its {len(trials)} trained trials, as {trials[0]}"
    raise DataError(f"{folder} holds no {MODEL_FILE}; {advice}")


def _describe(state: dict[str, Any]) -> dict[str, Any]:
    record = state["record"]
    return {"epoch": state["epoch"], "protocol": record["protocol"], "seed": record["config"]["seed"]}
