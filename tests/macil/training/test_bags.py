"""Training bags against the rule for one sample, written out."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import Tensor

from macil.data.store.feature_store import FeatureStore
from macil.errors import DataError
from macil.model.random_numbers import make_keys, permutation
from macil.training.bags import Batch, Residency, TrainingBags, cut_blocks, packed_layout, sampled_rows

CPU = torch.device("cpu")


def literal_sample(store: FeatureStore, video: int, crop: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """One crop of one video as the released loader makes it: subsample what is too long, each by its own length."""
    videos = store.videos("train")
    length, audio_length = int(videos.lengths[video]), int(videos.audio_lengths[video])
    start = int(videos.visual_offsets[video]) + crop * length
    visual = store.visual[start : start + length].numpy()
    audio = store.audio[int(videos.audio_offsets[video]) :][:audio_length].numpy()
    if length > limit:
        visual = visual[[int(np.floor(x)) for x in np.linspace(0, length - 1, limit)]]
    if audio_length > limit:
        audio = audio[[int(np.floor(x)) for x in np.linspace(0, audio_length - 1, limit)]]
    return visual, audio


def unpacked(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Visual, audio, lengths and labels of a batch of one training, in the order of its samples, one block."""
    layout = batch.layout
    back = layout.numbers[0].argsort()
    visual, audio = (
        layout.pad(layout.split(x, 1), layout.width)[0][back] for x in (batch.visual, batch.audio)
    )
    return visual, audio, layout.lengths[0][back], batch.labels[0][back]


@pytest.mark.parametrize("residency", ["mapped", "resident", "streamed"])
@pytest.mark.parametrize("limit", [12, 200])
def test_every_sample_is_that_of_the_released_loader(
    limit: int, residency: Residency, demo_store: FeatureStore
) -> None:
    bags = TrainingBags(demo_store, None, limit, CPU, residency=residency, dtype=torch.float32)
    videos = demo_store.videos("train")
    assert videos.labels is not None
    assert len(bags) == len(videos.names) * videos.crops
    visual_rows, audio_rows, lengths, labels = unpacked(bags.batch(torch.arange(len(bags))[None]))
    width = visual_rows.shape[1]
    for sample in range(len(bags)):
        video, crop = divmod(sample, videos.crops)
        visual, audio = literal_sample(demo_store, video, crop, limit)
        np.testing.assert_array_equal(visual_rows[sample, : len(visual)], visual)
        assert not visual_rows[sample, len(visual) :].any()
        np.testing.assert_array_equal(audio_rows[sample, : len(audio)], audio[:width])
        assert not audio_rows[sample, len(audio) :].any()
        assert lengths[sample] == (np.abs(visual).max(1) > 0).sum()
        assert labels[sample] == videos.labels[video]


def test_a_batch_is_cut_to_its_longest_valid_length(demo_store: FeatureStore) -> None:
    bags = TrainingBags(demo_store, None, 200, CPU)
    samples = torch.tensor([[3, 0, 40], [7, 8, 9]])
    for chosen in (samples[:1], samples):
        layout = bags.batch(chosen).layout
        assert layout.width == int(layout.lengths.max())


@pytest.mark.parametrize("residency", ["mapped", "resident", "streamed"])
def test_batches_are_those_of_each_part_of_the_order(residency: Residency, demo_store: FeatureStore) -> None:
    bags = TrainingBags(demo_store, None, 200, CPU, residency=residency, dtype=torch.float32)
    order = permutation(make_keys([1, 2], "test"), len(bags))
    sizes = []
    for batch, part in zip(bags.batches(order, 50), order.split(50, 1), strict=True):
        visual, lengths = batch.visual.clone(), batch.layout.lengths
        alone = bags.batch(part)
        assert torch.equal(visual, alone.visual)
        assert torch.equal(lengths, alone.layout.lengths)
        sizes.append(batch.labels.shape)
    assert sizes == [(2, 50), (2, 50), (2, 20)]


