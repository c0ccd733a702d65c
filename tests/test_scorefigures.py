"""Precision against recall on snippets, and the timelines of videos that are chosen by rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.patches import Rectangle
from sklearn.metrics import average_precision_score, precision_recall_curve

from macil.data.store import TestLabels
from macil.evaluation import frame_average_precision
from tune.drawing.evidence import SeedScores
from tune.drawing.scorefigures import Timeline, choose_timelines, curve, precision_recall, timelines

FRAMES = 4


def seed_scores(scores: list[float], positive: list[int], seed: int = 0) -> SeedScores:
    labels = np.concatenate([[1] * p + [0] * (FRAMES - p) for p in positive])
    found = frame_average_precision(scores, labels, FRAMES)
    return SeedScores(seed, np.array(scores), np.array(positive), FRAMES, *found)


def labels_of(*videos: list[int]) -> TestLabels:
    """Frame labels of videos named a, b, …"""
    names = tuple("abcdefgh"[: len(videos)])
    flat = np.concatenate([np.array(video, np.uint8) for video in videos])
    kinds = np.array([int(any(video)) for video in videos])
    return TestLabels(names, ("",) * len(videos), kinds, flat, "hash")


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, FRAMES)), min_size=1, max_size=12).filter(
        lambda snippets: any(positive for _, positive in snippets)
    )
)
def test_the_curve_is_that_of_the_expanded_frames(snippets: list[tuple[int, int]]) -> None:
    scores = [score / 4 for score, _ in snippets]
    seed = seed_scores(scores, [positive for _, positive in snippets])
    frames = np.repeat(scores, FRAMES)
    labels = np.concatenate([[1] * positive + [0] * (FRAMES - positive) for _, positive in snippets])
    precision, recall = curve(seed)
    expected_precision, expected_recall, _ = precision_recall_curve(labels, frames)
    np.testing.assert_allclose(precision, expected_precision)
    np.testing.assert_allclose(recall, expected_recall)
    assert -np.sum(np.diff(recall) * precision[:-1]) == pytest.approx(average_precision_score(labels, frames))


def test_the_legend_has_both_definitions_and_the_line_of_chance() -> None:
    seeds = [seed_scores([0.9, 0.2, 0.7], [4, 1, 0], 3), seed_scores([0.1, 0.2, 0.7], [4, 1, 0], 5)]
    figure = precision_recall(seeds)
    texts = [text.get_text() for text in figure.legends[0].texts]
    assert texts == [
        *(
            f"seed {seed.seed}: AP {100 * seed.ap_trapezoid:.2f} % trapezoidal, {100 * seed.ap:.2f} % step-wise"
            for seed in seeds
        ),
        "chance: 41.7 % of the frames",
    ]
    assert np.asarray(figure.axes[0].get_lines()[-1].get_ydata()) == pytest.approx(5 / 12)
    assert figure.axes[0].get_legend() is None


def test_videos_are_chosen_by_their_own_ap_and_peak() -> None:
    half = [1] * FRAMES + [0] * FRAMES
    labels = labels_of(half, half, half, [0] * 2 * FRAMES, [0] * 2 * FRAMES, [0] * 2 * FRAMES, [1] * FRAMES)
    scores = np.array([0.5, 0.5, 0.9, 0.1, 0.1, 0.9, 0.3, 0.3, 0.8, 0.1, 0.5, 0.6, 0.99], np.float32)
    videos = choose_timelines(scores, labels, np.array([2, 2, 2, 2, 2, 2, 1]), FRAMES)
    assert [(video.why, video.name) for video in videos] == [
        ("highest AP", "b"),
        ("median AP", "a"),  # ties are one snippet of the other: AP 1/2 for c too, and a comes first
        ("lowest AP", "c"),
        ("normal, highest peak", "e"),
        ("normal, median peak", "f"),
    ]
    assert videos[0].ap == 1.0
    assert videos[3].ap is None
    assert videos[0].scores.tolist() == scores[2:4].tolist()


def test_few_videos_are_shown_once_each() -> None:
    labels = labels_of([1] * FRAMES + [0] * FRAMES, [1] * FRAMES)
    videos = choose_timelines(np.array([0.9, 0.1, 0.5]), labels, np.array([2, 1]), FRAMES)
    assert [(video.why, video.name) for video in videos] == [("highest AP", "a")]
    assert choose_timelines(np.array([0.5]), labels_of([1] * FRAMES), np.array([1]), FRAMES) == []
    assert timelines([], FRAMES) is None


def test_violent_frames_are_shaded_at_their_seconds() -> None:
    labels = np.array([0, 1, 1, 0, 0, 0, 0, 1], np.uint8)
    figure = timelines([Timeline("highest AP", "v", np.array([0.2, 0.8]), labels, 0.5)], FRAMES)
    assert figure is not None
    (axes,) = figure.axes
    spans = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    edges = [(span.get_x(), span.get_x() + span.get_width()) for span in spans]
    np.testing.assert_allclose(edges, [(1 / 24, 3 / 24), (7 / 24, 8 / 24)])
    assert axes.get_title(loc="left") == "highest AP 50.0 %: v"
    np.testing.assert_allclose(axes.get_xlim(), (0, 8 / 24))
