"""The record of a training: everything its digits depend on, so that it can be run again."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from macil import __version__
from macil.data.reading import AS_USUAL, Reading
from macil.data.split import SplitBy
from macil.errors import DataError
from macil.io.formats import FileFormat

if TYPE_CHECKING:
    import torch

# 2: dropout and shuffle from counter-based numbers; lockstep groups.
FORMAT_VERSION = 2
# What a resumed training must share with the one that was stopped.
_IDENTITY = ("config", "protocol", "split_hash", "store_hash", "dtype", "bags", "precision", "lockstep")


class TrainingRecord(FileFormat):
    """record.json: equal records give equal digits."""

    WHAT: ClassVar[str] = "a record of a training"
    READABLE: ClassVar[tuple[int, ...]] = (FORMAT_VERSION,)

    format_version: int = FORMAT_VERSION
    config: dict[str, Any]
    """Every hyperparameter"""
    protocol: str
    split_seed: int | None
    split_by: SplitBy = "source"
    split_hash: str | None
    store_hash: str
    reading: Reading = AS_USUAL
    """How the store's folder was read"""
    dtype: str
    """Type of the features in the store"""
    bags: str
    """Precision of the training features as kept"""
    precision: str
    lockstep: list[int]
    """Seeds that were trained together"""
    device: str
    device_name: str
    threads: int
    torch_version: str
    cpu_capability: str
    macil_version: str
    resumed_from: list[dict[str, str | int]]
    """Other environments that a part was trained in"""


def describe_environment(device: torch.device, threads: int) -> dict[str, Any]:
    """The part of a record that comes from the machine: equal environments give equal digits."""
    import torch

    gpu = device.type == "cuda"
    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if gpu else platform.machine(),
        "threads": threads,
        "torch_version": str(torch.__version__),  # a str subclass that weights_only refuses
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "macil_version": __version__,
    }


def require_equal(record: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Refuse the state of a training with another record than one's own.

    Raises:
        DataError: It would have other digits; names the differences.
    """
    differing = [name for name in _IDENTITY if record[name] != theirs[name]]
    if differing:
        raise DataError(
            "this checkpoint belongs to another training:",
            [
                f"{name}: the checkpoint has {theirs[name]}, this training {record[name]}"
                for name in differing
            ],
        )
