"""Rows against the reference row, seed by seed, and why there is no p where there is none."""

from __future__ import annotations

from scipy import stats

from tests.support.made_runs import sweep_results
from tune.reporting.tables.reference_table import comparison_table
from tune.reporting.text.wording import NOT_MEASURED, points

SEEDS = [80.0, 80.5, 79.5, 81.0, 80.2, 79.9]


def test_differences_are_on_the_same_seeds_with_the_interval_of_the_paired_t_test() -> None:
    better = [value + 1 + 0.1 * seed for seed, value in enumerate(SEEDS[:3])]
    results = sweep_results(
        {"better": better, "reference": SEEDS[:3], "short": ["failed", 82.5, 79.5], "lost": ["failed"] * 3},
        reference="reference",
    )
    table = comparison_table(results)
    assert table is not None
    assert [column.title for column in table.columns] == ["Row", "Pairs"] + ["Difference (points)"] * 2
    assert [column.group for column in table.columns[2:]] == [
        "Test AP, last epoch",
        "Test AP, best test epoch",
    ]
    interval = stats.ttest_rel(better, SEEDS[:3]).confidence_interval(0.95)
    text = f"{points(1.1)} [{points(interval.low)}, {points(interval.high)}] *"
    assert table.rows[0] == ("better", "3", text, text)
    assert [row[:2] for row in table.rows[1:]] == [("short", "2"), ("lost", "0")]
    assert table.rows[2][2:] == (NOT_MEASURED, NOT_MEASURED)
    assert table.marked == {0}
    assert "Each row minus row reference, on the seeds that both have finished" in table.caption
    assert (
        "No p: 6 pairs are the fewest whose least attainable p, 0.031, is below 0.05; 3 give 0.25"
        in table.caption
    )


def test_from_six_pairs_on_there_is_a_p_and_the_least_that_can_be_had() -> None:
    results = sweep_results(
        {
            "better": [value + 1 + 0.1 * seed for seed, value in enumerate(SEEDS)],
            "alike": [value + 0.1 * (-1) ** seed for seed, value in enumerate(SEEDS)],
            "few": SEEDS[:5],
            "reference": SEEDS,
        },
        reference="reference",
        protocol="heldout",
    )
    table = comparison_table(results)
    assert table is not None
    assert [column.title for column in table.columns] == ["Row", "Pairs", "Difference (points)", "p (Holm)"]
    assert [row[3] for row in table.rows] == ["0.062", "1.00", "needs 6 pairs"]
    assert "with Holm's correction over 2 rows" in table.caption
    assert "6 pairs can give no p below 0.031, and after the correction none below 0.062" in table.caption


def test_one_seed_gives_differences_without_interval_and_without_p() -> None:
    table = comparison_table(sweep_results({"a": [80.0], "b": [81.5]}, reference="b", demo=True))
    assert table is not None
    assert table.rows == (("a", "1", "−1.50", "−1.50"),)
    assert not table.marked
    assert "One pair a row: no interval and no p." in table.caption
    assert table.caption.startswith("Demo data, made up")


def test_stopped_seeds_are_reported_to_favour_their_row() -> None:
    table = comparison_table(sweep_results({"a": [80.0, 81.0], "b": ["stopped", 81.5]}, reference="a"))
    assert table is not None
    assert "Pairs are missing where seeds were stopped early" in table.caption


def test_without_a_reference_that_was_trained_there_is_no_table() -> None:
    rows = {"a": [80.0, 81.0], "b": [81.5, 82.0]}
    assert comparison_table(sweep_results(rows)) is None
    assert comparison_table(sweep_results(rows, reference="c")) is None
    assert comparison_table(sweep_results({**rows, "c": ["failed", "failed"]}, reference="c")) is None
    assert comparison_table(sweep_results({"a": [80.0]}, reference="a")) is None
    assert comparison_table(sweep_results({})) is None
