"""The evaluation after an epoch under each protocol, and the labels that it may read."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from macil.data.split import Split
from macil.data.store.feature_store import FeatureStore
from macil.errors import DataError
from macil.evaluation.average_precision import frame_average_precision
from macil.evaluation.heldout import assess_heldout
from macil.evaluation.protocols import Protocol
from macil.evaluation.whole_videos import score_whole, shared_videos
from macil.model import TwoStreamNetwork, VisualNetwork

_WHOSE = {"": "", "visual_": "of the visual network, "}


class Evaluation(NamedTuple):
    """The result of an evaluation after one epoch."""

    figures: dict[str, Any]
    """Fields of `macil.training.metrics.EpochMetrics`, without what the protocol does not measure."""
    selection_metric: float | None
    """The selection metric, by which epoch and configuration are chosen; None without one."""
    test_scores: dict[str, np.ndarray]
    """Test snippet scores of the audio-visual network ("") and of the visual network ("visual_")."""
    degenerate: str | None
    """Why these scores are degenerate, and no result."""


class Evaluator:
    """Measures networks by one protocol; only `published` opens the test labels.

    Args:
        store: The data.
        protocol: See `macil.training.trainer.Trainer`.
        split: The held-out split of `heldout`.
        device: Where the networks are.

    Raises:
        DataError: `published` without test labels, or without a violent test frame.
    """

    def __init__(
        self, store: FeatureStore, protocol: Protocol, split: Split | None, device: torch.device
    ) -> None:
        self._store = store
        self._test = shared_videos(store, store.videos("test"), None, device)
        self._labels = store.test_labels() if protocol == "published" else None
        if self._labels is not None and not self._labels.frame_labels.any():
            raise DataError(f"{store.path} has no violent test frame; average precision is not defined")
        self._train = store.videos("train")
        heldout = set(split.heldout) if split else set()
        self._heldout = np.array([i for i, name in enumerate(self._train.names) if name in heldout], np.int64)
        self._heldout_videos = (
            shared_videos(store, self._train, self._heldout, device) if len(self._heldout) else None
        )

    def evaluate(self, network: TwoStreamNetwork, visual_network: VisualNetwork | None) -> Evaluation:
        """Score the test videos, and measure what the protocol allows."""
        figures: dict[str, Any] = {}
        test = score_whole(network, self._test)
        scores = {"": test.snippets}
        if visual_network is not None:
            scores["visual_"] = score_whole(visual_network, self._test).snippets
        found = ((name, find_degeneracy(scores[name])) for name in scores)
        degenerate = next((f"{_WHOSE[name]}{reason}" for name, reason in found if reason), None)
        selection_metric = None
        if degenerate is None and self._labels is not None:
            figures |= self._measure(test.snippets)
            figures["video_accuracy"] = float(np.mean((test.videos > 0.5) == self._labels.video_labels))
            if "visual_" in scores:
                figures["visual_ap"] = self._measure(scores["visual_"])["ap"]
            selection_metric = figures["ap_trapezoid"]
        elif degenerate is None and self._heldout_videos is not None:
            predictions = score_whole(network, self._heldout_videos).videos
            degenerate = find_degeneracy(predictions)
            if degenerate is None:
                assert self._train.labels is not None
                heldout = assess_heldout(predictions, self._train.labels[self._heldout])
                figures |= {f"heldout_{name}": getattr(heldout, name) for name in ("ap", "loss", "score")}
                figures["video_accuracy"] = heldout.accuracy
                selection_metric = heldout.score
        return Evaluation(figures, selection_metric, scores, degenerate)

    def _measure(self, scores: np.ndarray) -> dict[str, float]:
        assert self._labels is not None
        return frame_average_precision(
            scores, self._labels.frame_labels, self._store.snippet_frames
        )._asdict()


def find_degeneracy(scores: np.ndarray) -> str | None:
    """Why scores are no result: they are no numbers, or all the same; None when they are one."""
    if not np.isfinite(scores).all():
        return "scores are no finite numbers"
    if len(scores) > 1 and np.ptp(scores) == 0:
        return f"every score is {scores[0]:g}"
    return None
