"""What steers a search when test labels stay closed."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from macil.evaluation import frame_average_precision


class HeldOut(NamedTuple):
    """Video-level figures on held-out training videos."""

    ap: float
    loss: float
    accuracy: float
    score: float


def assess_heldout(predictions: np.ndarray, labels: np.ndarray) -> HeldOut:
    """Figures of the predictions p (V,) in [0, 1] for videos labelled 0 or 1 (V,); both classes must occur."""
    # Saturated predictions would cost infinitely much; float64 sigmoids keep 1e-12 apart.
    p = np.clip(np.asarray(predictions, np.float64), 1e-12, 1 - 1e-12)
    loss = float(-np.mean(np.where(labels == 1, np.log(p), np.log1p(-p))))
    ap = frame_average_precision(predictions, labels, snippet_frames=1).ap
    accuracy = float(np.mean((predictions > 0.5) == (labels == 1)))
    return HeldOut(ap, loss, accuracy, heldout_score(ap, loss))


def heldout_score(ap: float, loss: float) -> float:
    """The steering score: the mean of the video-level AP and exp(-loss), both in [0, 1].

    Video-level AP alone reaches 1.0 early on easy data and then ties everything; exp(-loss), the geometric mean
    probability of the right label, goes on telling candidates apart.
    """
    return (ap + math.exp(-loss)) / 2
