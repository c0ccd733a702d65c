"""Scores of a store, of a layout, of named files and of the evaluator are the same scores."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from macil.config import TrialConfig
from macil.data.choosing import choose
from macil.data.store.feature_store import FeatureStore
from macil.data.xd.feature_files import videos_of_files, videos_of_folder
from macil.errors import DataError
from macil.evaluation.evaluator import Evaluator
from macil.inference.scored_videos import ScoredVideos, score_arrays, score_files, score_store
from macil.model import TwoStreamNetwork

CONFIG = TrialConfig(hidden_dim=16, feedforward_dim=16, seed=4)


@pytest.fixture(scope="module")
def network(demo_store: FeatureStore) -> TwoStreamNetwork:
    network = TwoStreamNetwork(CONFIG, demo_store.visual_dim, demo_store.audio_dim).eval()
    with torch.no_grad():
        network.head_v.weight.mul_(20)  # scores far apart
    return network


def test_store_layout_and_evaluator_agree(
    network: TwoStreamNetwork, demo_store: FeatureStore, demo_layout: Path
) -> None:
    evaluated = Evaluator(demo_store, "published", None, torch.device("cpu")).evaluate(network, None)
    stored = score_store(network, demo_store, "test")
    videos = score_files(network, videos_of_folder(demo_layout, "test"))
    np.testing.assert_array_equal(stored.scores, evaluated.test_scores[""])
    assert np.ptp(stored.scores) > 0.1
    np.testing.assert_allclose(videos.scores, stored.scores, atol=2e-6)
    assert videos.names == stored.names == demo_store.videos("test").names
    np.testing.assert_array_equal(videos.lengths, stored.lengths)
    assert videos.snippet_frames == stored.snippet_frames == 16


def test_a_pair_of_arrays_scores_as_the_files_of_the_layout(
    network: TwoStreamNetwork, demo_layout: Path, tmp_path: Path
) -> None:
    videos = videos_of_folder(demo_layout, "test")
    expected = dict(score_files(network, videos))
    uneven = [v for v in videos.videos if len(np.load(v.audio)) != len(np.load(v.visual[0]))]
    assert uneven, "audio of another length is part of what is tested"
    for video in [*uneven[:2], videos.videos[0]]:
        crops = np.stack([np.load(path) for path in video.visual])
        np.save(tmp_path / "clip.npy", crops)
        np.save(tmp_path / "sound.npy", np.load(video.audio))
        ((name, scores),) = score_files(
            network, videos_of_files([tmp_path / "clip.npy", tmp_path / "sound.npy"])
        )
        assert name == "clip"
        np.testing.assert_array_equal(scores, expected[video.name])
        # A single crop, and audio that was cut: by hand.
        np.save(tmp_path / "clip.npy", crops[0])
        np.save(tmp_path / "sound.npy", np.load(video.audio)[:3])
        ((_, scores),) = score_files(
            network, videos_of_files([tmp_path / "clip.npy", tmp_path / "sound.npy"]), fill_audio=True
        )
        audio = torch.zeros(1, crops.shape[1], network.fc_a.in_features)
        audio[0, :3] = torch.from_numpy(np.load(video.audio)[:3])
        with torch.no_grad():
            logits = network(torch.from_numpy(crops[:1]), audio).fused_logits[0]
        np.testing.assert_allclose(scores, torch.sigmoid(logits).numpy(), atol=2e-6)


def test_audio_of_another_length_is_filled_on_purpose_only_and_counted(
    network: TwoStreamNetwork, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    files = []
    for name, rows in (("short", 2), ("less", 4), ("same", 5), ("more", 6), ("long", 9)):
        for what, shape in ((name, (5, 64)), (f"{name}-sound", (rows, 16))):
            np.save(tmp_path / f"{what}.npy", rng.normal(size=shape).astype(np.float32))
            files.append(tmp_path / f"{what}.npy")
    with pytest.raises(DataError) as caught:
        score_files(network, videos_of_files(files))
    assert list(caught.value.problems) == [
        f"{tmp_path / name}-sound.npy: has {rows} rows, the visual features {tmp_path / name}.npy have 5 snippets; at "
        "most one row of difference is expected. Give the audio of this video; with --fill-audio it is cut, or filled "
        "with zeros"
        for name, rows in (("short", 2), ("long", 9))
    ]
    near = score_files(network, videos_of_files(files[2:-2]))
    assert near.audio_gaps.tolist() == [-1, 0, 1]
    filled = score_files(network, videos_of_files(files), fill_audio=True)
    assert filled.count_audio() == {"rows_cut": 5, "videos_cut": 2, "rows_filled": 4, "videos_filled": 2}
    np.testing.assert_array_equal(dict(filled)["less"], dict(near)["less"])
    assert filled.lengths.tolist() == [5] * 5


@pytest.mark.parametrize(
    ("shape", "rows", "fill", "text"),
    [
        ((7, 3, 64), 7, False, "(snippets, crops, features); expected (crops, snippets, features)"),
        ((7, 3, 64), 8, False, "look like (snippets, crops, features)"),
        ((7, 3, 64), 7, True, "look like (snippets, crops, features)"),
        ((7, 3, 64), 6, True, "look like (snippets, crops, features)"),
        ((7, 1, 64), 8, True, "look like (snippets, crops, features)"),
        ((7, 1, 64), 7, False, "look like (snippets, crops, features)"),
        ((4, 3, 64), 4, False, "look like (snippets, crops, features); expected (crops, snippets, features), see"),
        ((4, 3, 64), 4, False, "where they are right, --fill-audio says so"),
        ((3, 7, 64), 5, False, "has 5 rows, the visual features"),
        ((64, 7), 7, False, "is 7 wide, shape (64, 7); the network reads visual features 64 wide: its axes look tr"),
        ((3, 64, 7), 7, False, "is 7 wide, shape (3, 64, 7)"),
        ((1, 3, 7, 64), 7, False, "has shape (1, 3, 7, 64), expected (snippets, features) or (crops, snippets"),
        ((64,), 7, False, "has shape (64,), expected"),
    ],
)  # fmt: skip
def test_axes_that_the_lengths_contradict_are_refused_by_name(
    shape: tuple[int, ...], rows: int, fill: bool, text: str, network: TwoStreamNetwork, tmp_path: Path
) -> None:
    np.save(tmp_path / "clip.npy", np.ones(shape, np.float32))
    np.save(tmp_path / "sound.npy", np.ones((rows, 16), np.float32))
    videos = videos_of_files([tmp_path / "clip.npy", tmp_path / "sound.npy"])
    with pytest.raises(DataError) as caught:
        score_files(network, videos, fill_audio=fill)
    (problem,) = caught.value.problems
    assert problem.startswith((f"{tmp_path / 'clip.npy'}: ", f"{tmp_path / 'sound.npy'}: "))
    assert text in problem


@pytest.mark.parametrize(
    ("shape", "rows", "fill"),
    [
        ((3, 7, 64), 7, False),
        ((3, 7, 64), 6, False),
        ((7, 7, 64), 7, False),  # decided by the documented order
        ((7, 7, 64), 8, False),
        ((7, 8, 64), 8, False),
        ((1, 7, 64), 7, False),
        ((4, 3, 64), 4, True),
        ((1, 7, 64), 1, True),
        ((3, 7, 64), 3, True),
    ],
)  # fmt: skip
def test_crops_come_first_where_the_lengths_allow_it(
    shape: tuple[int, ...], rows: int, fill: bool, network: TwoStreamNetwork, tmp_path: Path
) -> None:
    np.save(tmp_path / "clip.npy", np.ones(shape, np.float32))
    np.save(tmp_path / "sound.npy", np.ones((rows, 16), np.float32))
    videos = videos_of_files([tmp_path / "clip.npy", tmp_path / "sound.npy"])
    assert score_files(network, videos, fill_audio=fill).lengths.tolist() == [shape[1]]


def test_arrays_that_disagree_are_not_scored(network: TwoStreamNetwork) -> None:
    visual, audio = np.ones((3, 7, 64), np.float32), np.ones((7, 16), np.float32)
    assert score_arrays(network, visual, audio).shape == (7,)
    np.testing.assert_array_equal(
        score_arrays(network, visual, audio[:3], fill_audio=True),
        score_arrays(network, visual, np.concatenate([audio[:3], np.zeros((4, 16), np.float32)])),
    )
    for wrong, text in (
        ((visual, audio[:5]), "7 snippets and 5 rows of audio; at most one row of difference is expected"),
        ((visual.swapaxes(0, 1), audio), "look like (snippets, crops, features)"),
        ((visual[0], audio), "expected (crops, snippets, 64) and (snippets, 16)"),
        ((visual, audio[None]), "expected (crops, snippets, 64) and (snippets, 16)"),
        ((visual, audio[:, :15]), "audio of shape (7, 15)"),
    ):
        with pytest.raises(DataError, match=re.escape(text)):
            score_arrays(network, *wrong)


def test_a_store_says_how_much_audio_was_cut_and_filled(
    network: TwoStreamNetwork, demo_store: FeatureStore
) -> None:
    videos = demo_store.videos("test")
    gaps = videos.audio_lengths - videos.lengths
    assert gaps.any(), "audio of another length is part of what is tested"
    scored = score_store(network, demo_store, "test")
    np.testing.assert_array_equal(scored.audio_gaps, gaps)
    cut, filled = np.count_nonzero(gaps == 1), np.count_nonzero(gaps == -1)
    assert list(scored.count_audio().values()) == [cut, cut, filled, filled]


def test_chosen_videos_come_in_the_order_asked_for(
    network: TwoStreamNetwork, demo_store: FeatureStore
) -> None:
    every = dict(score_store(network, demo_store, "train"))
    names = [demo_store.videos("train").names[i] for i in (5, 2, 5)]
    some = score_store(network, demo_store, "train", names)
    assert some.names == (names[0], names[1])
    for name, scores in some:
        np.testing.assert_allclose(scores, every[name], atol=2e-6)


def test_choosing_names_a_similar_video() -> None:
    assert choose([], ["a", "b"], "x") == [0, 1]
    assert choose(["b", "a", "b"], ["a", "b"], "x") == [1, 0]
    with pytest.raises(DataError) as caught:
        choose(["Film_1", "zzz"], ["Film_2", "other"], "the videos here")
    assert caught.value.problems == ("Film_1; did you mean Film_2?", "zzz")


def test_every_fault_of_every_file_is_told_at_once(network: TwoStreamNetwork, tmp_path: Path) -> None:
    def save(name: str, array: np.ndarray) -> Path:
        np.save(tmp_path / name, array.astype(np.float32))
        return tmp_path / name

    good, sound = save("good.npy", np.ones((3, 64))), save("sound.npy", np.ones((3, 16)))
    wide, holed = save("wide.npy", np.ones((3, 65))), save("holed.npy", np.full((3, 64), np.nan))
    deaf = save("deaf.npy", np.full((3, 16), np.inf))
    videos = videos_of_files([good, sound, wide, deaf, holed, sound, tmp_path / "absent.npy"])
    with pytest.raises(DataError) as caught:
        score_files(network, videos)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        str(tmp_path / name) for name in ("absent.npy", "wide.npy", "deaf.npy", "holed.npy")
    ]


def test_other_widths_and_scores_that_are_no_numbers_are_refused(demo_store: FeatureStore) -> None:
    with pytest.raises(DataError, match=r"width 7 and audio of 16; .* has 64 and 16"):
        score_store(TwoStreamNetwork(CONFIG, 7, 16), demo_store, "test")
    broken = TwoStreamNetwork(CONFIG, 64, 16)
    with torch.no_grad():
        broken.head_v.bias.fill_(torch.nan)
    with pytest.raises(DataError, match="no finite numbers"):
        score_store(broken, demo_store, "test")


def test_videos_are_iterated_with_their_own_scores() -> None:
    scored = ScoredVideos(("a", "b"), np.array([1, 2]), np.array([0.1, 0.2, 0.3], np.float32), 16)
    assert [(name, scores.tolist()) for name, scores in scored] == [
        ("a", [np.float32(0.1)]),
        ("b", [np.float32(0.2), np.float32(0.3)]),
    ]
    assert scored.count_audio() == dict.fromkeys(scored.count_audio(), 0)
    for lengths in ([1, 1], [1, 3], [3]):
        with pytest.raises(DataError, match="a score a snippet"):
            ScoredVideos(("a", "b"), np.array(lengths), scored.scores, 16)
