"""Training bags: which rows of the store every sample is made of, and batches of them on a device.

Axes: S trainings in lockstep, B samples of a batch (a video's crop is a sample), T snippets, R rows of a layout.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from macil.data.pairing import fit_audio
from macil.data.store.feature_store import FeatureStore
from macil.errors import DataError
from macil.model.bag_layout import Block, Layout, dense_layout

_LOG = logging.getLogger(__name__)

Residency = Literal["mapped", "resident", "streamed"]
"""`mapped`: read from the memory map, on a CPU. `resident`: on the device. `streamed`: to it, batch by batch."""

# A resident copy may take this share of a device's free memory; the rest is for training.
_RESIDENT_SHARE = 0.7
_UPLOADED_AT_ONCE = 256  # samples
_PREFETCHED = 2  # batches
# What a block of bags costs apart from its bags, and what bags cost by their length, in operations of a step of both
# networks at the published widths: measured on two CPU cores. They decide speed alone.
_BLOCK_COST, _SNIPPET_COST, _PAIR_COST = 2.5e8, 6e5, 5e3
# Attention weights of a block (bags x snippets squared) that still stay in the cache.
_LARGEST_BLOCK = 8 * 200**2


class Batch(NamedTuple):
    """One mini-batch for each of S trainings."""

    visual: Tensor
    """(S, R, Dv), zero where a bag has no features"""
    audio: Tensor
    """(S, R, Da)"""
    labels: Tensor
    """(S, B) float32: 1 violent, 0 normal; in the order of the layout"""
    layout: Layout


def sampled_rows(length: int, max_snippets: int) -> np.ndarray:
    """Rows of a video that a training bag holds: all of them, or `max_snippets` evenly spaced (released code)."""
    if length <= max_snippets:
        return np.arange(length)
    return np.linspace(0, length - 1, max_snippets).astype(np.int64)


def bag_count(store: FeatureStore, names: Sequence[str] | None) -> int:
    """How many training samples some videos are, or all: every crop is one."""
    return store.crops * len(store.videos("train").names if names is None else names)


class TrainingBags:
    """The training samples of some videos of a store, every crop a sample, as tables of row numbers.

    On a CPU nothing is copied: a batch gathers its rows from the memory-mapped store, in blocks of similar length. On
    an accelerator the bags are uploaded once, in half precision, where they fit (19,770 of 200 x 1024 take 8.1 GB),
    and batches are index selects there; where they do not, batches are gathered into pinned memory ahead of their use.
    Batches on a device all have the same shape. Valid lengths come from the float32 input whatever the precision.

    Args:
        store: Where the features are.
        names: The videos to train on; None for all training videos.
        max_snippets: Longer videos are subsampled to this many, each modality by its own length.
        device: Where batches are wanted.
        residency: Where the bags are kept; None decides by the device's kind and free memory.
        dtype: Of resident and streamed features; None is float16 on an accelerator, and the store's elsewhere.

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
        residency: Residency | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        videos = store.videos("train")
        chosen = _choose(store, names)
        self.store = store
        self.device = device
        self.snippets = int(min(max_snippets, videos.lengths[chosen].max()))
        self.crops = store.crops

        samples = bag_count(store, names)
        visual_rows = np.zeros((samples, self.snippets), np.int64)
        audio_rows = np.zeros((len(chosen), self.snippets), np.int64)
        visual_count = np.zeros(samples, np.int64)
        audio_count = np.zeros(len(chosen), np.int64)
        lengths = np.zeros(samples, np.int64)
        for i, video in enumerate(chosen):
            rows = sampled_rows(int(videos.lengths[video]), max_snippets)
            audio_positions = videos.audio_offsets[video] + sampled_rows(
                int(videos.audio_lengths[video]), max_snippets
            )
            audio_count[i] = fit_audio(audio_positions, audio_rows[i])
            for crop in range(store.crops):
                sample = i * store.crops + crop
                own = videos.visual_offsets[video] + crop * videos.lengths[video] + rows
                visual_rows[sample, : len(own)] = own
                visual_count[sample] = len(own)
                # The released code's rule; every bag keeps one snippet so that a mean over it exists.
                lengths[sample] = max(1, int(store.nonzero[own].sum()))
        self._visual_rows, self._visual_count = torch.from_numpy(visual_rows), torch.from_numpy(visual_count)
        self._audio_rows, self._audio_count = torch.from_numpy(audio_rows), torch.from_numpy(audio_count)
        self.lengths = torch.from_numpy(lengths)
        """(samples,) int64: valid snippets"""
        self._present = torch.maximum(
            self.lengths, torch.maximum(self._visual_count, self._audio_count.repeat_interleave(store.crops))
        )
        assert videos.labels is not None
        self._labels = torch.from_numpy(np.repeat(videos.labels[chosen], store.crops).astype(np.float32))
        accelerated = device.type != "cpu"
        self.dtype = dtype or (torch.float16 if accelerated else store.visual.dtype)
        """Type of the features as kept"""
        self.residency: Residency = residency or self._choose_residency()
        self._buffers = RowBuffer(), RowBuffer()
        if self.residency == "resident":
            self._upload()

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def nbytes(self) -> int:
        """Bytes that the bags take on a device."""
        features = len(self) * self.store.visual_dim + len(self._audio_rows) * self.store.audio_dim
        return features * self.snippets * self.dtype.itemsize

    def describe(self) -> str:
        """Say in one line where the bags are, and in which precision."""
        kind = str(self.dtype).removeprefix("torch.")
        size = f"{len(self)} bags of up to {self.snippets} snippets, {kind}"
        where = {
            "mapped": "read from the memory map",
            "resident": f"resident on {self.device.type}, {self.nbytes / 1e9:.2f} GB",
            "streamed": f"streamed to {self.device.type}: {self.nbytes / 1e9:.2f} GB do not fit its free memory",
        }
        return f"{size}, {where[self.residency]}"

    def batches(self, order: Tensor, size: int) -> Iterator[Batch]:
        """The samples in the `order` (S, N), `size` at a time; streamed batches are loaded ahead by a thread."""
        parts = order.split(size, 1)
        if self.residency == "streamed":
            yield from _ahead(self, parts)
        else:
            yield from map(self.batch, parts)

    def batch(self, samples: Tensor) -> Batch:
        """The samples (S, B) int64 as a batch on the device.

        Resident bags take `samples` on the device. The layout is one block of the full width on an accelerator, and one
        of the longest bag for several seeds; else blocks of similar length. All give the same losses. A mapped batch
        lasts until the next one is asked for, which takes its memory.
        """
        if self.residency == "resident":
            visual = self._visual.index_select(0, samples.flatten())
            audio = self._audio.index_select(0, (samples // self.crops).flatten())
            seeds, bags = samples.shape
            layout = dense_layout(self._device_lengths[samples], self._device_present[samples], self.snippets)
            shape = (seeds, bags * self.snippets, -1)
            return Batch(visual.view(shape), audio.view(shape), self._device_labels[samples], layout)
        samples = samples.cpu()
        lengths, present = self.lengths[samples], self._present[samples]
        if self.residency == "streamed":
            layout = dense_layout(lengths, present, self.snippets)
            visual, audio = self._gather(samples, layout, pinned=self.device.type == "cuda")
            return self._to_device(visual, audio, self._labels[samples], layout)
        if len(samples) > 1:
            layout = dense_layout(lengths, present, int(lengths.max()))
        else:
            layout = packed_layout(lengths[0], present[0])
        samples = samples.take_along_dim(layout.numbers, 1)
        visual, audio = self._gather(samples, layout)
        return Batch(visual, audio, self._labels[samples], layout)

    def _gather(self, samples: Tensor, layout: Layout, *, pinned: bool = False) -> tuple[Tensor, Tensor]:
        """Features of the samples (S, B) in the order of the layout, (S, R, Dv) and (S, R, Da)."""
        videos = samples // self.crops
        parts = [
            (self.store.visual, self._visual_rows, self._visual_count, samples),
            (self.store.audio, self._audio_rows, self._audio_count, videos),
        ]
        buffers = self._buffers if self.residency == "mapped" else (None, None)
        visual, audio = (
            _gather_rows(*part, layout, self.dtype, pinned=pinned, buffer=buffer)
            for part, buffer in zip(parts, buffers, strict=True)
        )
        return visual, audio

    def _to_device(self, visual: Tensor, audio: Tensor, labels: Tensor, layout: Layout) -> Batch:
        def move(x: Tensor) -> Tensor:
            return x.to(self.device, non_blocking=True)

        there = layout._replace(
            numbers=move(layout.numbers),
            lengths=move(layout.lengths),
            present=move(layout.present),
            longest=move(layout.longest),
        )
        return Batch(move(visual), move(audio), move(labels), there)

    def _choose_residency(self) -> Residency:
        if self.device.type == "cpu":
            return "mapped"
        free, _ = torch.cuda.mem_get_info(self.device)
        return "resident" if self.nbytes < _RESIDENT_SHARE * free else "streamed"

    def _upload(self) -> None:
        shape = (self.snippets, -1)

        def filled(table: tuple[Tensor, Tensor, Tensor], width: int) -> Tensor:
            features, rows, counts = table
            target = torch.empty(len(rows), self.snippets, width, dtype=self.dtype, device=self.device)
            for part in torch.arange(len(rows)).split(_UPLOADED_AT_ONCE):
                layout = dense_layout(counts[None, part], counts[None, part], self.snippets)
                gathered = _gather_rows(features, rows, counts, part[None], layout, self.dtype)
                target[part[0] : part[-1] + 1] = gathered.view(len(part), *shape).to(self.device)
            return target

        self._visual = filled(
            (self.store.visual, self._visual_rows, self._visual_count), self.store.visual_dim
        )
        self._audio = filled((self.store.audio, self._audio_rows, self._audio_count), self.store.audio_dim)
        self._device_lengths = self.lengths.to(self.device)
        self._device_present = self._present.to(self.device)
        self._device_labels = self._labels.to(self.device)


def packed_layout(lengths: Tensor, present: Tensor) -> Layout:
    """Blocks of similar length for the bags of one training, `lengths` and `present` (B,) on the CPU."""
    longest = lengths.max()
    present = torch.minimum(present, longest)
    # One row of padding, which stands for all of it in attention.
    widths = present + (present < longest)
    widths, order = widths.sort(descending=True, stable=True)
    return Layout(
        cut_blocks(widths.tolist()),
        order[None],
        lengths[order][None],
        present[order][None],
        longest.view(1, 1),
        uniform=bool((present == longest).all()),
    )


def cut_blocks(widths: list[int]) -> tuple[Block, ...]:
    """Cut bags, longest first, where the padding of a longer block would cost more than one block more."""
    blocks: list[Block] = []
    first, waste = 0, 0.0
    for bag, width in enumerate(widths):
        widest = widths[first]
        waste += _cost(widest) - _cost(width)
        if waste > _BLOCK_COST or (bag > first and (bag - first + 1) * widest**2 > _LARGEST_BLOCK):
            blocks.append(Block(bag - first, widest))
            first, waste = bag, 0.0
    return (*blocks, Block(len(widths) - first, widths[first]))


def _cost(width: int) -> float:
    return _SNIPPET_COST * width + _PAIR_COST * width**2


_SHARED: dict[str, TrainingBags] = {}


def shared_bags(
    store: FeatureStore,
    names: Sequence[str] | None,
    max_snippets: int,
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> TrainingBags:
    """The training bags, kept from one trial of a process to the next: on a GPU they are an upload of gigabytes.

    Arguments and errors are those of `TrainingBags`; one set of bags is kept, the last one asked for.
    """
    chosen = hashlib.blake2b("\n".join(sorted(names)).encode()).hexdigest() if names is not None else "all"
    key = f"{store.path} {store.content_hash} {chosen} {max_snippets} {device} {dtype}"
    if key not in _SHARED:
        _SHARED.clear()  # frees the device's memory before the next upload
        bags = _SHARED[key] = TrainingBags(store, names, max_snippets, device, dtype=dtype)
        _LOG.log(logging.WARNING if bags.residency == "streamed" else logging.INFO, "%s", bags.describe())
    return _SHARED[key]


def _choose(store: FeatureStore, names: Sequence[str] | None) -> np.ndarray:
    videos = store.videos("train")
    chosen = np.arange(len(videos.names))
    if names is not None:
        position = {name: i for i, name in enumerate(videos.names)}
        missing = [name for name in names if name not in position]
        if missing:
            raise DataError(f"{store.path} has no training video {missing[0]} ({len(missing)} are missing)")
        chosen = np.sort(np.array([position[name] for name in names], dtype=np.int64))
    if videos.labels is None or not len(chosen):
        raise DataError(f"{store.path} has no training videos; nothing to train on")
    return chosen


class RowBuffer:
    """Memory that one batch after the other is gathered into: fresh pages cost more than the copy itself."""

    def __init__(self) -> None:
        self._memory: Tensor | None = None

    def rows(self, count: int, like: Tensor) -> Tensor:
        """(count, D) of the width and dtype of `like`, with anything in it."""
        if self._memory is None or len(self._memory) < count:
            self._memory = torch.empty(count, like.shape[1], dtype=like.dtype)
        return self._memory[:count]


def _gather_rows(
    features: Tensor,
    rows: Tensor,
    counts: Tensor,
    samples: Tensor,
    layout: Layout,
    dtype: torch.dtype,
    *,
    pinned: bool = False,
    buffer: RowBuffer | None = None,
) -> Tensor:
    """Rows of the samples (S, B), block after block, (S, R, D), zero from each sample's count on."""
    picked, padding = [], []
    for part, block in zip(layout.split_bags(samples), layout.blocks, strict=True):
        picked.append(rows[part, : block.width].flatten(1))
        padding.append((torch.arange(block.width) >= counts[part][..., None]).flatten(1))
    index = torch.cat(picked, 1)
    into = None if buffer is None else buffer.rows(index.numel(), features)
    gathered = torch.index_select(features, 0, index.flatten(), out=into)
    gathered.index_fill_(0, torch.cat(padding, 1).flatten().nonzero().squeeze(1), 0)
    result = torch.empty(gathered.shape, dtype=dtype, pin_memory=True) if pinned else gathered.to(dtype)
    if pinned:
        result.copy_(gathered)
    return result.view(*index.shape, -1)


def _ahead(bags: TrainingBags, parts: Sequence[Tensor]) -> Iterator[Batch]:
    """Batches in order, loaded by a thread while earlier ones are trained on."""
    ready: queue.Queue[_Loaded | BaseException | None] = queue.Queue(_PREFETCHED)
    stopped = threading.Event()

    def put(item: _Loaded | BaseException | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def load() -> None:
        try:
            stream = torch.cuda.Stream(bags.device) if bags.device.type == "cuda" else None
            for part in parts:
                if stopped.is_set():
                    return
                # A stream of its own, or the copies would wait for the steps before them.
                with torch.cuda.stream(stream) if stream is not None else contextlib.nullcontext():
                    put(_Loaded(bags.batch(part), stream.record_event() if stream is not None else None))
            put(None)
        except BaseException as error:  # handed to the training, which must not wait for ever
            put(error)

    thread = threading.Thread(target=load, name="macil-prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            item.take(bags.device)
            yield item.batch
    finally:
        stopped.set()
        thread.join()


class _Loaded(NamedTuple):
    """A batch on its way to the device."""

    batch: Batch
    arrival: torch.cuda.Event | None

    def take(self, device: torch.device) -> None:
        """Make the current stream wait for the batch, and its memory wait for the current stream."""
        if self.arrival is None:
            return
        current = torch.cuda.current_stream(device)
        current.wait_event(self.arrival)
        layout = self.batch.layout
        tensors = (*self.batch[:3], layout.numbers, layout.lengths, layout.present, layout.longest)
        for tensor in tensors:
            tensor.record_stream(current)
