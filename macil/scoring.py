"""Scores of whole videos: the mean over crops of the sigmoid of the fused logits (the test rule)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from macil.data.store import FeatureStore, VideoSet
from macil.model.networks import TwoStreamNetwork, VisualNetwork
from macil.model.pooling import k_max_mean

# Rows (crops x snippets) scored at once: large enough to keep a device busy, small enough for its memory.
_ROWS_AT_ONCE = 16384


class VideoScores(NamedTuple):
    """Scores in the order of the videos."""

    snippets: np.ndarray
    """(sum of lengths,) float32: mean over crops of sigmoid(fused logit)"""
    videos: np.ndarray
    """(V,) float64: mean over crops of sigmoid(K-max of the fused logits), the video-level prediction p"""


@torch.inference_mode()
def score_videos(
    network: TwoStreamNetwork | VisualNetwork,
    store: FeatureStore,
    videos: VideoSet,
    chosen: np.ndarray | None = None,
    device: torch.device | str = "cpu",
) -> VideoScores:
    """Score whole videos, all snippets and all crops; audio is cut or zero-padded to the visual length.

    Args:
        network: Put into evaluation mode meanwhile; on `device`.
        store: Where the features are.
        videos: The training or the test videos of `store`.
        chosen: Positions in `videos` to score; None for all.
        device: Where to compute.
    """
    chosen = np.arange(len(videos.names)) if chosen is None else np.asarray(chosen, dtype=np.int64)
    lengths = videos.lengths[chosen]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    snippet_scores = np.zeros(starts[-1], np.float32)
    video_scores = np.zeros(len(chosen), np.float64)
    was_training = network.training
    network.eval()
    for group in _groups(lengths, videos.crops):
        valid = torch.from_numpy(lengths[group])
        visual, audio = _load(store, videos, chosen[group])
        sizes = valid.repeat_interleave(videos.crops).to(device)
        visual, audio = (x.to(device, network.fc_v.weight.dtype) for x in (visual, audio))
        logits = network.snippet_logits(visual, audio, sizes).float()
        shape = (len(group), videos.crops)
        snippets = torch.sigmoid(logits).unflatten(0, shape).mean(1).cpu().numpy()
        whole = torch.sigmoid(k_max_mean(logits, sizes).double()).unflatten(0, shape).mean(1).cpu().numpy()
        for i, video in enumerate(group):
            snippet_scores[starts[video] : starts[video + 1]] = snippets[i, : lengths[video]]
        video_scores[group] = whole
    network.train(was_training)
    return VideoScores(snippet_scores, video_scores)


def _groups(lengths: np.ndarray, crops: int) -> Iterator[np.ndarray]:
    """Videos of similar length together, longest first, each group within the row budget after padding."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        count = max(1, _ROWS_AT_ONCE // (crops * int(lengths[order[start]])))
        yield order[start : start + count]
        start += count


def _load(store: FeatureStore, videos: VideoSet, chosen: np.ndarray) -> tuple[Tensor, Tensor]:
    """Features (n * crops, T, Dv) and (n * crops, T, Da) of some videos, zero-padded to the longest, float32."""
    longest = int(videos.lengths[chosen].max())
    visual = torch.zeros(len(chosen), videos.crops, longest, store.visual_dim)
    audio = torch.zeros(len(chosen), 1, longest, store.audio_dim)
    for i, video in enumerate(chosen):
        length = int(videos.lengths[video])
        start = int(videos.visual_offsets[video])
        visual[i, :, :length] = store.visual[start : start + videos.crops * length].unflatten(
            0, (videos.crops, length)
        )
        heard = min(length, int(videos.audio_lengths[video]))
        start = int(videos.audio_offsets[video])
        audio[i, 0, :heard] = store.audio[start : start + heard]
    return visual.flatten(0, 1), audio.expand(-1, videos.crops, -1, -1).flatten(0, 1)
