"""What a store must be to be used: a store may come from anybody, and a wrong number in it would be an address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from macil.data.pairing import EXPECTED, are_far_apart
from macil.text import brief, is_printable

if TYPE_CHECKING:
    from macil.data.store import VideoSet

DTYPES = ("float32", "float16")
# Far beyond any features there are.
_WIDEST, _MOST_CROPS, _MOST_FRAMES = 2**20, 10_000, 10_000
_MOST_NAMED = 5


def meta_faults(meta: Mapping[str, Any]) -> list[str]:
    """What is wrong with the fields of meta.json, one text each."""
    faults = []
    limits = {
        "visual_dim": _WIDEST,
        "audio_dim": _WIDEST,
        "crops": _MOST_CROPS,
        "snippet_frames": _MOST_FRAMES,
    }
    for name, most in limits.items():
        value = meta[name]
        if not _is_whole(value) or not 1 <= value <= most:
            faults.append(f"{name} = {brief(value)}, expected a whole number from 1 to {most}")
    if meta["dtype"] not in DTYPES:
        faults.append(f"dtype = {brief(meta['dtype'])}, expected {' or '.join(DTYPES)}")
    for name in ("content_hash", "labels_hash"):
        value = meta[name]
        absent = name == "labels_hash" and value is None
        if not absent and not (isinstance(value, str) and value and value.isascii() and value.isalnum()):
            faults.append(f"{name} = {brief(value)}, expected a hash")
    sizes = meta["files"]
    if not isinstance(sizes, dict) or not all(map(_is_whole, sizes.values())):
        faults.append(f"files = {brief(sizes)}, expected the sizes of the feature files")
    notes = meta.get("label_notes")
    if notes is not None and not (
        isinstance(notes, list) and all(isinstance(each, str) and is_printable(each) for each in notes)
    ):
        faults.append(f"label_notes = {brief(notes)}, expected sentences")
    if not isinstance(meta.get("source", {}), dict):
        faults.append(f"source = {brief(meta['source'])}, expected a table")
    hashes = meta.get("hashes", {})
    if not isinstance(hashes, dict) or not all(map(_is_hash, hashes.values())):
        faults.append(f"hashes = {brief(hashes)}, expected the hash of each file")
    return faults


def index_faults(sets: Mapping[str, VideoSet], rows: int, visual_rows: int, audio_rows: int) -> list[str]:
    """What is wrong with the videos that the index lists: names that are no names, rows that are not there.

    Args:
        sets: The videos of either split.
        rows: Rows of the index.
        visual_rows: Rows of the visual features.
        audio_rows: Rows of the audio features.
    """
    faults = []
    if sum(map(len, sets.values())) != rows:
        faults.append("it lists videos that are neither training nor test videos")
    for split, videos in sets.items():
        if not len(videos):
            faults.append(f"it lists no {split} video")
        faults += _name_faults(videos.names, split)
        if videos.labels is not None and not np.isin(videos.labels, (0, 1)).all():
            faults.append(f"a label of the {split} videos is neither 0 nor 1")
        # Each number by itself first: their sum may not fit 64 bits.
        numbers = {
            "length": (videos.lengths, 1, visual_rows // max(videos.crops, 1)),
            "audio_length": (videos.audio_lengths, 1, audio_rows),
            "visual_offset": (videos.visual_offsets, 0, visual_rows),
            "audio_offset": (videos.audio_offsets, 0, audio_rows),
        }
        wrong = [name for name, (values, low, high) in numbers.items() if _outside(values, low, high)]
        faults += [f"{name} of a {split} video is out of range" for name in wrong]
        if not wrong:
            visual_end = videos.visual_offsets + videos.crops * videos.lengths
            audio_end = videos.audio_offsets + videos.audio_lengths
            if _outside(visual_end, 0, visual_rows) or _outside(audio_end, 0, audio_rows):
                faults.append(f"it lists rows of a {split} video beyond the features")
            faults += _length_faults(videos)
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


def _is_hash(value: object) -> bool:
    """Of a file; or bytes at its start, bytes at its end, and the hash of these."""
    if isinstance(value, list) and len(value) == 3:
        return all(_is_whole(size) and 0 <= size < 2**40 for size in value[:2]) and isinstance(value[2], str)
    return isinstance(value, str)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _outside(values: np.ndarray, low: int, high: int) -> bool:
    return bool(((values < low) | (values > high)).any())
