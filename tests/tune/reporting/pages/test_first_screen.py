"""The first screen answers four questions, with the noise that belongs to each number, or says that it is not known."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest

from macil.config import TrialConfig
from tests.support.made_confirmations import CONFIRM, confirmed
from tests.support.made_runs import made_results, sweep_results
from tune.reporting.pages.blocks import Answer
from tune.reporting.pages.first_screen import answers
from tune.reporting.statistics.model_interval import ModelInterval
from tune.reporting.statistics.outcome import find_outcome
from tune.results.ranking import reference_trial
from tune.results.run import RunResults

PLAN = {"space": {"lambda_v2b": "0.25 to 4, logarithmic"}, "first": {"lambda_v2b": 1.5}, "rows": []}


def screen(results: RunResults, intervals: dict[str, ModelInterval] | None = None) -> tuple[Answer, ...]:
    return answers(results, find_outcome(results), intervals or {})


def search(**aps: float | None) -> RunResults:
    rows: list[dict[str, Any]] = [
        {
            "trial_dir": "trials/00000",
            "selection_score": 0.6,
            "ap_trapezoid": aps.get("first"),
            "lambda_v2b": 1.5,
        },
        {
            "trial_dir": "trials/00003",
            "selection_score": 0.7,
            "ap_trapezoid": aps.get("best"),
            "lambda_v2b": 0.5,
        },
    ]
    return made_results(rows, plan=PLAN, trials=2)


def lines(answer: Answer) -> list[tuple[str, str, str]]:
    return [(line.name, line.number, line.basis) for line in answer.lines]


def test_it_answers_what_was_run_the_winner_better_and_the_command() -> None:
    what, winner, better, again = screen(replace(search(first=0.50, best=0.53), chance=0.287))
    assert "Search over Λ_v2b: 2 trials of 3 epochs" in what.messages[0]
    assert "protocol heldout" in what.messages[0]
    each = "one seed, 80 % of the videos"
    assert lines(winner) == [
        ("Winner: trial 00003", "53.00 % (chance 28.70)", each),
        ("Reference: trial 00000", "50.00 % (chance 28.70)", each),
    ]
    assert "protocol heldout; chosen epoch" in winner.small
    assert "lambda_v2b 0.5" in winner.messages[0]
    assert better.question == "Better than the reference?"
    assert better.number == "+3.00 points"
    assert "noise between seeds was not measured" in better.messages[0]
    assert "a search with --confirm 2 measures it" in better.messages[0], (
        "of two trials no three can be confirmed"
    )
    assert f"{each}, each" in better.small
    assert "epochs 3 (paper: 50)" in better.small
    assert shlex.split(again.command)[-3:] == ["--replay", "nowhere", "00003"]


def test_closed_labels_leave_the_selection_score_and_print_no_ap() -> None:
    _, winner, better, _ = screen(search())
    assert [line.number for line in winner.lines] == ["selection score 0.7000", "selection score 0.6000"]
    assert better.number == "+0.1000 of selection score"


def test_the_papers_setting_is_called_that_where_it_is_the_papers() -> None:
    trials = [{**row, **TrialConfig().to_dict(), "lambda_v2b": row["lambda_v2b"]} for row in
              search(first=0.50, best=0.53).trials.to_pylist()]  # fmt: skip
    _, winner, better, _ = screen(made_results(trials, plan=PLAN))
    assert winner.lines[1].name == "Paper's setting: trial 00000"
    assert better.question == "Better than the paper's setting?"


def refitted(ap: float | None, **changes: Any) -> RunResults:
    rows = search(first=0.50, best=0.53).trials.to_pylist()
    refit = {
        "trial_dir": "refit/seed0",
        "kind": "refit",
        "status": "refit",
        "protocol": "refit",
        "epoch_rule": "last",
        "ap_trapezoid": ap,
    }
    return made_results([*rows, {**refit, **changes}], plan=PLAN, winner={"trial": "00003"})


@pytest.mark.parametrize(
    ("ap", "message"),
    [
        (
            0.51,
            "it lost 2.00 points against trial 00003 in the search (53.00 %), which it repeats on more videos",
        ),
        (0.56, "3.00 points more than trial 00003 in the search (53.00 %), which it repeats on more videos"),
    ],
)
def test_the_refit_stands_apart_with_its_difference_to_the_trial_that_it_repeats(
    ap: float, message: str
) -> None:
    interval = ModelInterval("x", (0.4, 0.6), (0.45, 0.58), 40, 1000)
    _, winner, better, again = screen(refitted(ap), {"refit/seed0": interval})
    compared, model = lines(winner)[:2], lines(winner)[2]
    assert [number for _, number, _ in compared] == ["53.00 %", "50.00 %"], "trainings of one kind"
    assert model[0] == "model.pt: the winner trained again"
    assert model[1] == f"{100 * ap:.2f} [45.00, 58.00] %"
    basis = "one seed, all training videos, last epoch [95 % bootstrap interval over the 40 test videos]"
    assert model[2] == f"{basis}; {message}"
    assert better.number == "+3.00 points", "of the trials, not of the refit"
    assert again.command.endswith("refit/seed0")


def test_a_refit_whose_labels_are_closed_has_no_ap() -> None:
    assert lines(screen(refitted(None))[1])[2] == (
        "model.pt: the winner trained again", "test AP not measured", "one seed, all training videos, last epoch",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("winner", "number", "verdict"),
    [
        ("00007", "+6.00 [+1.03, +10.97] points", "Yes"),
        ("00004", "+1.00 [", "No evidence of a difference: the interval holds zero"),
    ],
)
def test_a_confirmation_decides_by_paired_differences(winner: str, number: str, verdict: str) -> None:
    found, better = screen(confirmed(winner={"trial": winner}))[1:3]
    assert better.number.startswith(number)
    assert better.messages[0].startswith(verdict)
    assert "paired over 3 fresh seeds" in better.small
    assert [basis for _, _, basis in lines(found)] == ["3 fresh seeds, 80 % of the videos"] * 2
    assert all("[" in number for _, number, _ in lines(found)), "means of the fresh seeds, not the trials"


def test_a_confirmation_under_way_is_not_final_and_names_no_winner() -> None:
    _, best, better, _ = screen(confirmed(failed="confirm/00004_seed1001", status="interrupted"))
    assert best.question == "Best trial so far"
    assert better.messages[-1] == "Not final: fresh seeds are missing, 1 in all."
    assert better.small.startswith("Points of test AP, trial 00004 minus trial 00000")


def test_before_the_end_nothing_is_reported_of_a_winner_and_of_an_ap_that_is_not_shown() -> None:
    rows = search(first=None, best=None).trials.to_pylist()[:1]
    _, best, better, _ = screen(made_results(rows, plan=PLAN, status="interrupted"))
    assert better.messages == (
        "The best trial so far is the reference itself: the search found nothing better on held-out videos.",
    )
    assert best.small == "Selection score: best held-out score; protocol heldout"


def test_a_winner_that_is_the_reference_is_called_that() -> None:
    _, winner, better, _ = screen(confirmed(winner={"trial": "00000"}))
    (line,) = winner.lines
    assert line.name == "Winner, the reference: trial 00000"
    assert better.messages == (
        "The winner is the reference itself: the search found nothing better on held-out videos and fresh seeds.",
    )


def test_a_search_that_selects_by_the_test_ap_says_so() -> None:
    changes = {"protocol": "published", "epoch_rule": "last"}
    rows = [{**row, **changes} for row in search(first=0.5, best=0.53).trials.to_pylist()]
    _, winner, better, _ = screen(made_results(rows[:1], plan=PLAN, protocol="published"))
    assert better.messages[0].endswith("found nothing better by the test AP, its selection metric.")
    assert winner.lines[0].basis == "one seed, all training videos"
    assert "the best by selection score, which is its best test AP: it flatters." in winner.messages[0]


def test_a_winner_picked_by_the_test_ap_of_its_fresh_seeds_has_a_reserve_and_its_model_a_line() -> None:
    changes = {"protocol": "published", "epoch_rule": "last"}
    rows = [{**row, **changes} for row in confirmed().trials.to_pylist()]
    info: dict[str, Any] = {"confirm": CONFIRM, "winner": {"trial": "00007"}, "protocol": "published"}
    _, winner, better, _ = screen(made_results(rows, **info))
    assert better.messages[0].startswith("Yes")
    assert "picked as the best of 3 by the test AP of these trainings" in better.messages[0]
    assert "picked" not in screen(confirmed(winner={"trial": "00007"}))[2].messages[0], "by held-out videos"
    assert lines(winner)[0][:2] == ("Winner: trial 00007", "58.00 [53.03, 62.97] %")
    name, number, basis = lines(winner)[-1]
    assert name == "model.pt: trial 00007 in the search"
    assert (number, basis) == ("50.00 %", "one seed, all training videos, last epoch")
    assert "its training in the search is the run's result" in winner.messages[0]


def test_a_row_is_not_the_papers_setting_for_being_called_so() -> None:
    rows = {"as-in-the-paper": [80.0], "other": [81.0]}
    results = sweep_results(rows, reference="as-in-the-paper", changes={"other": {"ramp": 3.0}})
    assert screen(results)[2].question == "Better than the reference row?"


def test_a_search_without_the_papers_values_has_no_reference() -> None:
    results = search(first=0.5, best=0.53)
    assert reference_trial(results) is not None
    elsewhere = made_results(results.trials.to_pylist(), plan={**PLAN, "first": {"lambda_v2b": 9.0}})
    assert reference_trial(elsewhere) is None
    assert "no trial of this search has the paper's values" in screen(elsewhere)[2].messages[0]


def test_an_empty_run_answers_that_nothing_is_known() -> None:
    what, result, better, again = screen(made_results([], trials=3))
    assert "3 trials" in what.messages[0]
    assert result.messages == ("No trial has a selection score yet.",)
    assert better.messages == ("Not known yet.",)
    assert again.messages == ("No trial has a result to replay yet.",)


def sweep(aps: dict[str, tuple[float, ...]], **plan: Any) -> RunResults:
    rows = [
        {"trial_dir": f"trials/{name}_seed{seed}", "row": name, "seed": seed, "ap_trapezoid": ap, "ap": ap,
         "ap_trapezoid_best": ap, "best_epoch": 3, "selection_score": ap}
        for name, values in aps.items()
        for seed, ap in enumerate(values)
    ]  # fmt: skip
    names: list[dict[str, Any]] = [
        {"name": name, "changes": {}, "published_ap": None, "source": None} for name in aps
    ]
    whole = {"sweep": "table3", "rows": names, "reference": "full", "seeds": [0, 1, 2], **plan}
    return made_results(rows, plan=whole, protocol="published", sweep="table3")


def test_a_sweep_shows_its_best_row_against_the_reference_on_the_same_seeds() -> None:
    results = sweep({"light": (0.80, 0.82, 0.84), "full": (0.70, 0.72, 0.74)})
    what, best, better, again = screen(results)
    assert "2 rows × 3 seeds" in what.messages[0]
    assert best.number.startswith("AP 82.00 [")
    assert "chosen on the test set" in best.messages[0]
    assert better.number == "+10.00 [+10.00, +10.00] points"
    assert better.messages[0].startswith("Yes")
    assert "picked as the best of 2" in better.messages[0]
    assert again.command.endswith(" light_seed0")


def test_a_sweep_of_one_seed_measures_no_noise() -> None:
    better = screen(sweep({"light": (0.80,), "full": (0.70,)}))[2]
    assert better.number == "+10.00 points"
    assert "one seed a row measures no noise" in better.messages[0]


def test_a_sweep_whose_reference_is_best_or_missing_says_so() -> None:
    assert "reference itself" in screen(sweep({"light": (0.6, 0.6), "full": (0.7, 0.71)}))[2].messages[0]
    assert "names no reference" in screen(sweep({"light": (0.6, 0.6)}, reference=None))[2].messages[0]


def test_a_published_confirmation_says_that_the_same_numbers_chose_and_shows_the_model_apart() -> None:
    rows = [
        {**row, "protocol": "published", "epoch_rule": "last", "selection_score": row["ap_trapezoid"]}
        for row in confirmed().trials.to_pylist()
    ]
    results = made_results(rows, protocol="published", confirm=CONFIRM, winner={"trial": "00007"})
    _, winner, better, _ = screen(results)
    assert better.messages[0].startswith("Yes")
    assert "picked as the best of 3 by the test AP of these trainings" in better.messages[0]
    assert winner.lines[-1].name == "model.pt: trial 00007 in the search"
    assert winner.lines[-1].basis == "one seed, all training videos, last epoch"
    assert "its training in the search is the run's result" in winner.messages[0]
    assert "picked" not in screen(confirmed(winner={"trial": "00007"}))[2].messages[0]
