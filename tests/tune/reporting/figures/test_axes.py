"""Limits and ticks of axes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from tune.reporting.figures.axes import label_log_axis, view

PERCENT = st.floats(0, 100)


@given(
    st.lists(PERCENT, min_size=1, max_size=5),
    st.lists(st.none() | st.tuples(st.floats(-500, 0), st.floats(100, 500)), max_size=3),
)
def test_the_view_holds_every_mark_and_stays_in_the_range_of_an_ap(
    marks: list[float], intervals: list[tuple[float, float] | None]
) -> None:
    low, high = view(marks, intervals)
    assert 0 <= low <= min(marks)
    assert max(marks) <= high <= 100.5
    assert high > low
    reach = max(0.6 * (max(marks) - min(marks)), 1)
    assert low >= min(marks) - reach
    assert high <= max(marks) + reach


def test_an_interval_that_is_near_is_in_view_whole() -> None:
    low, high = view([80.0, 84.0], [(79.0, 85.0)])
    assert low < 79.5
    assert 85 <= high < 85.5


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.03, 1.0, ["0.05", "0.1", "0.2", "0.5", "1"]), (2, 4, ["2"])]
)
def test_log_axes_have_plain_numbers(low: float, high: float, expected: list[str]) -> None:
    axes = Figure().subplots()
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    label_log_axis(axes.xaxis)
    assert [label.get_text() for label in axes.get_xticklabels()] == expected
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    label_log_axis(axes.yaxis)
    assert [label.get_text() for label in axes.get_yticklabels()] == expected
