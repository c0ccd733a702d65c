"""Score timelines: drawn for any video, equal for equal scores, in no need of a font or a display."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from macil.inference.segments import SegmentRule, find_segments
from macil.inference.timelines import _figure, draw_timeline, true_spans

RULE = SegmentRule(threshold=0.6, fps=8, snippet_frames=4)
SCORES = np.array([0.1, 0.7, 0.9, 0.2, 0.8], np.float32)
TRUTH = np.array([0] * 3 + [1] * 6 + [0] * 10 + [1], np.uint8)


def test_true_spans_are_half_open_and_reach_the_end() -> None:
    assert true_spans(TRUTH) == [(3, 9), (19, 20)]
    assert true_spans(np.zeros(4, np.uint8)) == []


def test_the_picture_shows_scores_threshold_segments_and_truth_in_seconds() -> None:
    upper, lower = _figure("clip", SCORES, find_segments(SCORES, RULE), RULE, TRUTH).axes
    steps, threshold = upper.lines
    np.testing.assert_array_equal(steps.get_ydata(), [*SCORES, SCORES[-1]])
    np.testing.assert_allclose(np.asarray(steps.get_xdata(), float), [0, 0.5, 1, 1.5, 2, 2.5])
    assert steps.get_drawstyle() == "steps-post"
    assert threshold.get_ydata() == [0.6, 0.6]
    assert len(upper.patches) == 2
    bars = [[path.get_extents().intervalx.tolist() for path in row.get_paths()] for row in lower.collections]
    assert bars == [[[0.5, 1.5], [2.0, 2.5]], [[0.375, 1.125], [2.375, 2.5]]]
    assert [label.get_text() for label in lower.get_yticklabels()] == ["detected", "annotated"]
    assert lower.get_xlim() == (0, 2.5)


def test_without_truth_nothing_is_shaded() -> None:
    upper, lower = _figure("clip", SCORES, [], RULE, None).axes
    assert list(upper.patches) == []
    assert [label.get_text() for label in lower.get_yticklabels()] == ["detected"]


@pytest.mark.parametrize(("snippets", "unit"), [(1, "s"), (300, "s"), (361, "min:s"), (100_000, "min:s")])
def test_any_length_and_any_name_can_be_drawn(snippets: int, unit: str, tmp_path: Path) -> None:
    scores = np.linspace(0, 1, snippets).astype(np.float32)
    name = "日本 $x^2$ \\frac _ \n & <b>" + "long " * 40
    drawn = draw_timeline(tmp_path / "a.b", name, scores, find_segments(scores, RULE), RULE)
    assert [path.name for path in drawn] == ["a.b.png", "a.b.svg"]
    assert all(path.stat().st_size > 3000 for path in drawn)
    figure = _figure(name, scores, [], RULE, None)
    assert figure.axes[1].get_xlabel() == f"time ({unit})"
    figure.canvas.draw()
    assert 2 <= len(figure.axes[1].get_xticks()) <= 13


def test_equal_scores_are_equal_files(tmp_path: Path) -> None:
    first, second = (
        [path.read_bytes() for path in draw_timeline(tmp_path / name, "clip", SCORES, [], RULE, TRUTH)]
        for name in ("one", "two")
    )
    assert first == second
