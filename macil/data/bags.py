"""Training bags: which rows of the store every sample is made of, and batches of them on a device.

Axes: S samples (a video's crop is a sample), B samples of a batch, T snippets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from macil.data.store import FeatureStore
from macil.errors import DataError

# A resident copy may take this share of a device's free memory; the rest is for training.
_RESIDENT_SHARE = 0.6


class Batch(NamedTuple):
    """One mini-batch."""

    visual: Tensor
    """(B, T, Dv), zero beyond each bag's rows"""
    audio: Tensor
    """(B, T, Da)"""
    lengths: Tensor
    """(B,) int64: valid snippets"""
    labels: Tensor
    """(B,) float32: 1 violent, 0 normal"""


def sampled_rows(length: int, max_snippets: int) -> np.ndarray:
    """Rows of a video that a training bag holds: all of them, or `max_snippets` evenly spaced (released code)."""
    if length <= max_snippets:
        return np.arange(length)
    return np.linspace(0, length - 1, max_snippets).astype(np.int64)


class TrainingBags:
    """The training samples of some videos of a store, every crop a sample, as tables of row numbers.

    Nothing is copied on a CPU: a batch gathers its rows from the memory-mapped store and is cut to its longest valid
    length. On an accelerator the bags are uploaded once where they fit, batches are index selects there and all have
    the same shape.

    Args:
        store: Where the features are.
        names: The videos to train on; None for all training videos.
        max_snippets: Longer videos are subsampled to this many, each modality by its own length.
        device: Where batches are wanted.
        resident: Keep the bags on the device; None decides by the device's kind and free memory.

    Raises:
        DataError: No videos, or names that the store does not have.
    """

    def __init__(
        self,
        store: FeatureStore,
        names: Sequence[str] | None,
        max_snippets: int,
        device: torch.device,
        *,
        resident: bool | None = None,
    ) -> None:
        videos = store.videos("train")
        if names is None:
            chosen = np.arange(len(videos.names))
        else:
            position = {name: i for i, name in enumerate(videos.names)}
            missing = [name for name in names if name not in position]
            if missing:
                raise DataError(
                    f"{store.path} has no training video {missing[0]} ({len(missing)} are missing)"
                )
            chosen = np.sort(np.array([position[name] for name in names], dtype=np.int64))
        if videos.labels is None or not len(chosen):
            raise DataError(f"{store.path} has no training videos; nothing to train on")
        self.store = store
        self.device = device
        self.snippets = int(min(max_snippets, videos.lengths[chosen].max()))

        samples = len(chosen) * store.crops
        visual_rows = np.zeros((samples, self.snippets), np.int64)
        audio_rows = np.zeros((samples, self.snippets), np.int64)
        visual_count = np.zeros(samples, np.int64)
        audio_count = np.zeros(samples, np.int64)
        lengths = np.zeros(samples, np.int64)
        for i, video in enumerate(chosen):
            rows = sampled_rows(int(videos.lengths[video]), max_snippets)
            heard = sampled_rows(int(videos.audio_lengths[video]), max_snippets)[: self.snippets]
            for crop in range(store.crops):
                sample = i * store.crops + crop
                own = videos.visual_offsets[video] + crop * videos.lengths[video] + rows
                visual_rows[sample, : len(own)] = own
                visual_count[sample] = len(own)
                audio_rows[sample, : len(heard)] = videos.audio_offsets[video] + heard
                audio_count[sample] = len(heard)
                # The released code's rule; every bag keeps one snippet so that a mean over it exists.
                lengths[sample] = max(1, int(store.nonzero[own].sum()))
        self._visual_rows = torch.from_numpy(visual_rows)
        self._audio_rows = torch.from_numpy(audio_rows)
        self._visual_count = torch.from_numpy(visual_count)
        self._audio_count = torch.from_numpy(audio_count)
        self._lengths = torch.from_numpy(lengths)
        self._labels = torch.from_numpy(np.repeat(videos.labels[chosen], store.crops).astype(np.float32))
        self.resident = self._fits_device() if resident is None else resident
        if self.resident:
            everything = torch.arange(samples)
            visual = torch.empty(
                samples, self.snippets, store.visual_dim, dtype=store.visual.dtype, device=device
            )
            audio = torch.empty(
                samples, self.snippets, store.audio_dim, dtype=store.audio.dtype, device=device
            )
            for part in everything.split(256):
                visual[part], audio[part] = (x.to(device) for x in self._gather(part, self.snippets))
            self._visual, self._audio = visual, audio
            self._device_lengths, self._device_labels = self._lengths.to(device), self._labels.to(device)

    def __len__(self) -> int:
        return len(self._lengths)

    def batch(self, samples: Tensor) -> Batch:
        """The samples (B,) int64 as a batch on the device, features in float32.

        Resident bags take `samples` on the device and give the full width T; else T is the batch's longest valid
        length. Both give the same losses (`macil.model.networks`).
        """
        if self.resident:
            return Batch(
                self._visual[samples].float(),
                self._audio[samples].float(),
                self._device_lengths[samples],
                self._device_labels[samples],
            )
        samples = samples.cpu()
        lengths = self._lengths[samples]
        visual, audio = self._gather(samples, int(lengths.max()))
        return Batch(
            visual.to(self.device).float(),
            audio.to(self.device).float(),
            lengths.to(self.device),
            self._labels[samples].to(self.device),
        )

    def _gather(self, samples: Tensor, snippets: int) -> tuple[Tensor, Tensor]:
        visual = _gather_rows(self.store.visual, self._visual_rows, self._visual_count, samples, snippets)
        audio = _gather_rows(self.store.audio, self._audio_rows, self._audio_count, samples, snippets)
        return visual, audio

    def _fits_device(self) -> bool:
        if self.device.type != "cuda":
            return False
        width = (self.store.visual_dim + self.store.audio_dim) * self.store.visual.element_size()
        free, _ = torch.cuda.mem_get_info(self.device)
        return len(self) * self.snippets * width < _RESIDENT_SHARE * free


_SHARED: dict[str, TrainingBags] = {}


def shared_bags(
    store: FeatureStore, names: Sequence[str] | None, max_snippets: int, device: torch.device
) -> TrainingBags:
    """The training bags, kept from one trial of a process to the next: on a GPU they are an upload of gigabytes.

    Arguments and errors as of `TrainingBags`; one set of bags is kept, the last one asked for.
    """
    chosen = hashlib.blake2b("\n".join(sorted(names)).encode()).hexdigest() if names is not None else "all"
    key = f"{store.path} {store.content_hash} {chosen} {max_snippets} {device}"
    if key not in _SHARED:
        _SHARED.clear()  # frees the device's memory before the next upload
        _SHARED[key] = TrainingBags(store, names, max_snippets, device)
    return _SHARED[key]


def _gather_rows(features: Tensor, rows: Tensor, counts: Tensor, samples: Tensor, snippets: int) -> Tensor:
    """Rows of the samples, (B, snippets, D), zero from each sample's count on."""
    picked = rows[samples, :snippets]
    gathered = features.index_select(0, picked.flatten())
    padding = torch.arange(snippets) >= counts[samples, None]
    gathered.index_fill_(0, padding.flatten().nonzero().squeeze(1), 0)
    return gathered.view(*picked.shape, -1)
