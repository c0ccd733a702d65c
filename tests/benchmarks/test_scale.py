"""The benchmark of many trials at once: it measures the product's driver, and its arithmetic adds up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from optuna.trial import TrialState

from benchmarks import scale
from benchmarks.estimate import (
    EPOCHS,
    Assumed,
    Driver,
    asha_share,
    driver_per_epoch,
    saturates_at,
    simulate_search,
    sweep_seconds,
)
from tests.support.repository import ROOT
from tests.support.studies import load_study

DRIVER = Driver({1: 0.004, 512: 0.008}, trial=0.02, suggestion={10: 0.01, 1000: 0.03})
FREE = Driver({1: 0.0}, trial=0.0, suggestion={1: 0.0})
NOTHING = Assumed(start=0.0, stage=0.0, compile=0.0, between=0.0)


@pytest.mark.ray
@pytest.mark.nightly
def test_a_round_puts_the_drivers_time_to_reports_suggestions_and_trials(tmp_path: Path) -> None:
    task = {"concurrent": 3, "pause": 0.05, "seconds": 2.0, "epochs": 4}
    command = [sys.executable, "-m", "benchmarks.scaleround", json.dumps(task), str(tmp_path / "found.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    check_round(json.loads((tmp_path / "found.json").read_text("utf-8")))


def check_round(found: dict[str, Any]) -> None:
    assert found["reports"] > 3
    assert found["starts"] > 0
    assert found["ends"] > 0
    assert 0 < found["driver_busy"] <= 1
    parts = [found["per_report"], found["per_suggestion"], found["per_trial_beside"]]
    for times in parts:
        assert times["seconds"] > 0
        assert 0 <= times["fsync"] < times["seconds"]
    whole = found["per_report_in_all"]
    assert whole["seconds"] * found["reports"] == pytest.approx(found["driver_busy"] * found["watched"])
    assert found["per_report"]["seconds"] < whole["seconds"]
    assert 0 < found["between_epochs"]["median"] <= found["between_epochs"]["p90"]
    assert found["between_trials"]["median"] > 0
    assert found["driver_mib"] > 100
    assert (found["worker_share_mib"] is not None) == found["round"]["processes"]
    if not found["round"]["plain"]:
        assert found["rows"] >= found["trials"] > 3
        assert found["log_bytes_per_epoch"] > 300
        assert found["journal_epochs"] > found["reports"] / 2  # the product's study has the reports


@pytest.mark.ray
@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_the_scale_benchmark_measures_both_drivers_and_both_kinds_of_workers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.scale", "--quick", "--json", str(tmp_path / "result.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text("utf-8"))
    tasks = [each["round"] for each in result["rounds"]]
    assert {task["plain"] for task in tasks} == {task["processes"] for task in tasks} == {True, False}
    assert {task["nodes"] for task in tasks} == {1, 2}
    for each in result["rounds"]:
        check_round(each)
    assert [each["finished"] for each in result["suggestions"]] == [10, 20]
    assert result["worker"]["share_mib"] > 100
    assert result["memory"]["trained_fit"] * result["worker"]["share_mib"] < result["memory"]["memory_mib"]
    assert result["checkpoint_bytes"] > 1e6
    assert [(each["gpus"], each["epoch"]) for each in result["estimate"]["searches"]] == [
        (gpus, epoch) for epoch in (0.3, 3.0, 30.0) for gpus in (1, 8, 64)
    ]
    assert "macil-tune, processes" in done.stdout


def test_a_round_that_fails_is_told_with_its_reason() -> None:
    with pytest.raises(click.ClickException, match=r"round .* failed:(?s:.)*no such thing"):
        scale.run_alone({"no such thing": 1})


def test_made_up_studies_hold_finished_trials_of_both_kinds(tmp_path: Path) -> None:
    found = scale.measure_suggestions(tmp_path, (6, 12), (2, 5), repeats=2)
    assert [each["finished"] for each in found] == [6, 12]
    assert found[0]["journal_bytes"] < found[1]["journal_bytes"]
    for each in found:
        assert list(each["suggestion"]) == ["2", "5"]
        assert all(seconds > 0 for seconds in each["suggestion"].values())
    rows = load_study(tmp_path / "study-6.journal").get_trials(deepcopy=False)
    states = [row.state for row in rows]
    assert states[:6] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED] * 2
    assert [len(row.intermediate_values) for row in rows[:3]] == [50, 15, 15]
    # One that runs and two suggestions, then one more that runs and two more.
    assert states[6:] == [TrialState.RUNNING] * 6


def test_the_share_of_epochs_that_asha_trains_follows_from_its_rungs() -> None:
    assert asha_share(50, 15) == pytest.approx((15 + 30 / 3 + 5 / 9) / 50)
    assert asha_share(50, 50) == 1


def test_a_simulated_search_without_a_driver_takes_the_epochs_it_trains() -> None:
    found = simulate_search(1, 2.0, FREE, NOTHING, trials=60)
    assert found["trials"] == pytest.approx(2.0 * found["epochs"])
    assert found["used"] == pytest.approx(1)
    assert found["driver_share"] == 0
    assert found["seconds"] == pytest.approx(found["trials"] + 2.0 * EPOCHS)
    assert found["share"] == pytest.approx(found["epochs"] / 60 / EPOCHS)
    assert asha_share() - 0.05 < found["share"] < asha_share() + 0.15


def test_simulated_workers_share_the_epochs_and_wait_for_one_driver() -> None:
    alone, together = (simulate_search(gpus, 2.0, FREE, NOTHING, trials=60) for gpus in (1, 8))
    assert alone["trials"] / 8 < together["trials"] < alone["trials"] / 5
    # Epochs of no time: the driver is all there is.
    driven = simulate_search(8, 0.0, DRIVER, NOTHING, trials=60)
    assert driven["driver_share"] == pytest.approx(1)
    least = driven["epochs"] * DRIVER.report_of(8) + 60 * DRIVER.trial
    assert least < driven["trials"] < least + 60 * DRIVER.suggestion[1000]


def test_a_worker_compiles_each_width_once() -> None:
    plain, compiled = (
        simulate_search(1, 1.0, FREE, Assumed(0.0, 0.0, compile=seconds, between=0.0), trials=60)
        for seconds in (0.0, 7.0)
    )
    assert compiled["trials"] == pytest.approx(plain["trials"] + 3 * 7.0)


@pytest.mark.parametrize(("gpus", "waves", "used"), [(1, 12, 1), (8, 2, 8), (64, 1, 12)])
def test_a_sweep_runs_its_rows_in_waves(gpus: int, waves: int, used: int) -> None:
    found = sweep_seconds(gpus, 0.5, FREE, Assumed(3.0, 4.0, 5.0, between=0.0, lockstep=2.0))
    assert found["seconds"] == pytest.approx(12 + waves * 50 * 1.0)
    assert (found["waves"], found["used"]) == (waves, used)


def test_the_driver_is_saturated_where_its_time_for_all_reports_is_an_epochs() -> None:
    most = saturates_at(3.0, DRIVER, 0.5)
    assert most * driver_per_epoch(most, DRIVER, 0.5) >= 3.0
    assert (most - 1) * driver_per_epoch(most - 1, DRIVER, 0.5) < 3.0
    assert driver_per_epoch(512, DRIVER, 0.5) == pytest.approx(0.008 + (0.02 + 0.03) / 25)
    assert DRIVER.report_of(2000) == 0.008
    assert 0.004 < DRIVER.report_of(16) < 0.008
