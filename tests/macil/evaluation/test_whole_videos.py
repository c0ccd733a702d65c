"""Scores of whole videos in batches, against one video at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import macil.evaluation.whole_videos
from macil.config import TrialConfig
from macil.data.store.feature_store import FeatureStore
from macil.evaluation.whole_videos import WholeVideos, score_videos, score_whole, shared_videos
from macil.model import TwoStreamNetwork, VisualNetwork

CONFIG = TrialConfig(hidden_dim=16, feedforward_dim=16, seed=4)


def one_at_a_time(network: TwoStreamNetwork, store: FeatureStore) -> tuple[np.ndarray, np.ndarray]:
    videos = store.videos("test")
    snippet_scores, video_scores = [], []
    for i, length in enumerate(videos.lengths.tolist()):
        start, audio_offset = int(videos.visual_offsets[i]), int(videos.audio_offsets[i])
        visual = torch.stack([store.visual[start + c * length :][:length] for c in range(videos.crops)])
        audio = torch.zeros(length, store.audio_dim)
        known = min(length, int(videos.audio_lengths[i]))
        audio[:known] = store.audio[audio_offset : audio_offset + known]
        with torch.no_grad():
            output = network.eval()(visual, audio.expand(videos.crops, -1, -1))  # lengths=None: the test rule
        snippet_scores.append(torch.sigmoid(output.fused_logits).mean(0).numpy())
        k = length // 16 + 1
        highest = output.fused_logits.sort(1, descending=True).values[:, :k].mean(1)
        video_scores.append(torch.sigmoid(highest).mean().item())
    return np.concatenate(snippet_scores), np.array(video_scores)


@pytest.mark.parametrize("rows", [1, 500, 10**6])
def test_batched_scores_are_those_of_single_videos(
    rows: int, demo_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(macil.evaluation.whole_videos, "_ROWS_AT_ONCE", {"cpu": rows})
    network = TwoStreamNetwork(CONFIG, demo_store.visual_dim, demo_store.audio_dim)
    scores = score_videos(network, demo_store, demo_store.videos("test"))
    snippets, videos = one_at_a_time(network, demo_store)
    np.testing.assert_allclose(scores.snippets, snippets, atol=1e-6)
    np.testing.assert_allclose(scores.videos, videos, atol=1e-6)


def test_chosen_videos_are_scored_in_the_order_asked_for(demo_store: FeatureStore) -> None:
    network = TwoStreamNetwork(CONFIG, demo_store.visual_dim, demo_store.audio_dim)
    videos = demo_store.videos("train")
    every = score_videos(network, demo_store, videos)
    some = score_videos(network, demo_store, videos, np.array([5, 2]))
    np.testing.assert_allclose(some.videos, every.videos[[5, 2]], atol=1e-6)
    ends = np.cumsum(videos.lengths)
    expected = np.concatenate([every.snippets[ends[i] - videos.lengths[i] : ends[i]] for i in (5, 2)])
    np.testing.assert_allclose(some.snippets, expected, atol=1e-6)


def test_videos_kept_on_the_device_are_scored_alike(demo_store: FeatureStore) -> None:
    network = TwoStreamNetwork(CONFIG, demo_store.visual_dim, demo_store.audio_dim)
    videos = demo_store.videos("test")
    expected = score_videos(network, demo_store, videos)
    kept = WholeVideos(demo_store, videos, resident=True)
    for _ in range(2):
        scores = score_whole(network, kept)
        # Half precision of the features, no more.
        np.testing.assert_allclose(scores.snippets, expected.snippets, atol=2e-4)
        np.testing.assert_allclose(scores.videos, expected.videos, atol=2e-4)
    assert {group.visual.dtype for group in kept.groups()} == {torch.float16}


def test_a_process_keeps_the_test_and_the_heldout_videos_and_no_more(demo_store: FeatureStore) -> None:
    cpu = torch.device("cpu")
    test, train = demo_store.videos("test"), demo_store.videos("train")
    first = shared_videos(demo_store, test, None, cpu)
    shared_videos(demo_store, train, np.array([1, 2]), cpu)
    assert shared_videos(demo_store, test, None, cpu) is first
    shared_videos(demo_store, train, np.array([3]), cpu)
    assert shared_videos(demo_store, test, None, cpu) is first, "asked for before the other two"
    shared_videos(demo_store, train, np.array([1, 2]), cpu)
    shared_videos(demo_store, train, np.array([3]), cpu)
    assert shared_videos(demo_store, test, None, cpu) is not first
    assert len(macil.evaluation.whole_videos._SHARED) == 2


def test_the_visual_network_scores_too_and_modes_are_restored(demo_store: FeatureStore) -> None:
    network = VisualNetwork(CONFIG, demo_store.visual_dim).train()
    scores = score_videos(network, demo_store, demo_store.videos("test"))
    assert network.training
    assert scores.snippets.shape == (demo_store.videos("test").lengths.sum(),)
    assert ((scores.snippets > 0) & (scores.snippets < 1)).all()
