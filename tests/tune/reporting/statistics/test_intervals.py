"""Intervals over seeds: from three on, and never where no such number can lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.support.made_runs import sweep_results
from tune.reporting.figures.catalogue import entries
from tune.reporting.figures.several_runs import intervals
from tune.reporting.pages.first_screen import answers
from tune.reporting.statistics.intervals import (
    MARGIN,
    PERCENT,
    POINTS,
    SHARE,
    Estimate,
    bounds_of,
    estimate,
    of_differences,
)
from tune.reporting.statistics.outcome import find_outcome
from tune.reporting.statistics.significance import paired
from tune.reporting.statistics.sweep_rows import measured_noise, published_difference, sweep_rows
from tune.reporting.tables.reference_table import comparison_table
from tune.reporting.tables.sweep_table import sweep_table
from tune.reporting.text import wording

share = st.floats(0, 1, allow_nan=False)


@given(st.lists(share, min_size=3, max_size=6))
def test_an_interval_of_shares_is_the_t_interval_cut_at_what_a_share_can_be(values: list[float]) -> None:
    found = estimate(values, SHARE)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.mean <= found.high <= 1
    if max(values) - min(values) > 1e-6:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=found.mean, scale=stats.sem(values))
        assert (found.low, found.high) == pytest.approx((max(low, 0), min(high, 1)), abs=1e-9)
        if min(abs(low), abs(1 - high)) > 1e-9:
            assert found.cut == (low < 0 or high > 1)


def test_two_seeds_give_both_values_and_no_interval() -> None:
    found = estimate([0.1464, 0.8060], SHARE)
    assert found is not None
    assert (found.low, found.high, found.values) == (None, None, (0.1464, 0.8060))
    assert wording.estimate_text(found) == "47.62 (14.64 and 80.60)"
    assert wording.seeds(2) == "2 seeds, both values: an interval needs three or more"
    assert wording.seeds(3) == "3 seeds, 95 % t interval"


def test_a_cut_interval_is_marked_and_what_a_damaged_file_says_is_left_as_it_is() -> None:
    cut = estimate([0.10, 0.50, 0.80], SHARE)
    assert wording.estimate_text(cut).endswith("] (cut)")
    assert wording.estimate_text(cut).startswith("46.67 [0.00, ")
    assert wording.interval_notes([None, cut], PERCENT) == [
        "(cut): the interval reached further, and no such number lies beyond 0 or 100."
    ]
    assert (
        wording.interval_notes([estimate([0.80, 0.81, 0.82], SHARE), estimate([0.5], SHARE)], PERCENT) == []
    )
    beyond = estimate([7.0, 8.0, 9.0], SHARE)
    assert beyond is not None
    assert not beyond.cut


def test_differences_follow_the_same_rule_within_their_own_bounds() -> None:
    row, reference = {0: 100.0, 1: 60.0, 2: 95.0}, {0: 0.0, 1: 50.0, 2: 1.0}
    found = paired(row, reference, PERCENT)
    assert found is not None
    assert (found.difference.high, found.difference.cut) == (100.0, True)
    assert of_differences(PERCENT) == POINTS
    assert wording.points_text(found.difference, scale=1).endswith(", +100.00] (cut)")
    two = paired({0: 80.0, 1: 90.0}, {0: 70.0, 1: 60.0}, PERCENT)
    assert two is not None
    assert not two.differs
    assert wording.points_text(two.difference, scale=1) == "+20.00 (+10.00 and +30.00)"


def test_a_held_out_score_is_a_margin_and_everything_else_a_share() -> None:
    assert bounds_of("selection_score", "heldout") == MARGIN
    assert bounds_of("selection_score", "published") == bounds_of("ap", "heldout") == SHARE
    scores = estimate([-0.9, 0.0, 0.8], bounds_of("selection_score", "heldout"))
    assert scores is not None
    assert (scores.low, scores.high) == (-1.0, 1.0)


def test_no_table_of_two_seeds_has_an_interval_and_each_says_why() -> None:
    results = sweep_results(
        {"a": [14.0, 81.0], "b": [20.0, 70.0], "c": [50.0, 52.0]}, published={"a": 83.0}, reference="c"
    )
    for table in (sweep_table(results), comparison_table(results)):
        assert table is not None
        assert not any("[" in cell for row in table.rows for cell in row)
        assert (
            "In round brackets: both values of two seeds, since an interval needs three or more."
            in table.caption
        )
    better = answers(results, find_outcome(results), {})[2]
    assert better.number == ""
    others = sweep_results({"a": [84.0, 81.0], "c": [50.0, 52.0]}, reference="c")
    better = answers(others, find_outcome(others), {})[2]
    assert better.number == "+31.50 (+34.00 and +29.00) points"
    assert better.messages[0] == (
        "Not known: 2 seeds are too few to measure the noise between them; an interval needs three or more."
    )
    drawing = entries(results)[0].make()
    assert drawing is not None
    assert "both values: an interval needs three or more" in drawing.caption


def test_wide_intervals_of_a_sweep_end_at_0_and_100_and_say_so() -> None:
    results = sweep_results(
        {"a": [14.0, 81.0, 40.0], "b": [50.0, 52.0, 51.0]}, published={"a": 3.0, "b": 50.0}, reference="b"
    )
    table = sweep_table(results)
    assert table is not None
    assert "45.00 [0.00, 100.00] (cut)" in table.rows[0]
    assert "(cut): the interval reached further, and no such number lies beyond 0 or 100." in table.caption
    paired_rows = comparison_table(results)
    assert paired_rows is not None
    assert "beyond −100 or 100" in paired_rows.caption or "(cut)" not in str(paired_rows.rows)
    rows = sweep_rows(results)
    far = published_difference(rows[0], "ap_trapezoid", measured_noise(rows, "ap_trapezoid"))
    assert far is not None
    assert far.high is not None
    assert far.high <= 100
    drawing = entries(results)[0].make()
    assert drawing is not None
    assert "Intervals end where no AP lies beyond, at 0 or 100 %." in drawing.caption


def test_a_figure_draws_the_two_points_of_two_seeds_and_no_bar() -> None:
    figure = intervals(["a"], [("", [Estimate(2, 0.5, 0.1, values=(0.4, 0.6))])], "AP")
    assert figure is not None
    shown = [np.asarray(line.get_xdata(), float).tolist() for line in figure.axes[0].get_lines()]
    assert shown == [[40.0, 60.0], [50.0]]
    assert not figure.axes[0].collections, "no bar"
