"""MACIL-SD: weakly-supervised audio-visual violence detection, one training at a time.

Modality-aware contrastive instance learning with self-distillation (ACM Multimedia 2022,
https://doi.org/10.1145/3503161.3547868). Searches over many trainings are in the package `tune`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from macil.io.lazy import attach

__version__ = "0.1.0"

if TYPE_CHECKING:
    from macil.config import PRESETS, TrialConfig
    from macil.data.store.feature_store import FeatureStore
    from macil.evaluation.average_precision import AveragePrecision, frame_average_precision
    from macil.inference.loading import Trained, load_trained
    from macil.inference.released import load_released, to_released
    from macil.model import TwoStreamNetwork, VisualNetwork
    from macil.training.trainer import Trainer
else:
    # torch takes seconds: whatever needs no network, such as `--help`, does not wait for it.
    __getattr__, __dir__ = attach(
        __name__,
        {
            "macil.config": ("PRESETS", "TrialConfig"),
            "macil.data.store.feature_store": ("FeatureStore",),
            "macil.evaluation.average_precision": ("AveragePrecision", "frame_average_precision"),
            "macil.inference.loading": ("Trained", "load_trained"),
            "macil.inference.released": ("load_released", "to_released"),
            "macil.model": ("TwoStreamNetwork", "VisualNetwork"),
            "macil.training.trainer": ("Trainer",),
        },
    )

__all__ = [
    "PRESETS",
    "AveragePrecision",
    "FeatureStore",
    "Trained",
    "Trainer",
    "TrialConfig",
    "TwoStreamNetwork",
    "VisualNetwork",
    "frame_average_precision",
    "load_released",
    "load_trained",
    "to_released",
]