def test_mapped_batches_share_their_memory(demo_store: FeatureStore) -> None:
    bags = TrainingBags(demo_store, None, 200, CPU)
    large, small = bags.batch(torch.arange(40)[None]), bags.batch(torch.arange(5, 12)[None])
    assert large.visual.data_ptr() == small.visual.data_ptr()
    other = TrainingBags(demo_store, None, 200, CPU).batch(torch.arange(5, 12)[None])
    assert torch.equal(small.visual, other.visual)
    assert torch.equal(small.audio, other.audio)


def test_a_stopped_stream_leaves_no_thread_and_a_failing_one_says_why(
    demo_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bags = TrainingBags(demo_store, None, 200, CPU, residency="streamed", dtype=torch.float32)
    order = torch.arange(len(bags))[None]
    stream = bags.batches(order, 10)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "macil-prefetch"]

    def fail(samples: Tensor) -> Batch:
        raise OSError("the disk is gone")

    monkeypatch.setattr(bags, "batch", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        list(bags.batches(order, 10))


def test_half_precision_bags_keep_the_lengths_of_the_input(demo_store: FeatureStore) -> None:
    exact = TrainingBags(demo_store, None, 200, CPU, residency="resident", dtype=torch.float32)
    half = TrainingBags(demo_store, None, 200, CPU, residency="resident", dtype=torch.float16)
    samples = torch.arange(30)[None]
    one, other = exact.batch(samples), half.batch(samples)
    assert other.visual.dtype == other.audio.dtype == torch.float16
    assert torch.equal(one.visual.half(), other.visual)
    assert torch.equal(one.layout.lengths, other.layout.lengths)
    assert half.nbytes * 2 == exact.nbytes
    assert "float16, resident on cpu" in half.describe()


def test_audio_is_kept_once_a_video(demo_store: FeatureStore) -> None:
    bags = TrainingBags(demo_store, None, 200, CPU, residency="resident", dtype=torch.float32)
    videos = len(demo_store.videos("train").names)
    assert bags._audio.shape == (videos, bags.snippets, demo_store.audio_dim)
    assert bags._visual.shape == (videos * demo_store.crops, bags.snippets, demo_store.visual_dim)


@pytest.mark.parametrize("widths", [[1], [200] * 20, [200, 3, 2, 1], list(range(200, 29, -1)), [40] * 16])
def test_blocks_hold_every_bag_and_the_longest_first(widths: list[int]) -> None:
    blocks = cut_blocks(widths)
    assert sum(block.bags for block in blocks) == len(widths)
    first = 0
    for block in blocks:
        assert block.width == widths[first]
        first += block.bags


def test_bags_of_one_length_need_no_masks() -> None:
    lengths = torch.tensor([9, 9, 9])
    assert packed_layout(lengths, lengths).uniform
    assert not packed_layout(torch.tensor([9, 8, 9]), torch.tensor([9, 8, 9])).uniform
    # Rows beyond a valid length that hold features are keys too, up to the batch's longest.
    assert packed_layout(torch.tensor([9, 8, 9]), torch.tensor([9, 12, 9])).uniform


def test_chosen_videos_only(demo_store: FeatureStore) -> None:
    names = demo_store.videos("train").names
    bags = TrainingBags(demo_store, [names[4], names[1]], 200, CPU)
    assert len(bags) == 2 * demo_store.crops
    with pytest.raises(DataError, match="no training video nobody"):
        TrainingBags(demo_store, ["nobody"], 200, CPU)
    with pytest.raises(DataError, match="nothing to train on"):
        TrainingBags(demo_store, [], 200, CPU)


@pytest.mark.parametrize("length", [1, 199, 200])
def test_short_videos_keep_every_row(length: int) -> None:
    np.testing.assert_array_equal(sampled_rows(length, 200), np.arange(length))


@pytest.mark.parametrize("length", [201, 400, 1777])
def test_long_videos_keep_first_and_last_row(length: int) -> None:
    rows = sampled_rows(length, 200)
    assert (rows[0], rows[-1], len(rows)) == (0, length - 1, 200)
    assert (np.diff(rows) >= 1).all()
