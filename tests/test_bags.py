"""Training bags against the rule for one sample, written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from macil.config import TrialConfig
from macil.data.bags import TrainingBags, sampled_rows
from macil.data.store import FeatureStore
from macil.errors import DataError
from macil.model import TwoStreamNetwork
from macil.objective import contrastive_terms

CPU = torch.device("cpu")


def literal_sample(store: FeatureStore, video: int, crop: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """One crop of one video as the released loader makes it: subsample what is too long, each by its own length."""
    videos = store.videos("train")
    length, heard = int(videos.lengths[video]), int(videos.audio_lengths[video])
    start = int(videos.visual_offsets[video]) + crop * length
    visual = store.visual[start : start + length].numpy()
    audio = store.audio[int(videos.audio_offsets[video]) :][:heard].numpy()
    if length > limit:
        visual = visual[[int(np.floor(x)) for x in np.linspace(0, length - 1, limit)]]
    if heard > limit:
        audio = audio[[int(np.floor(x)) for x in np.linspace(0, heard - 1, limit)]]
    return visual, audio


@pytest.mark.parametrize("limit", [12, 200])
def test_every_sample_is_that_of_the_released_loader(limit: int, demo_store: FeatureStore) -> None:
    bags = TrainingBags(demo_store, None, limit, CPU)
    videos = demo_store.videos("train")
    assert videos.labels is not None
    assert len(bags) == len(videos.names) * videos.crops
    batch = bags.batch(torch.arange(len(bags)))
    for sample in range(len(bags)):
        video, crop = divmod(sample, videos.crops)
        visual, audio = literal_sample(demo_store, video, crop, limit)
        width = batch.visual.shape[1]
        np.testing.assert_array_equal(batch.visual[sample, : len(visual)], visual)
        assert not batch.visual[sample, len(visual) :].any()
        np.testing.assert_array_equal(batch.audio[sample, : len(audio)], audio[:width])
        assert not batch.audio[sample, len(audio) :].any()
        assert batch.lengths[sample] == (np.abs(visual).max(1) > 0).sum()
        assert batch.labels[sample] == videos.labels[video]


def test_a_batch_is_cut_to_its_longest_valid_length(demo_store: FeatureStore) -> None:
    bags = TrainingBags(demo_store, None, 200, CPU)
    samples = torch.tensor([3, 0, 40])
    batch = bags.batch(samples)
    assert batch.visual.shape[1] == batch.audio.shape[1] == int(batch.lengths.max())


def test_resident_bags_of_fixed_width_give_the_same_losses(demo_store: FeatureStore) -> None:
    config = TrialConfig(hidden_dim=16, feedforward_dim=16, dropout=0.0, dropout_everywhere=True)
    network = TwoStreamNetwork(config, demo_store.visual_dim, demo_store.audio_dim)
    streamed = TrainingBags(demo_store, None, 200, CPU)
    resident = TrainingBags(demo_store, None, 200, CPU, resident=True)
    shortest = torch.argsort(streamed._lengths)[:9]  # so that the fixed width pads the batch
    cut, fixed = streamed.batch(shortest), resident.batch(shortest)
    assert fixed.visual.shape[1] > cut.visual.shape[1]
    outputs = [network(batch.visual, batch.audio, batch.lengths) for batch in (cut, fixed)]
    torch.testing.assert_close(outputs[0].video_logits, outputs[1].video_logits, atol=1e-6, rtol=1e-5)
    terms = [torch.stack(contrastive_terms(output, config)) for output in outputs]
    torch.testing.assert_close(*terms, atol=1e-5, rtol=1e-5)


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
