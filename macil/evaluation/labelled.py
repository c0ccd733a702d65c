"""A network measured on the test videos of a store, whose labels are opened for it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from macil.data.store.feature_store import FeatureStore
from macil.errors import DivergedError
from macil.evaluation.average_precision import frame_average_precision
from macil.evaluation.evaluator import find_degeneracy
from macil.evaluation.whole_videos import require_widths, score_videos
from macil.model import TwoStreamNetwork


class LabelledEvaluation(NamedTuple):
    """What a network reaches on test videos, one network and one pass."""

    ap: float
    """Average precision over frames, step-wise, as `sklearn.metrics.average_precision_score`."""
    ap_trapezoid: float
    """Trapezoidal area: what the field's papers publish as AP."""
    video_accuracy: float
    """Share of videos whose prediction (p > 0.5) is right."""
    videos: int
    snippets: int
    positive_frame_rate: float
    """Share of violent frames, which random scores have as AP."""


def evaluate_network(
    network: TwoStreamNetwork,
    store: FeatureStore,
    device: torch.device | str = "cpu",
    *,
    name: str = "the network",
) -> LabelledEvaluation:
    """Score all test videos of `store` and compare them with their labels.

    Args:
        network: On `device`.
        store: Whose test labels are opened.
        device: Where to compute.
        name: What a message calls the network.

    Raises:
        DataError: The store has other widths than the network reads, no test labels, or no violent test frame.
        DivergedError: The scores are no finite numbers, or all the same.
    """
    require_widths(network, store)
    labels = store.test_labels()
    scores = score_videos(network, store, store.videos("test"), device=device)
    if degenerate := find_degeneracy(scores.snippets):
        raise DivergedError(f"{name} gives no result on {store.path}: of the test snippets, {degenerate}")
    ap = frame_average_precision(scores.snippets, labels.frame_labels, store.snippet_frames)
    return LabelledEvaluation(
        **ap._asdict(),
        video_accuracy=float(np.mean((scores.videos > 0.5) == labels.video_labels)),
        videos=len(labels.names),
        snippets=len(scores.snippets),
        positive_frame_rate=labels.violent_share,
    )
