"""A run that is gone on with otherwise than it was begun: extended, ended early, ended by time."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from macil.data.store.feature_store import FeatureStore
from macil.training.checkpoint import load_checkpoint
from tests.support.promise import digits, rows
from tests.support.search_command import SMALL, info, lines_of, search_here, start, stop_when
from tune.results.ranking import fresh_trainings
from tune.results.run import load_run
from tune.storage.decisions import read_decisions

SEARCH = [*SMALL, "--epochs", "3", "--grace", "1", "--concurrent", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("course")


def trials(run: Path) -> dict[str, Any]:
    """The digits of a run's trials, without its refit."""
    return {name: lines for name, lines in digits(run).items() if name.startswith("trials/")}


def search(folder: Path, *arguments: str) -> str:
    code, output = search_here(*arguments, cwd=folder)
    assert code == 0, output
    return output


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_six_trials_and_then_six_more_are_twelve(folder: Path, demo_store: FeatureStore) -> None:
    data = ["--data", str(demo_store.path)]
    search(folder, *data, *SEARCH, "--trials", "12", "--no-report", "--name", "twelve")
    search(folder, *data, *SEARCH, "--trials", "6", "--no-report", "--name", "six")
    first = info(folder / "runs/six")["winner"]
    output = search(folder, "--resume", "six", "--trials", "12", "--no-report")
    assert "6 finished" in output
    twelve, six = folder / "runs/twelve", folder / "runs/six"
    assert trials(six) == trials(twelve)
    assert digits(six)["refit/of12_seed0"] == digits(twelve)["refit/seed0"]
    assert rows(six) == rows(twelve)
    assert info(six)["winner"] == info(twelve)["winner"]
    assert first["selection_score"] <= info(six)["winner"]["selection_score"]
    (decision,) = read_decisions(six)
    assert (decision.kind, decision.flag, decision.trials, decision.opened) == (
        "extend",
        "--trials 12",
        12,
        False,
    )
    refits = [row for row in load_run(six).trial_rows if row.kind == "refit"]
    assert [row.row for row in refits] == ["of12"]
    assert load_checkpoint(six / "model.pt")["epoch"] == info(six)["winner"]["chosen_epoch"]
    code, output = search_here("--resume", "six", "--trials", "7", cwd=folder)
    assert code == 2
    assert "--trials 7: the run has 12 trials; give a larger number" in output


@pytest.mark.ray
@pytest.mark.nightly
@pytest.mark.usefixtures("shared_ray")
def test_a_search_that_is_extended_after_its_labels_were_opened_confirms_on_other_seeds_and_says_so(
    folder: Path, demo_store: FeatureStore
) -> None:
    run = folder / "runs/opened"
    confirmed = ["--trials", "4", "--confirm", "1", "--confirm-seeds", "2"]
    search(folder, "--data", str(demo_store.path), *SEARCH, *confirmed, "--name", "opened")
    before = info(run)["confirm"]["seeds"]
    output = search(folder, "--resume", "opened", "--trials", "5")
    sentence = "after test labels had been opened: a choice that test numbers may have led to."
    assert sentence in output
    after = info(run)["confirm"]["seeds"]
    assert len(after) == 2
    assert min(after) > max(before)
    results = load_run(run)
    assert results.decisions[0].opened
    named = info(run)["confirm"]["rows"][0]
    assert [row.seed for row in fresh_trainings(results.trial_rows, named)] == after
    assert sum(row.kind == "search" for row in results.trial_rows) == 5
    for page in ("report.html", "report.md"):
        assert (run / "report" / page).read_text().count(sentence) >= 2, "first screen and table"


@pytest.mark.ray
@pytest.mark.nightly
@pytest.mark.usefixtures("shared_ray")
def test_a_run_that_was_killed_is_finished_with_what_there_is_and_may_still_go_on(
    folder: Path, demo_store: FeatureStore
) -> None:
    run = folder / "runs/ended"
    begin = ["--data", str(demo_store.path), *SEARCH, "--trials", "6", "--no-report", "--name", "ended"]
    command = start(*begin, cwd=folder)
    stop_when(command, lambda: bool(lines_of(run / "trials/00002/result.json")), signal.SIGKILL, group=False)
    command.process.wait()
    output = search(folder, "--resume", "ended", "--finish", "--no-report")
    assert "--finish ended the trials" in output
    assert (info(run)["status"], info(run)["phase"]) == ("finished", "report")
    assert (run / "model.pt").is_file()
    results = load_run(run)
    assert {row.status for row in results.trial_rows} <= {"finished", "stopped", "refit"}
    begun = sum(row.kind == "search" for row in results.trial_rows)
    assert 2 <= begun < 6
    assert not [problem for problem in results.problems if "not started" in problem]
    assert "have ended already" in search(folder, "--resume", "ended", "--finish", "--no-report")
    search(folder, "--resume", "ended", "--trials", "6", "--no-report")
    search(folder, *begin[:-1], "whole")
    assert trials(run) == trials(folder / "runs/whole")
    assert rows(run) == rows(folder / "runs/whole")
    assert [decision.kind for decision in read_decisions(run)] == ["end", "extend"]


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_hours_end_the_trials_when_the_rest_of_the_time_is_needed(
    folder: Path, demo_store: FeatureStore
) -> None:
    """A time that is over at once: one score is waited for, since a run must name something."""
    begin = ["--data", str(demo_store.path), *SEARCH, "--trials", "50", "--hours", "0.001", "--no-report"]
    output = search(folder, *begin, "--name", "hours")
    assert "--hours 0.001 ended the trials" in output
    run = folder / "runs/hours"
    assert info(run)["status"] == "finished"
    assert sum(row.kind == "search" for row in load_run(run).trial_rows) < 5
    assert info(run)["winner"]["trial"] == "00000"


def test_what_cannot_be_ended_or_extended_is_refused_in_one_line(folder: Path) -> None:
    for arguments, reason in (
        (["--finish"], "--finish ends a run that was begun; give --resume NAME too"),
        (
            ["--resume", "x", "--finish", "--trials", "9"],
            "--finish begins no more trials; leave out --trials and --hours",
        ),
        (["--hours", "0"], "--hours 0 is not allowed: expected a number above 0"),
    ):
        code, output = search_here(*arguments, cwd=folder)
        assert (code, output.strip().count("\n")) == (2, 0), output
        assert reason in output
