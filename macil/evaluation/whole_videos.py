"""Scores of whole videos: the mean over crops of the sigmoid of the fused logits (the test rule)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from macil.data.pairing import fit_audio
from macil.data.store.feature_store import FeatureStore, VideoSet
from macil.errors import DataError
from macil.model.networks import TwoStreamNetwork, VisualNetwork
from macil.model.pooling import k_max_mean

_LOG = logging.getLogger(__name__)
# Rows (crops x snippets) scored at once: large enough to keep a device busy, small enough for its memory.
_ROWS_AT_ONCE = {"cpu": 16384, "cuda": 131072}
# A copy on the device may take this share of its free memory, beside the training bags.
_RESIDENT_SHARE = 0.3
# Sets of videos kept on devices: the test videos and the held-out ones.
_SETS_KEPT = 2


class VideoScores(NamedTuple):
    """Scores in the order of the videos."""

    snippets: np.ndarray
    """(sum of lengths,) float32: mean over crops of sigmoid(fused logit)"""
    videos: np.ndarray
    """(V,) float64: mean over crops of sigmoid(K-max of the fused logits), the video-level prediction p"""


class _Group(NamedTuple):
    """Videos of similar length, padded to the longest, on the device."""

    visual: Tensor  # (n * crops, T, Dv)
    audio: Tensor  # (n, T, Da)
    sizes: Tensor  # (n,) valid snippets
    videos: Tensor  # (n,) indices of the videos
    positions: Tensor  # (n, T) indices among all snippets; one beyond the last for padding


class WholeVideos:
    """Videos to be scored again and again, in few large batches of similar length.

    On an accelerator the features are uploaded once, in half precision, where they fit; on a CPU every pass reads the
    memory-mapped store.

    Args:
        store: Where the features are.
        videos: The training or the test videos of `store`.
        chosen: Positions in `videos`; None for all.
        device: Where to compute.
        resident: Keep the features on the device; None decides by its kind and free memory.
    """

    def __init__(
        self,
        store: FeatureStore,
        videos: VideoSet,
        chosen: np.ndarray | None = None,
        device: torch.device | str = "cpu",
        *,
        resident: bool | None = None,
    ) -> None:
        self._store, self._set = store, videos
        self._chosen = np.arange(len(videos)) if chosen is None else np.asarray(chosen, dtype=np.int64)
        self.device = torch.device(device)
        self.crops = videos.crops
        self._lengths = videos.lengths[self._chosen]
        self._starts = np.concatenate([[0], np.cumsum(self._lengths)])
        self.resident = self._fits() if resident is None else resident
        self._groups = list(self._load_groups(torch.float16)) if self.resident else None

    def __len__(self) -> int:
        return len(self._chosen)

    @property
    def snippets(self) -> int:
        """Snippets of all videos, a crop of each."""
        return int(self._starts[-1])

    def groups(self) -> Iterator[_Group]:
        """All videos, longest first."""
        yield from self._groups if self._groups is not None else self._load_groups(None)

    def _load_groups(self, dtype: torch.dtype | None) -> Iterator[_Group]:
        for group in _similar(self._lengths, self.crops, _ROWS_AT_ONCE.get(self.device.type, 131072)):
            visual, audio = _load(self._store, self._set, self._chosen[group])
            sizes = torch.from_numpy(self._lengths[group])
            position = torch.arange(visual.shape[1])
            positions = torch.from_numpy(self._starts[group])[:, None] + position
            positions = positions.masked_fill(position >= sizes[:, None], self.snippets)
            yield _Group(
                visual.to(self.device, dtype),
                audio.to(self.device, dtype),
                sizes.to(self.device),
                torch.from_numpy(group).to(self.device),
                positions.to(self.device),
            )

    def _fits(self) -> bool:
        if self.device.type != "cuda":
            return False
        width = self.crops * self._store.visual_dim + self._store.audio_dim
        size = self.snippets * width * torch.float16.itemsize
        free, _ = torch.cuda.mem_get_info(self.device)
        fits = size < _RESIDENT_SHARE * free
        if not fits:
            _LOG.warning("%.1f GB of videos to score do not fit the GPU; read every epoch", size / 1e9)
        return fits


_SHARED: dict[str, WholeVideos] = {}


def shared_videos(
    store: FeatureStore, videos: VideoSet, chosen: np.ndarray | None, device: torch.device
) -> WholeVideos:
    """Videos as `WholeVideos`, kept from one trial of a process to the next."""
    names = videos.names if chosen is None else tuple(videos.names[i] for i in chosen)
    digest = hashlib.blake2b("\n".join(names).encode()).hexdigest()
    key = f"{store.path} {store.content_hash} {digest} {device}"
    found = _SHARED.pop(key, None)
    if found is None:
        while len(_SHARED) >= _SETS_KEPT:
            del _SHARED[next(iter(_SHARED))]  # the one that was not asked for the longest
        found = WholeVideos(store, videos, chosen, device)
    _SHARED[key] = found
    return found


@torch.inference_mode()
def score_whole(
    network: TwoStreamNetwork | VisualNetwork,
    videos: WholeVideos,
    advance: Callable[[int], None] | None = None,
) -> VideoScores:
    """Score whole videos, all snippets and all crops; a row of audio too many or too few is cut or zero.

    Nothing is waited for before all are scored.

    Args:
        network: Put into evaluation mode meanwhile; on the videos' device.
        videos: What to score.
        advance: Told the number of videos after each group.
    """
    device, crops = videos.device, videos.crops
    snippet_scores = torch.zeros(videos.snippets + 1, dtype=torch.float32, device=device)
    video_scores = torch.zeros(len(videos), dtype=torch.float64, device=device)
    dtype = network.fc_v.weight.dtype
    was_training = network.training
    network.eval()
    for group in videos.groups():
        sizes = group.sizes.repeat_interleave(crops, output_size=len(group.visual))
        audio = group.audio.to(dtype).repeat_interleave(crops, 0, output_size=len(group.visual))
        logits = network.snippet_logits(group.visual.to(dtype), audio, sizes).float()
        shape = (len(group.sizes), crops)
        snippet_scores[group.positions.flatten()] = (
            torch.sigmoid(logits).unflatten(0, shape).mean(1).flatten()
        )
        whole = torch.sigmoid(k_max_mean(logits, sizes).double())
        video_scores[group.videos] = whole.unflatten(0, shape).mean(1)
        if advance is not None:
            advance(len(group.sizes))
    network.train(was_training)
    return VideoScores(snippet_scores[:-1].cpu().numpy(), video_scores.cpu().numpy())


def score_videos(
    network: TwoStreamNetwork | VisualNetwork,
    store: FeatureStore,
    videos: VideoSet,
    chosen: np.ndarray | None = None,
    device: torch.device | str = "cpu",
    advance: Callable[[int], None] | None = None,
) -> VideoScores:
    """Score videos once: `score_whole` of `WholeVideos`, read as they are needed; arguments are those of both."""
    return score_whole(network, WholeVideos(store, videos, chosen, device, resident=False), advance)


def require_widths(network: TwoStreamNetwork, store: FeatureStore) -> None:
    """Refuse a store of other features than the network was trained on.

    Raises:
        DataError: Names the widths of both.
    """
    wanted = network.fc_v.in_features, network.fc_a.in_features
    if wanted != (store.visual_dim, store.audio_dim):
        raise DataError(
            f"the network reads visual features of width {wanted[0]} and audio of {wanted[1]}; "
            f"{store.path} has {store.visual_dim} and {store.audio_dim}"
        )


def _similar(lengths: np.ndarray, crops: int, rows: int) -> Iterator[np.ndarray]:
    """Videos of similar length together, longest first, each group within `rows` after padding."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        count = max(1, rows // (crops * int(lengths[order[start]])))
        yield order[start : start + count]
        start += count


def _load(store: FeatureStore, videos: VideoSet, chosen: np.ndarray) -> tuple[Tensor, Tensor]:
    """Features (n * crops, T, Dv) and (n, T, Da) of some videos, zero-padded to the longest, float32.

    No store has audio that is more than a row longer or shorter than the video's snippets.
    """
    longest = int(videos.lengths[chosen].max())
    visual = torch.zeros(len(chosen), videos.crops, longest, store.visual_dim)
    audio = torch.zeros(len(chosen), longest, store.audio_dim)
    for i, video in enumerate(chosen):
        length = int(videos.lengths[video])
        start = int(videos.visual_offsets[video])
        visual[i, :, :length] = store.visual[start : start + videos.crops * length].unflatten(
            0, (videos.crops, length)
        )
        start = int(videos.audio_offsets[video])
        fit_audio(store.audio[start : start + int(videos.audio_lengths[video])], audio[i, :length])
    return visual.flatten(0, 1), audio
