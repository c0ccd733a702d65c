"""The criteria that the embedded demo was chosen by."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.demo_criteria import Training, better_half, judge, variance_components


def test_components_of_made_scores_are_found() -> None:
    rng = np.random.default_rng(0)
    scores = 60 + rng.normal(0, 5, (4000, 1)) + rng.normal(0, 2, (4000, 4))
    between, within = variance_components(scores)
    assert between == pytest.approx(25, rel=0.1)
    assert within == pytest.approx(4, rel=0.1)
    # By hand: means 1 and 5, variance 2 within each.
    assert variance_components(np.array([[0.0, 2.0], [4.0, 6.0]])) == (8 - 1, 2)


def test_the_better_half_is_of_larger_means() -> None:
    scores = np.array([[1.0, 1.0], [5.0, 6.0], [9.0, 0.0], [2.0, 2.0], [0.0, 0.0]])
    assert better_half(scores).tolist() == [[5.0, 6.0], [9.0, 0.0], [2.0, 2.0]]


def trainings(paper: tuple[float, ...], others: list[tuple[float, ...]], seconds: float) -> list[Training]:
    return [
        Training(number, seed, ap, seconds)
        for number, row in enumerate([paper, *others])
        for seed, ap in enumerate(row)
    ]


@pytest.mark.parametrize(
    ("paper", "others", "seconds", "met"),
    [
        ((70.0, 71.0), [(80.0, 81.0), (60.0, 61.0), (50.0, 51.0)], 14.0, [True, True, True, True]),
        ((50.0, 51.0), [(80.0, 81.0), (60.0, 61.0), (50.0, 51.0)], 16.0, [False, False, True, True]),
        ((66.0, 76.0), [(80.0, 89.0), (81.0, 88.0), (50.0, 51.0)], 14.0, [True, True, False, False]),
    ],
)
def test_each_criterion_is_judged(
    paper: tuple[float, ...], others: list[tuple[float, ...]], seconds: float, met: list[bool]
) -> None:
    assert [one.met for one in judge(trainings(paper, others, seconds), chance=20.0)] == met
