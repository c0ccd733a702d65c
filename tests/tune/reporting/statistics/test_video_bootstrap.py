"""The interval over test videos: against frames that are really put together anew, and where it cannot be had."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, precision_recall_curve

from macil.errors import DataError
from macil.evaluation.average_precision import frame_average_precision
from tune.reporting.statistics.video_bootstrap import _Curves, ap_interval

FRAMES = 4


def videos(seed: int, count: int, *, violent: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with ties, mixed frame labels and lengths of `count` videos."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 7, count)
    is_violent = np.repeat(rng.random(count) < violent, lengths)
    labels = ((rng.random((lengths.sum(), FRAMES)) < 0.6) & is_violent[:, None]).astype(np.uint8)
    scores = np.round(rng.normal(size=lengths.sum()) + labels.mean(1), 1).astype(np.float32)
    return scores, labels.reshape(-1), lengths


def literal(
    scores: np.ndarray, labels: np.ndarray, lengths: np.ndarray, drawn: np.ndarray
) -> tuple[float, float]:
    """Both definitions on the frames of the drawn videos, one after the other, by scikit-learn."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    frames = [np.repeat(scores[starts[v] : starts[v + 1]], FRAMES) for v in drawn]
    truth = [labels[FRAMES * starts[v] : FRAMES * starts[v + 1]] for v in drawn]
    score, label = np.concatenate(frames), np.concatenate(truth)
    precision, recall, _ = precision_recall_curve(label, score)
    return float(average_precision_score(label, score)), float(auc(recall, precision))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.data())
def test_a_resample_has_the_ap_of_its_frames_put_together(seed: int, count: int, data: st.DataObject) -> None:
    scores, labels, lengths = videos(seed, count)
    drawn = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=count, max_size=count)))
    step, trapezoid = _Curves(scores.astype(np.float64), labels, lengths, FRAMES).measure(drawn[None])[:, 0]
    starts = np.concatenate([[0], np.cumsum(lengths)]) * FRAMES
    if not any(labels[starts[v] : starts[v + 1]].any() for v in drawn):
        assert np.isnan([step, trapezoid]).all()
    else:
        assert (step, trapezoid) == pytest.approx(literal(scores, labels, lengths, drawn), rel=1e-9)


def test_the_interval_is_the_percentiles_of_resampled_videos() -> None:
    scores, labels, lengths = videos(0, 12, violent=0.9)
    found = ap_interval(scores, labels, lengths, FRAMES, resamples=3000)
    assert (found.ap.value, found.ap_trapezoid.value) == frame_average_precision(scores, labels, FRAMES)
    rng = np.random.default_rng(1)
    drawn = np.array([literal(scores, labels, lengths, rng.integers(0, 12, 12)) for _ in range(600)])
    # Two independent draws of the same distribution: as near as 600 of them are.
    for column, interval in ((0, found.ap), (1, found.ap_trapezoid)):
        assert (interval.low, interval.high) == pytest.approx(
            np.quantile(drawn[:, column], (0.025, 0.975)), abs=0.05
        )
        assert interval.low is not None
        assert interval.high is not None
        assert 0 <= interval.low < interval.value < interval.high <= 1


def test_equal_seeds_give_equal_intervals_and_more_videos_a_narrower_one() -> None:
    few, many = videos(2, 20), videos(2, 320)
    first = ap_interval(*few, FRAMES, resamples=300)
    assert ap_interval(*few, FRAMES, resamples=300) == first
    assert ap_interval(*few, FRAMES, resamples=300, seed=1) != first
    second = ap_interval(*many, FRAMES, resamples=300)
    widths = [
        interval.ap.high - interval.ap.low
        for interval in (first, second)
        if interval.ap.high is not None and interval.ap.low is not None
    ]
    # The square root of 16, roughly.
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.4)


def test_resamples_without_a_violent_frame_are_counted_and_left_out() -> None:
    scores, labels, lengths = videos(3, 5, violent=0.0)
    labels[: FRAMES // 2] = 1  # one violent video, which (4/5)^5 of the draws miss
    found = ap_interval(scores, labels, lengths, FRAMES, resamples=2000)
    assert (found.videos, found.resamples) == (5, 2000)
    assert found.undefined / 2000 == pytest.approx(0.8**5, abs=0.03)
    assert found.ap.low is not None
    assert found.ap.high is not None
    assert 0 < found.ap.low <= found.ap.high <= 1


def test_one_video_has_no_interval_and_scores_that_rank_perfectly_have_a_narrow_one() -> None:
    scores, labels = np.array([0.9, 0.1]), np.array([1] * FRAMES + [0] * FRAMES)
    found = ap_interval(scores, labels, [2], FRAMES)
    assert (found.ap.value, found.ap.low, found.ap.high, found.resamples) == (1.0, None, None, 0)
    perfect = ap_interval(np.tile(scores, 6), np.tile(labels, 6), [2] * 6, FRAMES, resamples=50)
    assert (perfect.ap.low, perfect.ap.high, perfect.undefined) == (1.0, 1.0, 0)


def test_lengths_that_do_not_add_up_are_refused() -> None:
    scores, labels, lengths = videos(4, 6)
    with pytest.raises(DataError, match="5 videos of"):
        ap_interval(scores, labels, lengths[:-1], FRAMES)
    with pytest.raises(DataError, match="no frame is labelled violent"):
        ap_interval(scores, 0 * labels, lengths, FRAMES)
