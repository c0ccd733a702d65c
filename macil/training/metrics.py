"""The metrics of one epoch, each under one name everywhere: training, study, tables and report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """The numbers of one epoch; None is what a configuration or a protocol does not have."""

    epoch: int
    """Epochs completed, from 1."""
    selection_score: float | None
    """The selection metric: the running best of `heldout_score`, or of `ap_trapezoid` under the published protocol."""
    chosen_epoch: int
    """First epoch with the best selection metric so far; the last one where there is none."""
    ap: float | None = None
    """Test frames, step-wise definition; null while test labels are closed."""
    ap_trapezoid: float | None = None
    """Test frames, trapezoidal area: the definition of the published figures."""
    visual_ap: float | None = None
    """The `ap` of the visual network."""
    heldout_ap: float | None = None
    """Video-level average precision on the held-out training videos."""
    heldout_loss: float | None = None
    """Cross-entropy of the video-level predictions on the held-out training videos."""
    heldout_score: float | None = None
    """See `macil.evaluation.heldout.heldout_score`."""
    video_accuracy: float | None = None
    """Share of videos whose prediction p > 0.5 is right: held-out videos, or test videos when published."""
    loss_mil: float
    """Mean over the epoch's bags."""
    loss_v2b: float | None
    """Violent against background, both directions, before weighting."""
    loss_v2n: float | None
    """Violent against normal, both directions, before weighting."""
    loss_visual: float | None
    """The visual network's loss."""
    learning_rate: float
    """The learning rate of the audio-visual network in this epoch."""
    parameters: int
    """Parameters in use, with the visual network where it is trained."""
    parameters_published: int
    """The same in the published convention."""
    seconds: float
    """Wall time of the epoch, training and evaluation."""

    def to_dict(self) -> dict[str, Any]:
        """Name to number, in the order above."""
        return asdict(self)
