"""Who wins a search, and how a confirmation on fresh seeds changes that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from macil.config import TrialConfig
from macil.errors import DataError
from macil.io.files import write_json_atomic
from tests.support.made_confirmations import confirmed
from tune.planning.options import Options
from tune.planning.plan import Plan, write_plan
from tune.planning.resolve import resolve_plan
from tune.planning.resources import Machine
from tune.results.ranking import NoWinnerError, choose_confirmed, choose_to_confirm, choose_winner
from tune.results.run import RunResults, load_run


def write(run: Path, name: str, scores: list[float], *, failed: bool = False, **changes: Any) -> None:
    """A trial `00001`, or a confirmation `00001_seed1000`, that reached `scores`."""
    trial, _, seed = name.partition("_seed")
    folder = run / ("confirm" if seed else "trials") / name
    folder.mkdir(parents=True)
    config = TrialConfig(**changes, **({"seed": int(seed), "epochs": len(scores)} if seed else {}))
    row = trial if seed else None
    write_json_atomic(folder / "params.json", {**config.to_dict(), "row": row, "trial_id": name})
    lines = []
    for epoch in range(1, len(scores) + 1):
        best = max(scores[:epoch])
        report = {
            "training_iteration": epoch,
            "selection_score": best,
            "chosen_epoch": scores.index(best) + 1,
        }
        lines.append(json.dumps({**report, "done": epoch == len(scores)}))
    (folder / "result.json").write_text("\n".join(lines) + "\n")
    if failed:
        (folder / "error.txt").write_text("ValueError: broken\n")


def plan(**options: Any) -> Plan:
    return resolve_plan(Options(trials=5, **options), Machine(2, 0))


def begin(run: Path, plan: Plan, **info: Any) -> RunResults:
    content = {"format_version": 1, "status": "running", "protocol": "heldout", **info}
    write_json_atomic(run / "run.json", content)
    write_plan(run, plan)
    return load_run(run)


@pytest.fixture
def trials(tmp_path: Path) -> Path:
    write(tmp_path, "00000", [0.5, 0.6])
    write(tmp_path, "00001", [0.9, 0.8], ramp=0.2)
    write(tmp_path, "00002", [0.7, 0.9], ramp=0.3)
    write(tmp_path, "00003", [0.99], failed=True)
    write(tmp_path, "00004", [0.1, 0.65, 0.8], ramp=0.4)
    write(tmp_path, "lockstep_x", [1.0])
    return tmp_path


def test_the_winner_of_a_run_has_its_configuration_and_its_fresh_scores() -> None:
    named = {"trial": "00007", "chosen_epoch": 4, "confirmed": {"mean": 0.8, "n": 3}}
    winner = confirmed(winner=named).winner
    assert winner is not None
    assert (winner.name, winner.epochs, winner.confirmed) == ("00007", 4, (0.80, 0.78, 0.82))
    assert winner.refit_config == winner.config.replace(epochs=4)
    assert confirmed().winner is None, "none is named yet"
    with pytest.raises(DataError, match="does not exist"):
        winner.load()


def test_the_best_score_wins_the_earlier_among_equals(trials: Path) -> None:
    winner = choose_winner(begin(trials, plan()))
    assert (winner.name, winner.epochs, winner.score) == ("00001", 1, 0.9)
    assert winner.refit_config == TrialConfig(ramp=0.2, epochs=1)
    assert winner.recorded.model_dump() == {
        "trial": "00001",
        "selection_score": 0.9,
        "chosen_epoch": 1,
        "confirmed": None,
    }


def chosen(
    trials: Path, confirm: int, recorded: dict[str, Any] | None = None
) -> tuple[list[str], str | None]:
    found = choose_to_confirm(begin(trials, plan(confirm=confirm), confirm=recorded), confirm)
    reference = found.reference.name if found.reference else None
    return [trial.name for trial in found.candidates], reference


def test_the_best_are_confirmed_and_the_reference_beside_them(trials: Path) -> None:
    assert chosen(trials, 2) == (["00001", "00002", "00000"], "00000")
    assert chosen(trials, 4) == (["00001", "00002", "00004", "00000"], "00000")
    # A failed first trial, or a space without the paper's point: nothing to compare with.
    (trials / "trials/00000/error.txt").write_text("ValueError: broken\n")
    assert chosen(trials, 2)[1] is None
    (trials / "trials/00000/error.txt").unlink()
    without = plan(confirm=2, hyperparameters={"num_heads": 3, "hidden_dim": 129})
    assert choose_to_confirm(begin(trials, without), 2).reference is not None
    conditional = plan(confirm=2, search=("contrast=true,false", "momentum_epochs=10..50"))
    assert choose_to_confirm(begin(trials, conditional), 2).reference is not None
    outside = plan(confirm=2, search=("learning_rate=1e-3..1e-2:log",))
    assert choose_to_confirm(begin(trials, outside), 2).reference is None


def test_what_is_confirmed_are_different_trainings_not_the_same_suggestion_twice(trials: Path) -> None:
    write(trials, "00005", [0.85, 0.9], ramp=0.2)  # 00001 again
    # λ(t) = min(r t, Λ): in 50 epochs at r = 0.02 neither Λ is reached, so these two are one training.
    write(trials, "00006", [0.95], ramp=0.02, lambda_v2b=2.0, lambda_v2n=2.0)
    write(trials, "00007", [0.94], ramp=0.02, lambda_v2b=3.0, lambda_v2n=2.5)
    assert chosen(trials, 3) == (["00006", "00001", "00002", "00000"], "00000")
    assert chosen(trials, 5)[0] == ["00006", "00001", "00002", "00004", "00000"]


def test_the_reference_is_confirmed_once_when_a_trial_repeats_it(trials: Path) -> None:
    write(trials, "00005", [0.97])  # the first suggestion again, which got further
    assert chosen(trials, 2) == (["00005", "00001"], "00005")


def test_a_resumed_confirmation_goes_on_with_what_was_chosen(trials: Path) -> None:
    recorded = {"rows": ["00004", "00001"], "reference": "00000", "seeds": [1000]}
    assert chosen(trials, 3, recorded) == (["00004", "00001", "00000"], "00000")
    found = choose_to_confirm(load_run(trials), 3)
    assert found.recorded([1000]).model_dump(mode="json") == recorded


def test_confirmation_may_overturn_the_search(trials: Path) -> None:
    candidates = choose_to_confirm(begin(trials, plan()), 2).candidates
    write(trials, "00001_seed1000", [0.5, 0.6])
    write(trials, "00001_seed1001", [0.7])
    write(trials, "00002_seed1000", [0.6, 0.8, 0.7])
    write(trials, "00002_seed1001", [0.9])
    # One of two failed: the other is no match for two.
    write(trials, "00000_seed1000", [1.0])
    write(trials, "00000_seed1001", [1.0], failed=True)
    winner = choose_confirmed(load_run(trials), candidates)
    assert winner.name == "00002"
    assert winner.epochs == 1, "the lower of the two medians"
    assert winner.recorded.model_dump()["confirmed"] == {"mean": pytest.approx(0.85), "n": 2, "searched": 0.9}


def test_without_any_result_there_is_no_winner(tmp_path: Path) -> None:
    write(tmp_path, "00000", [0.5], failed=True)
    with pytest.raises(NoWinnerError, match="no trial has a result"):
        choose_winner(begin(tmp_path, plan()))
    write(tmp_path, "00001", [0.5])
    candidates = choose_to_confirm(load_run(tmp_path), 1).candidates
    write(tmp_path, "00001_seed1000", [0.5], failed=True)
    with pytest.raises(NoWinnerError, match="no confirmation has a result"):
        choose_confirmed(load_run(tmp_path), candidates)


@pytest.mark.parametrize("found", [None, -1, 3])
def test_a_winner_whose_log_does_not_say_its_epoch_is_refused_by_name(
    trials: Path, found: int | None
) -> None:
    log = trials / "trials/00002/result.json"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[1] |= {"selection_score": 0.95, "chosen_epoch": found}
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(DataError, match=rf"trials/00002/result\.json is damaged.*chosen_epoch is {found}"):
        choose_winner(begin(trials, plan()))
