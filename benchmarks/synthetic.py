"""Made-up data in memory: a store without files, at sizes up to those of XD-Violence.

Training and scoring run on it with their own code (`TrainingBags`, `Trainer`); nothing but the files is replaced.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from macil.data.reading import AS_USUAL
from macil.data.store.feature_store import FeatureStore, TestLabels, VideoSet
from macil.model import AUDIO_DIM, VISUAL_DIM

# XD-Violence as published: videos, crops of each, and snippets of all test videos.
TRAIN_VIDEOS, TEST_VIDEOS, CROPS, TEST_SNIPPETS = 3954, 800, 5, 145_649
# Lengths are log-normal. With this median and spread, bags of at most 200 snippets hold 110 on average, and 23 % of
# them are full.
_MEDIAN, _SPREAD, _SHORTEST, _LONGEST = 98, 1.0, 5, 2000
# Distance of the first values of two rows that overlap.
_OVERLAPPING_STRIDE = 8


class _Amounts(NamedTuple):
    """Which rows belong to a split."""

    videos: VideoSet
    visual_rows: int
    audio_rows: int


class SyntheticStore(FeatureStore):
    """Random features of videos of given lengths; violent videos are louder, so there is something to learn.

    Args:
        train: Lengths of the training videos.
        test: Lengths of the test videos; may be none.
        crops: Crops of a video.
        overlapping: Let rows share values, so that the features of all of XD-Violence take 150 MB instead of 17 GB: for
            what copies them to a device before it is timed, where they take their true size.
        seed: Of all that is random.
    """

    def __init__(
        self,
        train: np.ndarray,
        test: np.ndarray,
        *,
        crops: int = 1,
        overlapping: bool = False,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.path = Path("synthetic")
        self.visual_dim, self.audio_dim, self.crops, self.snippet_frames = VISUAL_DIM, AUDIO_DIM, crops, 16
        self.dtype, self.labels_hash = "float32", None
        self.reading, self.part = AS_USUAL, None
        self.content_hash = f"synthetic/{seed}/{len(train)}/{train.sum()}/{len(test)}/{test.sum()}/{crops}"
        labels = [np.arange(len(lengths)) % 2 for lengths in (train, test)]
        trained = _list_videos("train", train, crops, 0, 0, labels[0])
        tested = _list_videos("test", test, crops, trained.visual_rows, trained.audio_rows, None)
        self._index = {"train": trained.videos, "test": tested.videos}
        self._test_labels = _label_frames(tested.videos, labels[1], self.snippet_frames, rng)
        loudness = rng.uniform(0.5, 1.0, len(train) + len(test)) + 0.5 * np.concatenate(labels)
        lengths = np.concatenate([train, test])
        stride = _OVERLAPPING_STRIDE if overlapping else None
        self.visual = _features(loudness, lengths * crops, VISUAL_DIM, stride, seed)
        self.audio = _features(loudness, lengths, AUDIO_DIM, stride, seed + 1)
        self.nonzero = np.ones(len(self.visual), bool)

    def test_labels(self) -> TestLabels:
        """The labels of the test videos."""
        return self._test_labels


def training_lengths(videos: int, seed: int = 0) -> np.ndarray:
    """Lengths of training videos as in XD-Violence, roughly; the first one fills a bag."""
    drawn = np.random.default_rng(seed).lognormal(np.log(_MEDIAN), _SPREAD, videos)
    lengths = drawn.round().clip(_SHORTEST, _LONGEST).astype(np.int64)
    lengths[0] = max(lengths[0], 200)
    return lengths


def evaluated_lengths(videos: int, snippets: int, seed: int = 0) -> np.ndarray:
    """Lengths of test videos that have so many snippets together."""
    drawn = np.random.default_rng(seed).lognormal(0, _SPREAD, videos)
    lengths = np.maximum(1, (drawn * snippets / drawn.sum()).astype(np.int64))
    lengths[lengths.argmax()] += snippets - lengths.sum()
    return lengths


def uniform_lengths(videos: int, shortest: int, longest: int, seed: int = 0) -> np.ndarray:
    """Lengths uniform in `shortest` to `longest`; the first one is the longest."""
    lengths = np.random.default_rng(seed).integers(shortest, longest + 1, videos)
    lengths[0] = longest
    return lengths


def _list_videos(
    split: str, lengths: np.ndarray, crops: int, visual: int, audio: int, labels: np.ndarray | None
) -> _Amounts:
    """The videos of a split whose rows begin at `visual` and `audio`."""
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    names = tuple(f"{split}{i:06d}" for i in range(len(lengths)))
    nothing = ("",) * len(names)
    videos = VideoSet(
        names=names,
        sources=names,
        categories=nothing,
        lengths=lengths.astype(np.int64),
        visual_offsets=visual + crops * starts[:-1],
        audio_offsets=audio + starts[:-1],
        audio_lengths=lengths.astype(np.int64),
        labels=labels,
        crops=crops,
    )
    return _Amounts(videos, visual + crops * int(starts[-1]), audio + int(starts[-1]))


def _label_frames(
    videos: VideoSet, labels: np.ndarray, snippet_frames: int, rng: np.random.Generator
) -> TestLabels:
    """Frame labels: the violence of a violent video begins anywhere in its first half and lasts to its end."""
    frames = []
    for length, label in zip(videos.lengths, labels, strict=True):
        count = int(length) * snippet_frames
        begin = int(rng.integers(0, count // 2)) if label else count
        frames.append((np.arange(count) >= begin).astype(np.uint8))
    joined = np.concatenate(frames) if frames else np.zeros(0, np.uint8)
    return TestLabels(videos.names, videos.categories, labels, joined, "synthetic")


def _features(loudness: np.ndarray, rows: np.ndarray, width: int, stride: int | None, seed: int) -> Tensor:
    """Sizes of normal numbers, scaled by the `loudness` of each video, which has so many of the rows."""
    stride = width if stride is None else stride
    total = int(rows.sum())
    values = torch.randn(
        total * stride + width - stride, generator=torch.Generator().manual_seed(seed)
    ).abs_()
    scale = torch.from_numpy(np.repeat(loudness, rows).astype(np.float32))
    values[: total * stride].view(total, stride).mul_(scale[:, None])
    return values.as_strided((total, width), (stride, 1))
