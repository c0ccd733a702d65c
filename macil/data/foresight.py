"""What a search will refuse, or should be told, of data that are in order: seen when they are checked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from macil.config import TrialConfig
from macil.data.split import split_videos
from macil.data.xd.folders import Finding
from macil.errors import DataError


def foresee(labels: Sequence[int] | np.ndarray, sources: Sequence[str], crops: int) -> list[Finding]:
    """Notes on what a search with its usual options will make of the training videos.

    Args:
        labels: 0 or 1 of each training video.
        sources: Of each.
        crops: Of the data.
    """
    labels = np.asarray(labels, np.int64)
    if not len(labels):
        return []
    if len(set(labels.tolist())) < 2:
        only = "violent" if labels[0] else "normal"
        reason = (
            f"all {len(labels)} training videos are {only}: nothing can be learnt without the other class"
        )
        return [Finding("search", "", reason)]
    found, trained = [], len(labels)
    try:
        trained = len(split_videos(labels, sources, 0)[0])
    except DataError as error:
        found.append(Finding("search", "", f"a search will refuse these data as they are: {error.message}"))
    bags, batch = trained * crops, TrialConfig().batch_size
    if batch >= bags:
        reason = (
            f"a batch of {batch}, the default, holds all {bags} bags that a search trains on, so that an epoch is one "
            "step; a smaller --batch-size gives more"
        )
        found.append(Finding("search", "", reason))
    return found
