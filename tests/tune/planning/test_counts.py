"""A count that stands in several places is one count, and says what it is of."""

from __future__ import annotations

import dataclasses
from typing import Any

from tests.support.made_runs import search_results, spread, trial_rows
from tune.planning.counts import counted_rows, epochs_text
from tune.planning.options import Options
from tune.planning.resolve import resolve_plan
from tune.planning.resources import Machine
from tune.reporting.figures.early_stopping import stopping
from tune.reporting.text.run_facts import facts
from tune.results.run import RunResults
from tune.results.trainings import trained_epochs


def refitted(results: RunResults, **refit: Any) -> RunResults:
    rows = results.trial_rows
    last = dataclasses.replace(
        rows[0], kind="refit", status="refit", trial_dir="refit/seed0", trial_id="r", **refit
    )
    return dataclasses.replace(results, trial_rows=[*rows, last])


def test_caption_and_details_count_the_same_epochs_and_say_what_they_were_spent_on() -> None:
    results = refitted(search_results(spread(6, 2)), epochs_run=8)
    search = [row for row in results.trial_rows if row.kind == "search"]
    drawing = stopping(results, search)
    assert drawing is not None
    assert (
        "Epochs that each trial was given, 42 of the run's 50 (42 in the trials, 8 in the refit)"
        in drawing.caption
    )
    (details,) = [text for name, text in facts(results) if name == "Trials"]
    assert "; epochs: 50 (42 in the trials, 8 in the refit); " in details
    alone = stopping(search_results(spread(6, 2)), search)
    assert alone is not None
    assert "Epochs that each trial was given, 42 in all" in alone.caption


def test_a_plan_counts_its_epochs_by_what_they_are_for() -> None:
    plan = resolve_plan(
        Options(trials=6, confirm=2, confirm_seeds=3, hyperparameters={"epochs": 5}), Machine(2, 0)
    )
    text = "80 (30 in the trials, 45 in the confirmation, 5 in the refit)"
    assert epochs_text(plan.epochs_by_kind) == text
    assert plan.most_epochs == 80


def test_counts_are_worded_for_one_and_for_many() -> None:
    assert counted_rows(1, 1, 1) == "1 row × 1 seed"
    assert counted_rows(12, 12, 3) == "12 rows × 3 seeds"
    assert counted_rows(2, 1, 2) == "2 rows that are 1 training × 2 seeds"
    assert trained_epochs(trial_rows([{"trial_dir": "trials/0", "epochs_run": 0}])) == {"search": 0}
    assert epochs_text({"search": 1234}) == "1,234"
    assert epochs_text({}) == "0"
