"""Checkpoints: one file that holds a training's whole state and explains itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from macil.errors import DataError
from macil.io.files import atomic_path
from macil.io.text import brief
from macil.io.torch_files import dump_tensors, read_tensors
from macil.training.record import FORMAT_VERSION

if TYPE_CHECKING:
    from macil.model import TwoStreamNetwork

_KIND = "macil checkpoint"


class Resumable(Protocol):
    """A training."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs."""


def save_checkpoint(trainer: Resumable, path: str | Path) -> None:
    """`write_state` of a trainer's state."""
    write_state(trainer.state_dict(), path)


def write_state(state: Mapping[str, Any], path: str | Path) -> None:
    """Write a state in one step; a reader sees the old file or the new one, never half of it.

    Raises:
        WriteError: The disk is full, or the folder cannot be written.
    """
    content = dump_tensors({"kind": _KIND, "format_version": FORMAT_VERSION, **state})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU, plain values and tensors only.

    Raises:
        DataError: Missing, cut short, damaged, another file, or another format version; names the file.
    """
    state = read_tensors(path, "checkpoint", verify=True)
    if not isinstance(state, dict) or state.get("kind") != _KIND:
        raise DataError(f"{path} is not a checkpoint of this project")
    version = state.get("format_version")
    if version != FORMAT_VERSION:
        raise DataError(f"{path} has format_version {brief(version)}; this version reads {FORMAT_VERSION}")
    if "members" not in state and not _is_whole(state):
        raise DataError(f"checkpoint {path} lacks a part of what it should hold: it is damaged")
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
    from macil.model.rebuilding import rebuild_network

    try:
        widths = state["features"]["visual_dim"], state["features"]["audio_dim"]
        return rebuild_network(state["record"]["config"], *widths, state["network"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"checkpoint {path} does not fit its own description: {error}") from None


def _is_whole(state: dict[str, Any]) -> bool:
    """Whether the parts that every reader needs are there."""
    record = state.get("record")
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        return False
    return isinstance(state.get("epoch"), int) and {"protocol"} <= set(record) and "seed" in record["config"]
