"""From snippet scores to average precision, frame by frame without ever expanding the frames."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from macil.data.xd.annotations import SNIPPET_FRAMES
from macil.errors import DataError


class AveragePrecision(NamedTuple):
    """Both definitions of the area under the precision-recall curve."""

    ap: float
    """Step-wise sum, as `sklearn.metrics.average_precision_score`."""
    ap_trapezoid: float
    """Trapezoidal area, as `auc(recall, precision)`: what the field's papers publish as AP."""


def frame_average_precision(
    scores: npt.ArrayLike, frame_labels: npt.ArrayLike, snippet_frames: int = SNIPPET_FRAMES
) -> AveragePrecision:
    """Exact frame-level average precision of snippet scores.

    All frames of a snippet share its score, so sorting snippets (with counts of positive and negative frames) gives
    the curve of the frames; labels may be mixed inside a snippet.

    Args:
        scores: (S,) finite scores, higher means more violent.
        frame_labels: (S * snippet_frames,) of 0 and 1.
        snippet_frames: Frames a snippet, 16 in XD-Violence.

    Returns:
        Both definitions; 1.0 where no frame is negative, as scikit-learn has it.

    Raises:
        DataError: Lengths that do not match, labels other than 0 and 1, scores that are not finite, no positive frame.
    """
    score = np.asarray(scores, dtype=np.float64)
    label = np.asarray(frame_labels)
    if score.ndim != 1 or label.ndim != 1 or len(label) != snippet_frames * len(score):
        raise DataError(
            f"{label.size} frame labels for {score.size} snippets, shapes {label.shape} and {score.shape}; expected "
            f"one axis each, {snippet_frames} labels a snippet, so {snippet_frames * score.size}"
        )
    if not np.isfinite(score).all():
        raise DataError(
            f"{int((~np.isfinite(score)).sum())} of {score.size} snippet scores are not finite numbers; "
            "such scores cannot be ranked"
        )
    violent = label == 1
    if np.count_nonzero(violent) != np.count_nonzero(label):
        raise DataError("frame labels must be 0 or 1")
    # einsum: sum over rows this short takes twice as long.
    positive = np.einsum("sf->s", violent.reshape(-1, snippet_frames), dtype=np.int64)
    if not positive.any():
        raise DataError("no frame is labelled violent; average precision is not defined without a positive")

    order = _falling(score)
    last_of_tie = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    true = np.cumsum(positive[order])[last_of_tie]
    flagged = (last_of_tie + 1) * snippet_frames
    precision = true / flagged
    recall = true / true[-1]
    gain = np.diff(recall, prepend=0.0)
    # The curve starts at recall 0, precision 1.
    before = np.concatenate([[1.0], precision[:-1]])
    # Not a dot product: a BLAS library wakes threads for it, and their number decides the last bits.
    return AveragePrecision(float((gain * precision).sum()), float((gain * (precision + before)).sum() / 2))


def _falling(score: np.ndarray) -> np.ndarray:
    """Indices of finite float64 scores from high to low: a radix sort, in half of `argsort`'s time."""
    bits = score.view(np.int64)
    # Whole numbers in the order of falling scores: negative floats already are, read as unsigned integers.
    key = np.where(bits < 0, bits, bits ^ np.iinfo(np.int64).max)
    order = np.argsort(key.astype(np.uint16), kind="stable")  # NumPy sorts 16-bit integers by their digits
    for shift in (16, 32, 48):
        order = order[np.argsort((key[order] >> shift).astype(np.uint16), kind="stable")]
    return order
