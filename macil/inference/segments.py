"""Violent segments: where the scores of a video stay above a threshold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pydantic import BaseModel

# Frames that rounding may take from a duration in seconds times frames a second.
_SLACK = 1e-6


class Segment(NamedTuple):
    """Snippets `start` to `end` (half open), their highest and their mean score."""

    start: int
    end: int
    peak: float
    mean: float


class SegmentRule(NamedTuple):
    """The rule for what counts as a segment.

    A snippet is violent when its score is above `threshold`; neighbouring violent snippets are one segment. Segments
    at most `merge_seconds` apart are joined, and then those shorter than `min_seconds` are dropped.
    """

    threshold: float = 0.5
    fps: float = 24.0
    snippet_frames: int = 16
    min_seconds: float = 0.0
    merge_seconds: float = 0.0

    def seconds(self, snippets: float) -> float:
        """Snippets as seconds."""
        return snippets * self.snippet_frames / self.fps


def find_segments(scores: np.ndarray, rule: SegmentRule) -> list[Segment]:
    """The violent segments of one video, in order; peak and mean are over all their snippets, gaps included.

    Args:
        scores: (T,) snippet scores; T may be 0.
        rule: See `SegmentRule`.
    """
    edges = np.flatnonzero(np.diff(scores > rule.threshold, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return []
    snippets = rule.fps / rule.snippet_frames  # in a second
    slack = _SLACK / rule.snippet_frames
    apart = starts[1:] - ends[:-1] > rule.merge_seconds * snippets + slack
    starts, ends = starts[np.r_[True, apart]], ends[np.r_[apart, True]]
    long_enough = ends - starts >= rule.min_seconds * snippets - slack
    starts, ends = starts[long_enough], ends[long_enough]
    return [
        Segment(int(a), int(b), float(scores[a:b].max()), float(scores[a:b].mean(dtype=np.float64)))
        for a, b in zip(starts, ends, strict=True)
    ]


class DescribedSegment(BaseModel, frozen=True, extra="forbid", strict=True):
    """A segment as it stands in `segments.json`; frames and seconds are half open."""

    start_frame: int
    end_frame: int
    start_seconds: float
    end_seconds: float
    peak_score: float
    mean_score: float


def describe_segment(segment: Segment, rule: SegmentRule) -> DescribedSegment:
    """A segment in frames and seconds."""
    return DescribedSegment(
        start_frame=segment.start * rule.snippet_frames,
        end_frame=segment.end * rule.snippet_frames,
        start_seconds=round(rule.seconds(segment.start), 6),
        end_seconds=round(rule.seconds(segment.end), 6),
        peak_score=segment.peak,
        mean_score=segment.mean,
    )
