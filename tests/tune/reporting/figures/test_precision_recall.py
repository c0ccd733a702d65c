"""Precision against recall, computed on snippets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve

from macil.evaluation.average_precision import frame_average_precision
from tune.reporting.figures.figure_data import SeedScores
from tune.reporting.figures.precision_recall import curve, draw

FRAMES = 4


def seed_scores(scores: list[float], positive: list[int], seed: int = 0) -> SeedScores:
    labels = np.concatenate([[1] * p + [0] * (FRAMES - p) for p in positive])
    found = frame_average_precision(scores, labels, FRAMES)
    return SeedScores(seed, np.array(scores), np.array(positive), FRAMES, *found)


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
    figure = draw(seeds)
    texts = [text.get_text() for text in figure.legends[0].texts]
    assert texts == [
        *(
            f"seed {seed.seed}: AP {100 * seed.ap_trapezoid:.2f} % trapezoidal, {100 * seed.ap:.2f} % step-wise"
            for seed in seeds
        ),
        "chance: 41.7 % of the frames",
    ]
    assert np.asarray(figure.axes[0].get_lines()[-1].get_ydata()) == pytest.approx(5 / 12)
