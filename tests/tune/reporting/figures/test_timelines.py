"""Timelines of videos that are chosen by rule."""

from __future__ import annotations

import numpy as np
from matplotlib.patches import Rectangle

from macil.data.store.feature_store import TestLabels
from tune.reporting.figures.timelines import Timeline, choose_timelines, draw

FRAMES = 4


def labels_of(*videos: list[int]) -> TestLabels:
    """Frame labels of videos named a, b, …"""
    names = tuple("abcdefgh"[: len(videos)])
    flat = np.concatenate([np.array(video, np.uint8) for video in videos])
    kinds = np.array([int(any(video)) for video in videos])
    return TestLabels(names, ("",) * len(videos), kinds, flat, "hash")


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


def test_violent_frames_are_shaded_at_their_seconds() -> None:
    labels = np.array([0, 1, 1, 0, 0, 0, 0, 1], np.uint8)
    figure = draw([Timeline("highest AP", "v", np.array([0.2, 0.8]), labels, 0.5)], FRAMES)
    (axes,) = figure.axes
    spans = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    edges = [(span.get_x(), span.get_x() + span.get_width()) for span in spans]
    np.testing.assert_allclose(edges, [(1 / 24, 3 / 24), (7 / 24, 8 / 24)])
    assert axes.get_title(loc="left") == "highest AP 50.0 %: v"
    np.testing.assert_allclose(axes.get_xlim(), (0, 8 / 24))
