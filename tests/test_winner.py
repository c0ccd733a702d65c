"""Who wins a search, and how a confirmation on fresh seeds changes that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from macil.config import TrialConfig
from macil.files import write_json_atomic
from tune.machine import Machine
from tune.plan import Options, Plan, resolve_plan
from tune.winner import NoWinnerError, candidates_to_confirm, choose_confirmed, choose_winner


def write(parent: Path, name: str, scores: list[float], *, failed: bool = False, **changes: Any) -> None:
    folder = parent / name
    folder.mkdir(parents=True)
    write_json_atomic(folder / "params.json", {**TrialConfig(**changes).to_dict(), "trial_id": name})
    best = [max(scores[: place + 1]) for place in range(len(scores))]
    lines = [
        json.dumps({"training_iteration": epoch, "selection_score": score})
        for epoch, score in enumerate(best, start=1)
    ]
    (folder / "result.json").write_text("\n".join(lines) + "\n")
    if failed:
        (folder / "error.txt").write_text("ValueError: broken\n")


def plan(**options: Any) -> Plan:
    return resolve_plan(Options(trials=5, **options), Machine(2, 0))


@pytest.fixture
def trials(tmp_path: Path) -> Path:
    write(tmp_path, "00000", [0.5, 0.6])
    write(tmp_path, "00001", [0.9, 0.8], ramp=0.2)
    write(tmp_path, "00002", [0.7, 0.9], ramp=0.3)
    write(tmp_path, "00003", [0.99], failed=True)
    write(tmp_path, "00004", [0.1, 0.65, 0.8], ramp=0.4)
    write(tmp_path, "lockstep_x", [1.0])
    return tmp_path


def test_the_best_score_wins_the_earlier_among_equals(trials: Path) -> None:
    winner = choose_winner(trials)
    assert (winner.candidate.name, winner.epoch, winner.candidate.score) == ("00001", 1, 0.9)
    assert winner.refit_config == TrialConfig(ramp=0.2, epochs=1)
    assert winner.to_dict() == {
        "trial": "00001",
        "selection_score": 0.9,
        "chosen_epoch": 1,
        "confirmed": None,
    }


def test_the_best_are_confirmed_and_the_papers_setting_beside_them(trials: Path) -> None:
    candidates, paper = candidates_to_confirm(trials, plan(confirm=2))
    assert ([one.name for one in candidates], paper) == (["00001", "00002", "00000"], "00000")
    everyone, paper = candidates_to_confirm(trials, plan(confirm=4))
    assert ([one.name for one in everyone], paper) == (["00001", "00002", "00004", "00000"], "00000")
    # A failed first trial, or a space without the paper's point: nothing to compare with.
    (trials / "00000" / "error.txt").write_text("ValueError: broken\n")
    assert candidates_to_confirm(trials, plan(confirm=2))[1] is None
    (trials / "00000" / "error.txt").unlink()
    without = plan(confirm=2, hyperparameters={"num_heads": 3, "hidden_dim": 129})
    assert candidates_to_confirm(trials, without)[1] == "00000"


def test_confirmation_may_overturn_the_search(trials: Path, tmp_path: Path) -> None:
    candidates, _ = candidates_to_confirm(trials, plan(confirm=2))
    confirm = tmp_path / "confirm"
    write(confirm, "00001_seed1000", [0.5, 0.6])
    write(confirm, "00001_seed1001", [0.7])
    write(confirm, "00002_seed1000", [0.6, 0.8, 0.7])
    write(confirm, "00002_seed1001", [0.9])
    # One of two failed: the other is no match for two.
    write(confirm, "00000_seed1000", [1.0])
    write(confirm, "00000_seed1001", [1.0], failed=True)
    winner = choose_confirmed(confirm, candidates)
    assert winner.candidate.name == "00002"
    assert winner.epoch == 1, "the lower of the two medians"
    assert winner.to_dict()["confirmed"] == {"mean": pytest.approx(0.85), "n": 2, "searched": 0.9}


def test_without_any_result_there_is_no_winner(tmp_path: Path) -> None:
    write(tmp_path / "trials", "00000", [0.5], failed=True)
    with pytest.raises(NoWinnerError, match="no trial has a result"):
        choose_winner(tmp_path / "trials")
    write(tmp_path / "trials", "00001", [0.5])
    candidates, _ = candidates_to_confirm(tmp_path / "trials", plan(confirm=1))
    write(tmp_path / "confirm", "00001_seed1000", [0.5], failed=True)
    with pytest.raises(NoWinnerError, match="no confirmation has a result"):
        choose_confirmed(tmp_path / "confirm", candidates)
