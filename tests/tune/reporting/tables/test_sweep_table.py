"""The sweep's table: laid out as the paper's, ours beside the published, and no mean that hides a missing seed."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy import stats

from macil.config import TrialConfig
from tests.support.made_runs import Seeds, made_results, sweep_results
from tune.planning.paper_sweeps import SWEEPS
from tune.reporting.statistics.sweep_rows import measured_noise, published_source, reference_title, sweep_rows
from tune.reporting.tables.run_tables import Table
from tune.reporting.tables.sweep_table import sweep_table
from tune.reporting.text.wording import NOT_MEASURED, percent, points
from tune.results.run import RunResults


def table_of(results: RunResults) -> Table:
    table = sweep_table(results)
    assert table is not None
    assert all(len(row) == len(table.columns) for row in table.rows)
    return table


def cells(table: Table, title: str, group: str = "") -> list[str]:
    (found,) = [
        index
        for index, column in enumerate(table.columns)
        if column.title == title and column.group.startswith(group) and bool(column.group) == bool(group)
    ]
    return [row[found] for row in table.rows]


def paper_sweep(name: str, seeds: int = 2, **plan: Any) -> RunResults:
    """A sweep of the paper with an AP that falls from row to row."""
    sweep = SWEEPS[name]
    return sweep_results(
        {row.name: [82.0 - n + seed / 10 for seed in range(seeds)] for n, row in enumerate(sweep.rows)},
        published={row.name: row.published_ap for row in sweep.rows if row.published_ap is not None},
        changes={row.name: row.changes for row in sweep.rows},
        **{"sweep": name, "source": sweep.source, "reference": sweep.reference, **plan},
    )


def test_the_reference_is_called_the_papers_setting_where_every_hyperparameter_is_the_papers() -> None:
    paper = TrialConfig().to_dict()
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({}, "row full (the paper's setting)"),
        ({"batch_size": 16}, "row full"),
    )
    for other, title in cases:
        rows = [
            {"trial_dir": f"trials/{name}", "row": name, "ap_trapezoid": 0.8, **paper, **other}
            for name in ("full", "cold")
        ]
        plan: dict[str, Any] = {
            "sweep": "mine",
            "rows": [{"name": "full", "changes": {}}, {"name": "cold", "changes": {"ramp": 0.3}}],
            "reference": "full",
        }
        assert reference_title(made_results(rows, plan=plan, sweep="mine")) == title
        planned = {**plan, "base": {**paper, **other}}
        assert reference_title(made_results([], plan=planned, sweep="mine")) == title, "before it is trained"


def test_table_4_has_the_columns_of_the_paper_in_its_order() -> None:
    table = table_of(paper_sweep("table4"))
    assert [column.title for column in table.columns[:5]] == ["Row", "Λ_v2n", "Λ_v2b", "r", "Seeds"]
    rows = [row[1:4] for row in table.rows]
    assert rows[:4] == [("1", "1", "0.1"), ("1", "1", "0.3"), ("1", "1", "3"), ("1.5", "1", "0.1")]
    assert cells(table, "AP (%)", "Paper")[:5] == ["82.62", "82.67", "82.09", "82.95", "81.37"]
    assert table.rows[9][0] == "10 (reference)"
    assert table.marked == {9}
    assert "Marked: row 10, which the others are compared with." in table.caption, (
        "3 epochs are not the paper's"
    )
    assert (
        "Parameters in every row: 100 in use, 120 in the published convention. Time a seed: 5.0 s."
        in table.caption
    )
    assert "Parameters" not in [column.group for column in table.columns]


def test_table_3_ticks_components() -> None:
    table = table_of(paper_sweep("table3"))
    titles = [(column.group, column.title) for column in table.columns[:4]]
    assert titles == [
        ("", "Row"),
        ("Components", "Two-stream"),
        ("Components", "MA-CIL"),
        ("Components", "SD"),
    ]
    assert ["".join(row[1:4]) for row in table.rows] == ["✓✗✗", "✓✗✓", "✓✓✗", "✓✓✓"]


def test_parameter_counts_stand_by_row_where_they_differ_and_time_is_a_range() -> None:
    changes = {"a": {"parameters": 50, "parameters_published": 70, "seconds": 90.0}}
    results = sweep_results({"a": [80.0], "b": [81.0], "c": []}, changes=changes)
    table = table_of(results)
    assert cells(table, "Used", "Parameters") == ["50", "100", NOT_MEASURED]
    assert cells(table, "Published", "Parameters") == ["70", "120", NOT_MEASURED]
    assert table.caption.endswith("Time a seed: 5.0 s to 90 s.")
    assert "Parameters in every row" not in table.caption


@pytest.mark.parametrize(
    ("name", "symbol", "first"), [("figure3", "m", "0.81"), ("tau", "τ", "0.03"), ("hidden", "d", "32")]
)
def test_a_sweep_of_one_hyperparameter_shows_its_value(name: str, symbol: str, first: str) -> None:
    table = table_of(paper_sweep(name))
    assert [column.title for column in table.columns[:2]] == [symbol, "Seeds"]
    assert table.rows[0][0] == first
    assert [row[0] for row in table.rows if "(reference)" in row[0]] == [
        f"{SWEEPS[name].reference.split('=')[1]} (reference)"
    ]


def test_a_mean_over_fewer_seeds_than_asked_is_marked_wherever_it_stands() -> None:
    results = sweep_results(
        {
            "whole": [80.0, 81.0, 82.0],
            "short": [80.0, 82.0, "failed"],
            "cut": [80.0, "stopped", "stopped"],
            "begun": [81.0, "running"],
            "lost": ["failed", "diverged", "interrupted"],
        },
        published={"whole": 80.0, "short": 80.0},
        sweep="table4",
    )
    table = table_of(results)
    assert cells(table, "Seeds") == [
        "3/3",
        "2/3 †, 1 failed",
        "1/3 †, 2 stopped ‡",
        "1/3 †, 1 running, 1 not started",
        "0/3, 1 diverged, 1 failed, 1 interrupted",
    ]
    for group in ("Test AP", "Best test epoch"):
        means = cells(table, "Trapezoidal", group)
        assert [text.endswith(" †") for text in means] == [False, True, True, True, False]
        assert means[4] == NOT_MEASURED
    assert cells(table, "Difference", "Paper")[1].endswith(" †")
    assert cells(table, "Trapezoidal", "Test AP")[2] == "80.00 †", "a stopped training enters no mean"
    assert "† Over fewer seeds than the 3 asked for" in table.caption
    assert "‡ Stopped early: not a whole training, and in no mean" in table.caption
    whole = table_of(sweep_results({"a": [80.0, 81.0], "b": [81.0, 83.0]}))
    assert not any(mark in whole.caption for mark in "†‡")


def test_means_intervals_and_deviations_are_those_of_the_finished_seeds() -> None:
    table = table_of(sweep_results({"a": [80.0, 81.5, 82.5, "failed"]}, seeds=3))
    for column, shift in (("Trapezoidal", 0.0), ("Step-wise", -1.0)):
        values = np.array([80.0, 81.5, 82.5]) + shift
        low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
        assert cells(table, column, "Test AP") == [
            f"{percent(values.mean() / 100)} [{percent(low / 100)}, {percent(high / 100)}] †"
        ]
    assert cells(table, "SD", "Test AP") == [percent(float(np.std([80.0, 81.5, 82.5], ddof=1)) / 100)]
    assert cells(table, "Seeds") == ["3/4 †, 1 failed"]


def test_a_difference_to_the_paper_carries_the_noise_of_both_sides() -> None:
    results = sweep_results(
        {"a": [80.0, 81.0, 82.5], "b": [79.0, 80.0]},
        published={"a": 83.0, "b": 79.0},
        best=0.25,
        sweep="table4",
    )
    squares = sum(
        float(((row - row.mean()) ** 2).sum()) for row in (np.array([80, 81, 82.5]), np.array([79, 80]))
    )
    margin = stats.t.ppf(0.975, 3) * np.sqrt(squares / 3 * (1 + 1 / 3))
    difference = float(np.mean([80.25, 81.25, 82.75])) - 83.0
    expected = f"{points(difference)} [{points(difference - margin)}, {points(difference + margin)}]"
    table = table_of(results)
    assert cells(table, "Difference", "Paper")[0] == expected
    assert "Difference: ours (best test epoch) minus paper, with the 95 % interval" in table.caption


def test_under_heldout_the_paper_is_compared_with_the_chosen_epoch() -> None:
    rows: dict[str, Seeds] = {"a": [80.0], "b": [81.0]}
    table = table_of(sweep_results(rows, published={"a": 79.0}, protocol="heldout", sweep="table4"))
    assert {column.group for column in table.columns} == {
        "",
        "Test AP (%), chosen epoch",
        "Paper (one seed)",
    }
    assert cells(table, "Difference", "Paper") == ["+1.00", NOT_MEASURED]
    assert "one seed a row, no interval" in table.caption
    assert "SD" not in [column.title for column in table.columns]


def test_what_a_sweep_file_gives_as_published_is_not_called_the_papers() -> None:
    table = table_of(sweep_results({"a": [80.0], "b": [81.0]}, published={"a": 79.0}, source="our lab"))
    assert cells(table, "AP (%)", "Published") == ["79.00", NOT_MEASURED]
    assert "Published: our lab; taken for the AP of one training. Difference: ours" in table.caption
    assert "paper" not in table.caption.lower()


def test_rows_that_have_not_begun_stand_in_the_table_with_their_setting() -> None:
    results = sweep_results({"a": [80.0, 81.0], "b": []}, changes={"a": {"ramp": 0.1}, "b": {"ramp": 0.3}})
    table = table_of(results)
    assert table.rows[1][:3] == ("b", "0.3", "0/2, 2 not started")
    assert set(table.rows[1][3:]) == {NOT_MEASURED}
    assert sweep_table(sweep_results({})) is None


def test_a_demo_is_labelled_and_a_published_number_says_where_it_stands() -> None:
    rows, published = {"a": [80.0], "b": [81.0], "c": [82.0]}, {"a": 80.0, "b": 81.0, "c": 82.0}
    assert "Demo data, made up" in table_of(sweep_results(rows, demo=True)).caption
    assert "Demo data" not in table_of(sweep_results(rows)).caption
    results = sweep_results(rows, published=published, source="Table 9")
    assert published_source(results, sweep_rows(results)) == "Table 9"
    planned = [row.model_copy(update={"source": f"page {n}"}) for n, row in enumerate(results.plan.rows)]
    sourced = dataclasses.replace(results, plan=results.plan.model_copy(update={"rows": planned}))
    assert published_source(sourced, sweep_rows(sourced)) == "Table 9", "three places are as good as none"
    planned[2] = planned[2].model_copy(update={"published_ap": None})
    assert published_source(sourced, sweep_rows(sourced)) == "page 0; page 1"


def test_noise_leaves_out_rows_with_stopped_seeds_and_counts_a_training_once() -> None:
    results = sweep_results(
        {"a": [80.0, 81.0], "same": [80.0, 81.0], "b": [79.0, 79.5], "cut": [70.0, 90.0, "stopped"]}
    )
    noise = measured_noise(sweep_rows(results), "ap_trapezoid")
    assert noise is not None
    assert (noise.degrees, noise.groups) == (2, 2)
    assert noise.deviation == pytest.approx(np.sqrt((0.5 + 0.125) / 2))
