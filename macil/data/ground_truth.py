"""Frame labels of the test videos of a data folder, a store or a layout, for those who ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from macil.data.store.feature_store import FeatureStore
from macil.data.xd.annotations import read_frame_labels
from macil.data.xd.layout import read_layout
from macil.errors import DataError
from macil.io.notes import note


def truth_of_store(store: FeatureStore) -> dict[str, np.ndarray]:
    """Name to frame labels, uint8 (snippet_frames * T,), of every test video; what they rest on is noted.

    Raises:
        DataError: The store has no labels.
    """
    labels = store.test_labels()
    for doubt in store.label_notes:
        note(doubt)
    ends = np.cumsum(store.videos("test").lengths * store.snippet_frames)
    return dict(zip(labels.names, np.split(labels.frame_labels, ends[:-1]), strict=True))


def truth_of_layout(root: Path, lengths: Mapping[str, int], snippet_frames: int) -> dict[str, np.ndarray]:
    """Like `truth_of_store`, for the test videos in `lengths` (name to snippets) that `root` annotates.

    Raises:
        DataError: There are neither annotations.txt nor gt.npy, or they have faults; names all of them.
    """
    layout = read_layout(root)
    if layout.annotations is None and layout.ground_truth is None:
        raise DataError(f"{root} has no labels: expected annotations.txt or gt.npy in it")
    found = read_frame_labels(layout, lengths, snippet_frames)
    if found.faults:
        raise DataError(f"the labels of {root} have faults:", [str(fault) for fault in found.faults])
    if not found.labels:
        raise DataError(f"{root} has labels for none of these videos; gt.npy alone needs all test videos")
    for doubt in found.doubts:
        note(str(doubt))
    return found.labels
