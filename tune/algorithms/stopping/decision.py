"""The decision of a stopping rule after an epoch."""

from __future__ import annotations

from enum import Enum


class Decision(Enum):
    """Whether a trial is trained on."""

    CONTINUE = "continue"
    STOP = "stop"
