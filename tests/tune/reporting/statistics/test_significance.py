"""Noise, paired differences, permutation p, Holm and rank correlation against slow or other people's versions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tune.reporting.statistics.intervals import FEWEST_SEEDS, estimate
from tune.reporting.statistics.significance import (
    FEWEST_PAIRS,
    Noise,
    Pair,
    holm,
    larger_pairs,
    least_p,
    paired,
    paired_with,
    pooled_noise,
    rank_correlation,
)

ap = st.floats(0, 100).map(lambda value: round(value, 3))
groups = st.lists(st.lists(ap, max_size=5), max_size=6)


@given(groups)
def test_pooled_noise_is_the_root_of_the_mean_square_within_rows(rows: list[list[float]]) -> None:
    noise = pooled_noise(rows)
    several = [row for row in rows if len(row) > 1]
    if not several:
        assert noise is None
        return
    assert noise is not None
    degrees = sum(len(row) for row in several) - len(several)
    squares = sum((value - sum(row) / len(row)) ** 2 for row in several for value in row)
    assert noise.deviation == pytest.approx(math.sqrt(squares / degrees), rel=1e-9, abs=1e-9)
    assert (noise.degrees, noise.groups) == (degrees, len(several))


def test_pooled_noise_is_the_error_of_an_analysis_of_variance() -> None:
    rows = [[80.0, 81.0, 83.0], [70.0, 72.0], [75.0, 75.5, 74.0, 77.0]]
    noise = pooled_noise(rows)
    assert noise is not None
    means = np.repeat([np.mean(row) for row in rows], [len(row) for row in rows])
    between = float(((means - np.mean(np.concatenate(rows))) ** 2).sum()) / 2
    assert between / noise.deviation**2 == pytest.approx(stats.f_oneway(*rows).statistic)


def test_equal_numbers_have_no_noise_at_all() -> None:
    # (80.1 + 80.1 + 80.1) / 3 is not 80.1.
    for value in (80.1, 81.3, 0.1):
        noise = pooled_noise([[value] * 3, [value] * 7])
        assert noise is not None
        assert noise.deviation == 0
        estimated = estimate([value] * 3)
        assert estimated is not None
        assert estimated.deviation == 0


def test_the_limits_of_noise_are_those_of_the_tables() -> None:
    noise = Noise(0.5, 24, 12)
    # t(0.975, 24) = 2.0639 and the studentised range q(0.95; 12, 24) = 5.10, from any table
    assert noise.limit == pytest.approx(2.0639 * math.sqrt(2) * 0.5, abs=1e-4)
    assert noise.joint_limit(12) == pytest.approx(5.10 * 0.5, abs=5e-3)
    assert noise.joint_limit(2) == pytest.approx(noise.limit), "of two trainings there is one difference"
    assert noise.margin(1) == pytest.approx(noise.limit), "a mean of one is a single training"
    assert noise.margin(10**9) == pytest.approx(2.0639 * 0.5, abs=1e-4)


def test_so_many_differences_between_trainings_of_one_configuration_are_within_the_limit() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        noise = pooled_noise(rng.normal(80, 0.7, (4, 3)).tolist())
        assert noise is not None
        first, second = rng.normal(80, 0.7, 2)
        inside += abs(first - second) < noise.limit
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)


@given(st.lists(st.tuples(ap, ap), min_size=FEWEST_SEEDS, max_size=FEWEST_PAIRS - 1))
def test_a_paired_interval_is_that_of_the_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    row, reference = dict(enumerate(a for a, _ in pairs)), dict(enumerate(b for _, b in pairs))
    found = paired(row, reference)
    assert found is not None
    differences = [a - b for a, b in pairs]
    assert found.difference.mean == pytest.approx(np.mean(differences), abs=1e-9)
    assert found.p is None
    if np.ptp(differences) > 1e-9:
        expected = stats.ttest_rel(list(row.values()), list(reference.values())).confidence_interval(0.95)
        assert (found.difference.low, found.difference.high) == pytest.approx(
            (expected.low, expected.high), abs=1e-6
        )
        if min(abs(expected.low), abs(expected.high)) > 1e-6:
            assert found.differs == (expected.low > 0 or expected.high < 0)


def test_pairs_are_by_seed_and_a_seed_that_one_side_lacks_counts_for_nothing() -> None:
    found = paired({3: 80.0, 1: 70.0, 7: 1.0}, {1: 71.0, 2: 0.0, 3: 79.0})
    assert found is not None
    assert (found.difference.n, found.difference.mean) == (2, 0.0)
    assert found.difference.values == (-1.0, 1.0), "of two pairs both differences, and no interval"
    assert found.difference.low is None
    assert not paired({0: 9.0, 1: 9.1}, {0: 1.0, 1: 1.0}).differs  # type: ignore[union-attr]
    assert paired({1: 80.0}, {2: 80.0}) is None
    single = paired({1: 80.0}, {1: 70.0})
    assert single is not None
    assert single.difference.low is None
    assert not single.differs, "one pair shows no difference, however large"


def test_the_same_numbers_do_not_differ_and_their_p_is_one() -> None:
    values = {seed: 80.0 + seed for seed in range(FEWEST_PAIRS)}
    found = paired(values, values)
    assert found is not None
    assert (found.difference.low, found.difference.high, found.p) == (0.0, 0.0, 1.0)
    assert not found.differs


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-40, 40), min_size=FEWEST_PAIRS, max_size=9))
def test_p_is_the_share_of_sign_flips_that_are_as_far_from_zero(differences: list[int]) -> None:
    found = paired(
        {seed: float(value) for seed, value in enumerate(differences)}, dict.fromkeys(range(9), 0.0)
    )
    assert found is not None
    flips = list(itertools.product((1, -1), repeat=len(differences)))
    sums = [abs(sum(sign * value for sign, value in zip(signs, differences, strict=True))) for signs in flips]
    expected = sum(total >= abs(sum(differences)) for total in sums) / len(flips)
    assert found.p is not None
    assert found.p == pytest.approx(expected)
    assert found.p >= least_p(len(differences)) - 1e-12


@pytest.mark.parametrize("pairs", [FEWEST_PAIRS, 13, 15])
def test_the_least_p_is_attained_where_every_seed_agrees_and_draws_are_repeatable(pairs: int) -> None:
    row, reference = {seed: 80.0 + seed for seed in range(pairs)}, dict.fromkeys(range(pairs), 70.0)
    found = paired(row, reference)
    assert found is not None
    assert found.p == pytest.approx(least_p(pairs), rel=2 if pairs > 13 else 1e-9)
    assert found == paired(row, reference)
    assert least_p(FEWEST_PAIRS - 1) > 0.05 >= least_p(FEWEST_PAIRS)


shares = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(shares)
def test_holm_is_monotone_at_least_the_raw_p_and_equal_to_its_definition(p: list[float]) -> None:
    adjusted = holm(p)
    assert len(adjusted) == len(p)
    for index, value in enumerate(p):
        # The largest, over the hypotheses that are rejected no later, of p times how many were left then.
        steps = [
            other * sum((q, j) >= (other, i) for j, q in enumerate(p))
            for i, other in enumerate(p)
            if (other, i) <= (value, index)
        ]
        assert adjusted[index] == min(1.0, max(steps))
        assert value <= adjusted[index] <= 1
    for (a, b), (x, y) in zip(itertools.combinations(p, 2), itertools.combinations(adjusted, 2), strict=True):
        assert a >= b or x <= y


def test_holm_corrects_over_the_rows_that_have_a_p() -> None:
    assert holm([]) == []
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    reference = dict.fromkeys(range(8), 70.0)
    rows = {
        "reference": reference,
        "above": {seed: 71.0 + seed for seed in range(8)},
        "mixed": {seed: 70.0 + (-1) ** seed * (1 + seed) for seed in range(8)},
        "few": {seed: 90.0 + seed for seed in range(3)},
        "none": {},
    }
    found = paired_with(rows, "reference")
    assert list(found) == ["above", "mixed", "few"]
    assert found["above"].adjusted == pytest.approx(2 * least_p(8))
    assert found["mixed"].p is not None
    assert found["mixed"].adjusted == pytest.approx(max(2 * least_p(8), found["mixed"].p))
    assert found["few"].adjusted is None
    assert paired_with(rows, "absent") == {}


@given(st.lists(ap, max_size=8), st.floats(0, 60))
def test_larger_pairs_are_those_of_a_brute_force_count(values: list[float], limit: float) -> None:
    named = {f"r{index}": value for index, value in enumerate(values)}
    found = larger_pairs(named, limit)
    count = 0
    for i in range(len(values)):
        for j in range(i):
            count += abs(values[i] - values[j]) > limit
    assert len(found) == count
    for pair in found:
        assert pair.difference == named[pair.above] - named[pair.below] > limit
    assert sorted(found, key=lambda pair: -pair.difference) == found


def test_a_pair_at_the_limit_is_not_larger() -> None:
    assert larger_pairs({"a": 1.0, "b": 2.0}, 1.0) == []
    assert larger_pairs({"a": 1.0, "b": 2.0}, 0.5) == [Pair("b", "a", 1.0)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=7))
def test_rank_correlations_are_those_of_ranks_and_of_concordant_pairs(points: list[tuple[int, int]]) -> None:
    ours, published = [float(a) for a, _ in points], [float(b) for _, b in points]
    found = rank_correlation(ours, published)
    if len(points) < 3 or len(set(ours)) == 1 or len(set(published)) == 1:
        assert found is None
        return
    assert found is not None
    ranks = [stats.rankdata(side) for side in (ours, published)]
    signs = [
        [math.copysign(a != b, a - b) for a, b in itertools.combinations(side, 2)]
        for side in (ours, published)
    ]
    kendall = np.dot(signs[0], signs[1]) / math.sqrt(np.count_nonzero(signs[0]) * np.count_nonzero(signs[1]))
    assert found.n == len(points)
    assert found.spearman == pytest.approx(np.corrcoef(ranks)[0, 1])
    assert found.kendall == pytest.approx(kendall)
