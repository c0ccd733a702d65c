"""Confirmation on fresh seeds: which configuration wins, and what was planned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from macil.data import FeatureStore
from macil.io.files import write_json_atomic
from tests.support.made_confirmations import APS, CONFIRM, SCORES, SEEDS, confirmed
from tests.support.made_runs import made_info
from tests.support.run_folders import RunFolder
from tune.reporting.pages.run_page import run_page
from tune.reporting.statistics.confirmation import against_reference, confirmed_rows, leads
from tune.reporting.text.run_facts import banners
from tune.results.run import load_run, planned_confirmation


def test_the_best_mean_over_fresh_seeds_stands_first_not_the_best_searched() -> None:
    rows = confirmed_rows(confirmed(winner={"trial": "00007"}))
    assert [row.name for row in rows] == ["00007", "00004", "00000"]
    assert [(row.winner, row.reference) for row in rows] == [(True, False), (False, False), (False, True)]
    assert rows[1].regression == pytest.approx(0.72 - 0.90)
    low, high = stats.t.interval(0.95, 2, loc=0.72, scale=stats.sem(SCORES["00004"][1]))
    mean = rows[1].estimate("selection_score")
    assert mean is not None
    assert (mean.mean, mean.low, mean.high) == pytest.approx((0.72, low, high))


def test_the_difference_to_the_reference_is_paired_on_the_same_seeds() -> None:
    found = against_reference(confirmed(), "00007", "ap_trapezoid")
    assert found is not None
    differences = np.subtract(APS["00007"], APS["00000"])
    low, high = stats.t.interval(0.95, 2, loc=differences.mean(), scale=stats.sem(differences))
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high))
    assert against_reference(confirmed(), "00000", "ap_trapezoid") is None


def test_a_lead_over_a_configuration_that_lost_a_seed_is_not_counted() -> None:
    rows = confirmed_rows(confirmed(failed="confirm/00007_seed1001"))
    found = leads(confirmed(failed="confirm/00007_seed1001"))
    assert [row.name for row in rows] == ["00004", "00000", "00007"]
    assert [row.name for row, _ in found] == ["00000"]


def test_what_was_planned_is_every_configuration_on_every_seed_once() -> None:
    assert len(planned_confirmation(made_info(confirm=CONFIRM))) == 9
    both = {**CONFIRM, "rows": ["00000", "00004"]}
    assert planned_confirmation(made_info(confirm=both))[:3] == [("00000", seed) for seed in SEEDS]
    for nothing in ({}, {"confirm": None}, {"confirm": {"rows": ["x"]}}):
        assert planned_confirmation(made_info(**nothing)) == []


def test_a_confirmation_under_way_is_read_from_its_folder(demo_store: FeatureStore, tmp_path: Any) -> None:
    run = RunFolder(tmp_path / "run", demo_store, "heldout")
    run.begin(
        "running", trials=2, phase="confirm", confirm={"rows": ["00001"], "reference": "00000", "seeds": [9]}
    )
    run.add("00000", epochs=1)
    run.add("00001", epochs=1, lambda_v2b=0.5)
    run.add("00001_seed9", kind="confirm", row="00001", epochs=1, seed=9)
    (run.path / "confirm" / "experiment_state-x.json").write_text("no folder of a trial")
    results = load_run(run.path)
    (row,) = [row for row in results.trials.to_pylist() if row["kind"] == "confirm"]
    assert (row["status"], row["row"], row["seed"], row["protocol"]) == ("finished", "00001", 9, "heldout")
    assert "1 of 2 trainings of the confirmation have not started" in results.problems
    assert "1 of 2 trainings finished; no winner is named." in " ".join(banners(results))
    page = run_page(results, tmp_path, figures=False)
    assert "confirmation" in {section.id for section in page.sections}
    write_json_atomic(run.path / "run.json", {**run.info, "confirm": None})
    assert load_run(run.path).problems == []
