"""Checkpoints: one file that holds a training's whole state and explains itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch

from macil.config import TrialConfig
from macil.errors import DataError
from macil.files import atomic_path
from macil.model import TwoStreamNetwork
from macil.record import FORMAT_VERSION
from macil.tensorfile import read_tensors

_KIND = "macil checkpoint"


class Resumable(Protocol):
    """A training, or a lockstep group of them."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs."""


def save_checkpoint(trainer: Resumable, path: str | Path) -> None:
    """Write the trainer's state in one step; a reader sees the old file or the new one, never half of it."""
    with atomic_path(path) as temporary:
        torch.save({"kind": _KIND, "format_version": FORMAT_VERSION, **trainer.state_dict()}, temporary)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU, plain values and tensors only.

    Raises:
        DataError: Missing, cut short, another file, or another format version; names the file.
    """
    state = read_tensors(path, "checkpoint")
    if not isinstance(state, dict) or state.get("kind") != _KIND:
        raise DataError(f"{path} is not a checkpoint of this project")
    if state["format_version"] != FORMAT_VERSION:
        raise DataError(
            f"{path} has format_version {state['format_version']}; this version reads {FORMAT_VERSION}"
        )
    return state


def load_network(path: str | Path) -> TwoStreamNetwork:
    """The audio-visual network of a checkpoint, on the CPU, in evaluation mode.

    Raises:
        DataError: As `load_checkpoint`, or the checkpoint of a group of seeds.
    """
    return network_of(load_checkpoint(path), path)


def network_of(state: dict[str, Any], path: str | Path) -> TwoStreamNetwork:
    """The audio-visual network of a checkpoint that was read from `path`; as `load_network`."""
    if "members" in state:
        raise DataError(
            f"{path} is what a group of seeds resumes from, not one network; give the checkpoint of one seed"
        )
    network = TwoStreamNetwork(TrialConfig.from_dict(state["record"]["config"]), **state["features"])
    network.load_state_dict(state["network"])
    return network.eval()
