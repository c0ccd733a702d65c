"""Visual features and the audio that belongs to them: how far their lengths may be apart, and what is done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

MOST_APART = 1
"""Rows that the audio of a video may have more or less than it has snippets; XD-Violence has both."""
EXPECTED = "at most one row of difference is expected"

_Lengths = TypeVar("_Lengths", int, np.ndarray)
_Rows = TypeVar("_Rows", np.ndarray, "Tensor")


def are_far_apart(snippets: _Lengths, audio_rows: _Lengths) -> Any:
    """Whether the lengths of a video's visual features and of its audio disagree; of arrays, elementwise."""
    return abs(audio_rows - snippets) > MOST_APART


def fit_audio(audio: _Rows, fitted: _Rows) -> int:
    """Fill `fitted`, a row for each snippet, from the rows of `audio`: what is too long is cut, what is too short zero.

    Returns:
        How many rows of `audio` are in it.
    """
    kept = min(len(audio), len(fitted))
    fitted[:kept] = audio[:kept]
    fitted[kept:] = 0
    return kept


def axes_look_swapped(shape: tuple[int, ...], audio_rows: int, *, fill_audio: bool) -> bool:
    """Whether the audio says that an array meant as (crops, snippets, Dv) is (snippets, crops, Dv).

    It does where it has as many rows as the first axis and not as the second, or is near the first alone. Audio that is
    to be filled may have any length: it must be near the first axis alone, and that must be the longer.
    """
    if len(shape) != 3:
        return False
    first, second = shape[:2]
    near_first_alone = bool(are_far_apart(second, audio_rows) and not are_far_apart(first, audio_rows))
    if fill_audio:
        return near_first_alone and first > second
    return near_first_alone or audio_rows == first != second
