"""Checks of a store before it is used: it may come from anybody, and a wrong number in it would be an address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from macil.data.pairing import EXPECTED, are_far_apart
from macil.data.store import columns
from macil.io.text import brief, is_printable

if TYPE_CHECKING:
    from macil.data.store.feature_store import VideoSet

_MOST_NAMED = 5


def index_faults(
    sets: Mapping[str, VideoSet], rows: int, visual_rows: int, audio_rows: int | None, part: str | None
) -> list[str]:
    """Faults of the videos that the index lists: invalid names, rows that do not exist.

    Args:
        sets: The videos of either split.
        rows: Rows of the index.
        visual_rows: Rows of the visual features.
        audio_rows: Rows of the audio features; None: the store is of visual features alone.
        part: The only split that the store is meant to hold; None: both.
    """
    faults = []
    if sum(map(len, sets.values())) != rows:
        faults.append("it lists videos that are neither training nor test videos")
    for split, videos in sets.items():
        if bool(len(videos)) != (part in (None, split)):
            faults.append(f"it lists {'a' if len(videos) else 'no'} {split} video")
        faults += _name_faults(videos.names, split)
        if videos.labels is not None and not np.isin(videos.labels, (0, 1)).all():
            faults.append(f"a label of the {split} videos is neither 0 nor 1")
        # Each number by itself first: their sum may not fit 64 bits.
        numbers = {
            columns.LENGTH: (videos.lengths, 1, visual_rows // max(videos.crops, 1)),
            columns.AUDIO_LENGTH: (videos.audio_lengths, 0 if audio_rows is None else 1, audio_rows or 0),
            columns.VISUAL_OFFSET: (videos.visual_offsets, 0, visual_rows),
            columns.AUDIO_OFFSET: (videos.audio_offsets, 0, audio_rows or 0),
        }
        wrong = [name for name, (values, low, high) in numbers.items() if _outside(values, low, high)]
        faults += [f"{name} of a {split} video is out of range" for name in wrong]
        if not wrong:
            visual_end = videos.visual_offsets + videos.crops * videos.lengths
            audio_end = videos.audio_offsets + videos.audio_lengths
            if _outside(visual_end, 0, visual_rows) or _outside(audio_end, 0, audio_rows or 0):
                faults.append(f"it lists rows of a {split} video beyond the features")
            faults += [] if audio_rows is None else _length_faults(videos)
    return faults


def _length_faults(videos: VideoSet) -> list[str]:
    apart = np.flatnonzero(are_far_apart(videos.lengths, videos.audio_lengths))
    return [
        f"{videos.names[i]} has {videos.lengths[i]} snippets and {videos.audio_lengths[i]} rows of audio; {EXPECTED}"
        for i in apart[:_MOST_NAMED]
    ]


def _name_faults(names: Sequence[str], split: str) -> list[str]:
    # A video's name becomes the name of a file.
    unfit = [name for name in names if not _is_name(name)]
    faults = [f"{brief(name)} is no name of a {split} video" for name in unfit[:_MOST_NAMED]]
    if len(set(names)) < len(names):
        faults.append(f"two {split} videos have the same name")
    return faults


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and "/" not in name and is_printable(name)


def _outside(values: np.ndarray, low: int, high: int) -> bool:
    return bool(((values < low) | (values > high)).any())
