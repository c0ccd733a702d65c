"""The networks: two streams, the visual network, the attention layer and the pooling they share."""

from macil.model.counts import ParameterCounts, parameter_counts
from macil.model.networks import (
    AUDIO_DIM,
    VISUAL_DIM,
    NetworkOutput,
    TwoStreamNetwork,
    VisualNetwork,
    VisualOutput,
)
from macil.model.pooling import bottom_k, bottom_k_of_batch, k_max_mean, selected_count, top_k

__all__ = [
    "AUDIO_DIM",
    "VISUAL_DIM",
    "NetworkOutput",
    "ParameterCounts",
    "TwoStreamNetwork",
    "VisualNetwork",
    "VisualOutput",
    "bottom_k",
    "bottom_k_of_batch",
    "k_max_mean",
    "parameter_counts",
    "selected_count",
    "top_k",
]
