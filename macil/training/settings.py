"""What a training may be told beside its configuration and its data."""

from __future__ import annotations

from typing import Literal

KeptScores = Literal["ends", "all"]
"""Whose test scores are kept: those of the chosen and of the last epoch, or of every one."""
MOST_THREADS = 1024
