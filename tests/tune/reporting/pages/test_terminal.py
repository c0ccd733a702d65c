"""What a run prints when it ends: the same numbers as the report, labelled as the report labels them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.support.made_runs import made_results, search_results, sweep_results
from tune.reporting.pages.terminal import print_ending
from tune.results.run import RunResults


def ending(results: RunResults) -> str:
    text = io.StringIO()
    print_ending(Console(file=text, width=160), results)
    return text.getvalue()


def test_a_sweep_ends_with_its_rows_beside_the_paper() -> None:
    results = sweep_results(
        {"a": [40.0, 42.0], "b": [50.0, "failed"]},
        published={"a": 82.62, "b": 81.37},
        changes={"a": {"ramp": 0.1}, "b": {"ramp": 0.3}},
        reference="a",
    )
    output = ending(results)
    line = {row: next(line for line in output.splitlines() if f"│ {row} " in line) for row in ("a", "b")}
    assert "41.00" in line["a"]
    assert "82.62" in line["a"]
    assert "2/2" in line["a"]
    assert "50.00" in line["b"]
    assert "1/2 †, 1 failed" in line["b"]
    assert "†" in line["b"], "a mean over fewer seeds than asked for is marked"
    assert "†" in output.split("└")[-1], "and the mark explained"
    assert "Step-wise" not in output, "what is in the report only"
    assert "Row a" in output, "two seeds come before one, however good"
    assert "demo data" not in output


def test_a_search_ends_with_its_leaderboard_and_the_comparison_with_the_paper() -> None:
    trials = [
        {"selection_score": 0.5, "ap": 0.40, "ap_trapezoid": 0.41},
        {"selection_score": 0.7, "ap": 0.45, "ap_trapezoid": 0.46, "ramp": 0.3},
    ]
    output = ending(search_results(trials, demo=True))
    lines = output.splitlines()
    assert (
        "leaderboard: heldout protocol, demo data, made up; AP of test frames in % at the chosen epoch"
        in output
    )
    first, second = (next(i for i, line in enumerate(lines) if name in line) for name in ("00001", "00000"))
    assert first < second, "the best first"
    assert "ramp 0.3" in lines[first]
    assert "+5.00 points" in output
    assert "the noise between seeds was not measured" in output
    assert "--replay" in output


@pytest.mark.parametrize(
    "results", [sweep_results({"a": ["running"]}), search_results([])], ids=["sweep", "search"]
)
def test_a_run_without_any_result_still_has_an_ending(results: RunResults) -> None:
    assert "Better than" in ending(results)


def test_the_refit_in_the_leaderboard_is_reported_to_be_at_its_last_epoch() -> None:
    trials = [{"selection_score": 0.5, "ap": 0.40, "ap_trapezoid": 0.41}]
    assert "; the refit at its last" not in ending(search_results(trials))
    refit = {"trial_dir": "refit/seed0", "kind": "refit", "status": "refit", "protocol": "refit"}
    first = {**trials[0], "trial_dir": "trials/00000"}
    output = ending(made_results([first, {**refit, "epoch_rule": "last", "ap": 0.5, "ap_trapezoid": 0.5}]))
    assert "at the chosen epoch; the refit at its last, one seed a line" in " ".join(output.split())
