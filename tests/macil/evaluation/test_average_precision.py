"""Frame-level average precision against scikit-learn and the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, precision_recall_curve

from macil.errors import DataError
from macil.evaluation.average_precision import AveragePrecision, _falling, frame_average_precision
from tests.support import literal

TESTED = settings(max_examples=200, deadline=None, derandomize=True)


@st.composite
def scored_videos(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], int]:
    """Scores with heavy ties or none, labels that may be mixed inside a snippet, at least one positive frame."""
    count = draw(st.integers(1, 40))
    frames = draw(st.sampled_from([1, 3, 16]))
    values = draw(
        st.sampled_from(
            [
                st.sampled_from([0.0, 0.5, 1.0]),
                st.integers(-3, 3).map(float),
                st.floats(0, 1, width=32),
                st.floats(-1e6, 1e6, allow_subnormal=False),
            ]
        )
    )
    scores = np.array(draw(st.lists(values, min_size=count, max_size=count)))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    pure = draw(st.booleans())
    rate = draw(st.sampled_from([0.05, 0.5, 1.0]))
    drawn = rng.random(count) if pure else rng.random(count * frames)
    labels = np.repeat(drawn < rate, frames) if pure else drawn < rate
    assume(labels.any())
    return scores, labels.astype(np.uint8), frames


@TESTED
@given(scored_videos())
def test_both_definitions_equal_scikit_learn_on_expanded_frames(
    case: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], int],
) -> None:
    scores, labels, frames = case
    result = frame_average_precision(scores, labels, frames)
    expanded = np.repeat(scores, frames)
    precision, recall, _ = precision_recall_curve(labels, expanded)
    assert result.ap == pytest.approx(average_precision_score(labels, expanded), abs=1e-9)
    assert result.ap_trapezoid == pytest.approx(auc(recall, precision), abs=1e-9)


@TESTED
@given(scored_videos())
def test_both_definitions_equal_the_literal_curve(
    case: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], int],
) -> None:
    scores, labels, frames = case
    expected = literal.average_precision(scores.tolist(), labels.tolist(), frames)
    assert frame_average_precision(scores, labels, frames) == pytest.approx(expected, abs=1e-9)


def test_float32_scores_are_ranked_as_given() -> None:
    rng = np.random.default_rng(3)
    scores = rng.random(500).astype(np.float32)
    labels = (rng.random(8000) < 0.2).astype(np.uint8)
    expanded = np.repeat(scores, 16)
    precision, recall, _ = precision_recall_curve(labels, expanded)
    result = frame_average_precision(scores, labels)
    assert result.ap == pytest.approx(average_precision_score(labels, expanded), abs=1e-9)
    assert result.ap_trapezoid == pytest.approx(auc(recall, precision), abs=1e-9)


def test_neighbouring_floats_are_not_a_tie() -> None:
    scores = np.array([0.5, np.nextafter(0.5, 1.0)])
    assert frame_average_precision(scores, [0, 1], 1).ap == 1.0
    assert frame_average_precision(scores, [1, 0], 1).ap == 0.5


def test_the_order_of_snippets_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, 60) / 4
    labels = (rng.random((60, 16)) < 0.3).astype(np.uint8)
    order = rng.permutation(60)
    one = frame_average_precision(scores, labels.ravel())
    other = frame_average_precision(scores[order], labels[order].ravel())
    assert one == pytest.approx(other, abs=1e-15)


def test_sixteen_frames_share_a_snippet_by_default() -> None:
    labels = np.repeat([1, 0, 0, 1], 16)
    assert frame_average_precision([0.9, 0.8, 0.1, 0.7], labels) == frame_average_precision(
        [0.9, 0.8, 0.1, 0.7], labels, 16
    )


@pytest.mark.parametrize("convert", [list, np.asarray, tuple])
@pytest.mark.parametrize("kind", [int, bool, float])
def test_lists_and_arrays_of_any_number_type_are_taken(convert: Any, kind: type) -> None:
    labels = convert([kind(label) for label in (1, 0, 1, 0)])
    assert frame_average_precision(convert([0.9, 0.1]), labels, 2) == pytest.approx((0.5, 0.625))


def test_a_perfect_ranking_scores_one_and_the_reverse_does_not() -> None:
    labels = np.repeat([1, 1, 0, 0], 16)
    assert frame_average_precision([4, 3, 2, 1], labels) == AveragePrecision(1.0, 1.0)
    assert frame_average_precision([1, 2, 3, 4], labels).ap == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_constant_scores_give_the_rate_of_positives_step_wise_only() -> None:
    labels = np.repeat([1, 0, 0, 0], 16)
    result = frame_average_precision([0.5] * 4, labels)
    assert result == pytest.approx((0.25, 0.625))


@pytest.mark.parametrize("scores", [[0.1, 0.9], [0.5, 0.5]])
def test_without_a_negative_frame_both_are_one(scores: list[float]) -> None:
    assert frame_average_precision(scores, np.ones(32)) == AveragePrecision(1.0, 1.0)


@pytest.mark.parametrize(
    ("scores", "labels", "wanted"),
    [
        ([0.1, 0.2], [1] * 31, r"31 .* 2 .*32"),
        ([0.1, 0.2], [1] * 33, r"33 .* 2 .*32"),
        ([[0.1, 0.2]], [1] * 32, r"snippets"),
        ([0.1, 0.2], [0] * 32, r"no frame .* violent"),
        ([], [], r"no frame .* violent"),
        ([0.1, np.nan], [1] * 32, r"1 of 2 .* not finite"),
        ([np.inf, 0.1], [1] * 32, r"1 of 2 .* not finite"),
        ([0.1, 0.2], [2] * 32, r"0 or 1"),
        ([0.1, 0.2], [0.5] * 32, r"0 or 1"),
        ([0.1, 0.2], [1] * 31 + [-1], r"0 or 1"),
        ([0.1, 0.2], [1.0] * 31 + [np.nan], r"0 or 1"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_the_reason(scores: Any, labels: Any, wanted: str) -> None:
    with pytest.raises(DataError, match=wanted):
        frame_average_precision(scores, labels)


def test_inputs_are_left_as_they_were() -> None:
    scores, labels = np.array([0.3, 0.9, 0.1]), np.repeat(np.array([1, 0, 1], np.uint8), 16)
    before = scores.copy(), labels.copy()
    frame_average_precision(scores, labels)
    np.testing.assert_array_equal(scores, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_scores_of_every_sign_and_size_are_sorted_from_high_to_low() -> None:
    score = np.random.default_rng(3).standard_normal(1000) * 10.0 ** np.arange(-500, 500).clip(-300, 300)
    score[::7], score[1::7], score[2::7] = 0.0, -0.0, 5e-324
    assert (np.diff(score[_falling(score)]) <= 0).all()
    assert sorted(_falling(score)) == list(range(1000))
