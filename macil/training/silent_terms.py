"""Epochs in which the contrastive terms were exactly 0, so that their weights and temperature had no effect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from macil.io.wording import plural_s

WHY = "no batch held both videos predicted violent and videos predicted normal"


def is_silent(epoch: Mapping[str, Any]) -> bool:
    """Whether both terms of an epoch (`EpochMetrics` as a dict) were exactly 0 before weighting."""
    return epoch.get("loss_v2b") == 0 and epoch.get("loss_v2n") == 0


def silent_epochs(epochs: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """Count the epochs whose contrastive terms were exactly 0, and all epochs that have such terms."""
    found = [is_silent(epoch) for epoch in epochs if epoch.get("loss_v2b") is not None]
    return sum(found), len(found)


def silence_text(silent: int, epochs: int) -> str:
    """`exactly 0 in 3 of 20 epochs`."""
    which = f"all {epochs}" if silent == epochs > 1 else f"{silent} of {epochs}"
    return f"exactly 0 in {which} epoch{plural_s(epochs)}"
