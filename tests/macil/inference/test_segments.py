"""Violent segments against a reference that goes frame by frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macil.inference.segments import Segment, SegmentRule, describe_segment, find_segments

TESTED = settings(max_examples=300, deadline=None, derandomize=True)


def frame_by_frame(scores: list[float], rule: SegmentRule) -> list[tuple[int, int]]:
    """Half-open frame intervals: mark, fill short gaps from left to right, drop what is short."""
    marked = [score > rule.threshold for score in scores for _ in range(rule.snippet_frames)]
    found: list[list[int]] = []
    for frame, violent in enumerate(marked):
        if violent and found and (frame - found[-1][1]) / rule.fps <= rule.merge_seconds + 1e-9:
            found[-1][1] = frame + 1
        elif violent:
            found.append([frame, frame + 1])
    return [(a, b) for a, b in found if (b - a) / rule.fps >= rule.min_seconds - 1e-9]


rules = st.builds(
    SegmentRule,
    threshold=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    fps=st.sampled_from([1.0, 24.0, 25.0, 29.97]),
    snippet_frames=st.sampled_from([1, 3, 16]),
    # Multiples of a snippet's duration as often as anything else: the limits themselves belong to the rule.
    min_seconds=st.one_of(
        st.just(0.0), st.floats(0, 4), st.sampled_from([2 / 3, 16 / 25, 32 / 24, 48 / 29.97])
    ),
    merge_seconds=st.one_of(
        st.just(0.0), st.floats(0, 4), st.sampled_from([2 / 3, 16 / 25, 32 / 24, 48 / 29.97])
    ),
)
snippet_scores = st.lists(st.sampled_from([0.0, 0.2, 0.25, 0.5, 0.6, 1.0]), max_size=30)


@TESTED
@given(snippet_scores, rules)
def test_segments_are_those_found_frame_by_frame(scores: list[float], rule: SegmentRule) -> None:
    found = find_segments(np.array(scores, np.float32), rule)
    frames = [(s.start * rule.snippet_frames, s.end * rule.snippet_frames) for s in found]
    assert frames == frame_by_frame(scores, rule)
    for segment in found:
        inside = np.array(scores, np.float32)[segment.start : segment.end].astype(float)
        assert segment.peak == max(inside)
        assert segment.mean == pytest.approx(sum(inside) / len(inside))


def test_a_joined_gap_counts_in_the_mean_and_short_pieces_are_joined_before_they_are_dropped() -> None:
    scores = np.array([0.75, 0.25, 0.75, 0.0, 0.0, 0.0, 1.0], np.float32)
    rule = SegmentRule(fps=16, snippet_frames=16, merge_seconds=1, min_seconds=2)
    (found,) = find_segments(scores, rule)
    assert found[:3] == (0, 3, 0.75)
    assert found.mean == pytest.approx(1.75 / 3)


def test_a_segment_is_described_in_frames_and_seconds() -> None:
    described = describe_segment(Segment(1, 3, 0.75, 0.5), SegmentRule(fps=24, snippet_frames=16))
    assert described.model_dump() == {
        "start_frame": 16,
        "end_frame": 48,
        "start_seconds": 0.666667,
        "end_seconds": 2.0,
        "peak_score": 0.75,
        "mean_score": 0.5,
    }
