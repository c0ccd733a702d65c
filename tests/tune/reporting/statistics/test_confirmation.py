"""Confirmation on fresh seeds: who wins, how far the search's scores fell, and the paired difference to the paper."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from macil.data import FeatureStore
from macil.io.files import write_json_atomic
from tests.support.made_runs import made_info, made_results
from tests.support.run_folders import RunFolder
from tune.reporting.pages.run_page import run_page
from tune.reporting.pages.terminal import print_ending
from tune.reporting.statistics.confirmation import (
    against_reference,
    confirmation_table,
    confirmation_verdicts,
    confirmed_rows,
    leads,
)
from tune.reporting.statistics.outcome import find_outcome
from tune.reporting.tables.run_tables import leaderboard_table
from tune.reporting.text.run_facts import banners
from tune.results.run import RunResults, load_run, planned_confirmation

SEEDS = (1000, 1001, 1002)
# Trial -> searched score; score and AP by fresh seed.
SCORES = {
    "00000": (0.60, (0.61, 0.63, 0.59)),
    "00004": (0.90, (0.70, 0.74, 0.72)),
    "00007": (0.88, (0.80, 0.78, 0.82)),
}
APS = {"00000": (0.50, 0.54, 0.52), "00004": (0.51, 0.53, 0.55), "00007": (0.56, 0.58, 0.60)}
CONFIRM = {"rows": ["00004", "00007"], "reference": "00000", "seeds": list(SEEDS)}


def confirmed(*, failed: str | None = None, **info: Any) -> RunResults:
    rows: list[dict[str, Any]] = []
    for name, (searched, fresh) in SCORES.items():
        rows.append(
            {"trial_dir": f"trials/{name}", "selection_score": searched, "ap_trapezoid": 0.5, "ap": 0.5}
        )
        for seed, score, ap in zip(SEEDS, fresh, APS[name], strict=True):
            folder = f"confirm/{name}_seed{seed}"
            row = {
                "trial_dir": folder,
                "kind": "confirm",
                "row": name,
                "seed": seed,
                "selection_score": score,
            }
            row |= {
                "ap_trapezoid": ap,
                "ap": ap - 0.01,
                "status": "failed" if folder == failed else "finished",
            }
            rows.append(row)
    return made_results(rows, confirm=CONFIRM, **info)


def test_the_best_mean_over_fresh_seeds_stands_first_not_the_best_searched() -> None:
    rows = confirmed_rows(confirmed(winner={"trial": "00007"}))
    assert [row.name for row in rows] == ["00007", "00004", "00000"]
    assert [(row.winner, row.reference) for row in rows] == [(True, False), (False, False), (False, True)]
    assert rows[1].regression == pytest.approx(0.72 - 0.90)
    low, high = stats.t.interval(0.95, 2, loc=0.72, scale=stats.sem(SCORES["00004"][1]))
    mean = rows[1].estimate("selection_score")
    assert mean is not None
    assert (mean.mean, mean.low, mean.high) == pytest.approx((0.72, low, high))


def test_a_configuration_that_lost_a_seed_stands_behind_whole_ones() -> None:
    rows = confirmed_rows(confirmed(failed="confirm/00007_seed1001"))
    assert [row.name for row in rows] == ["00004", "00000", "00007"]
    table = confirmation_table(confirmed(failed="confirm/00007_seed1001"))
    assert table is not None
    assert [row[1] for row in table.rows] == ["3/3", "3/3", "2/3, 1 failed"]


def test_the_difference_to_the_paper_is_paired_on_the_same_seeds() -> None:
    found = against_reference(confirmed(), "00007", "ap_trapezoid")
    assert found is not None
    differences = np.subtract(APS["00007"], APS["00000"])
    low, high = stats.t.interval(0.95, 2, loc=differences.mean(), scale=stats.sem(differences))
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high))
    assert against_reference(confirmed(), "00000", "ap_trapezoid") is None
    table = confirmation_table(confirmed(winner={"trial": "00007"}))
    assert table is not None
    cells = {row[0]: row[-1] for row in table.rows}
    assert cells["trial 00000 (reference)"] == "reference"
    assert cells["trial 00007 (winner)"] == f"+6.00 [{100 * low:+.2f}, {100 * high:+.2f}]"
    assert cells["trial 00004"].startswith("+1.00 [")
    assert table.marked == {0}


def test_the_sentences_say_how_much_the_best_of_the_search_fell() -> None:
    text = " ".join(confirmation_verdicts(confirmed()))
    assert "The best searched score, 0.9000 (trial 00004, one seed), came to 0.7200 [" in text
    assert "0.1800 less" in text
    assert "this is how much" in text
    assert (
        "Trial 00007 has the best mean score on fresh seeds; in the search trial 00004 had the best score."
        in text
    )
    assert confirmation_verdicts(made_results([])) == []


def scores_of(fresh: dict[str, tuple[float, ...]], searched: float = 0.5) -> RunResults:
    """Two configurations with these scores on fresh seeds."""
    rows: list[dict[str, Any]] = []
    for name, scores in fresh.items():
        rows.append({"trial_dir": f"trials/{name}", "selection_score": searched})
        rows += [
            {"trial_dir": f"confirm/{name}_seed{seed}", "kind": "confirm", "row": name, "seed": seed,
             "selection_score": score, "status": "finished"}
            for seed, score in zip(SEEDS, scores, strict=False)
        ]  # fmt: skip
    seeds = SEEDS[: max(map(len, fresh.values()))]
    confirm = {"rows": list(fresh), "reference": None, "seeds": list(seeds)}
    best = max(fresh, key=lambda name: sum(fresh[name]))
    return made_results(rows, confirm=confirm, winner={"trial": best})


def test_a_score_that_rose_on_fresh_seeds_is_not_called_luck() -> None:
    text = confirmation_verdicts(scores_of({"00001": (0.6, 0.62, 0.61), "00002": (0.4, 0.41, 0.42)}))[0]
    assert text.endswith("on fresh seeds: 0.1100 more. The search did not flatter it.")
    level = confirmation_verdicts(scores_of({"00001": (0.5, 0.5, 0.5)}))[0]
    assert level.endswith("on fresh seeds: the same. The search did not flatter it.")


def test_a_lead_within_its_paired_interval_is_a_tie() -> None:
    near = scores_of({"00001": (0.60, 0.62, 0.61), "00002": (0.61, 0.60, 0.61)})
    text = confirmation_verdicts(near)[-1]
    assert "leads trial 00002 by +0.0033 [" in text
    assert text.endswith(
        "no evidence of a difference. A tie with trial 00002: the winner is that of the larger mean."
    )
    assert find_outcome(near).subject.endswith(
        "the best mean score on 3 fresh seeds (a tie with trial 00002)."
    )
    far = scores_of({"00001": (0.60, 0.62, 0.61), "00002": (0.50, 0.51, 0.52)})
    assert confirmation_verdicts(far)[-1].endswith("more than the noise between seeds.")
    assert "tie" not in find_outcome(far).subject


def test_every_configuration_that_is_not_told_from_the_first_is_tied_with_it() -> None:
    apart, noisy = (0.50, 0.51, 0.52), (0.70, 0.30, 0.45)
    results = scores_of({"00001": (0.60, 0.62, 0.61), "00002": apart, "00000": noisy})
    text = confirmation_verdicts(results)[-1]
    assert "leads trial 00002 by +0.1000 [" in text
    assert text.endswith(
        "more than the noise between seeds; no evidence of a difference to trial 00000. A tie with trial 00000: the "
        "winner is that of the larger mean."
    )
    assert "(a tie with trial 00000)" in find_outcome(results).subject
    both = scores_of({"00001": (0.60, 0.62, 0.61), "00002": (0.61, 0.60, 0.61), "00000": noisy})
    assert confirmation_verdicts(both)[-1].endswith(
        "no evidence of a difference, nor to trial 00000. A tie with trials 00002 and 00000: the winner is that of the "
        "largest mean."
    )


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_for_an_interval_decide_nothing(seeds: int) -> None:
    results = scores_of({"00001": (0.60, 0.62)[:seeds], "00002": (0.50, 0.51)[:seeds]})
    text = confirmation_verdicts(results)[-1]
    assert "no evidence" not in text
    assert text.endswith(
        "whether by more than the noise between seeds is not known. A tie with trial 00002: the winner is that of the "
        "larger mean."
    )


def test_the_best_searched_is_named_though_none_of_its_fresh_seeds_finished() -> None:
    results = confirmed(failed="confirm/00004_seed1000")
    rows = [
        {**row, "status": "failed"} if row["row"] == "00004" else row for row in results.trials.to_pylist()
    ]
    (text,) = confirmation_verdicts(made_results(rows, confirm=CONFIRM))
    assert "in the search trial 00004 had the best score" in text


def test_a_lead_over_a_configuration_that_lost_a_seed_is_not_counted() -> None:
    rows = confirmed_rows(confirmed(failed="confirm/00007_seed1001"))
    found = leads(confirmed(failed="confirm/00007_seed1001"))
    assert [row.name for row in rows] == ["00004", "00000", "00007"]
    assert [row.name for row, _ in found] == ["00000"]


def test_after_a_confirmation_every_table_marks_the_winner_not_the_best_searched() -> None:
    results = confirmed(winner={"trial": "00007"})
    board = leaderboard_table(results)
    assert board is not None
    names = [row[1] for row in board.rows]
    assert names == ["00004", "00007 (winner)", "00000"]
    assert board.marked == {1}
    console = Console(width=200, record=True, file=io.StringIO())
    print_ending(console, results)
    printed = console.export_text()
    assert "00007 (winner)" in printed
    assert "00004 (winner)" not in printed


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


def test_the_tables_beside_the_report_mark_every_training_of_the_winner(
    demo_store: FeatureStore, tmp_path: Any
) -> None:
    run = RunFolder(tmp_path / "run", demo_store, "heldout")
    run.begin(trials=2, confirm={"rows": ["00001"], "reference": None, "seeds": [9]})
    run.add("00000", epochs=1)
    run.add("00001", epochs=1, lambda_v2b=0.5)
    run.add("00001_seed9", kind="confirm", row="00001", epochs=1, seed=9)
    run.add("seed0", kind="refit", epochs=1, lambda_v2b=0.5)

    def marked() -> dict[str, bool | None]:
        return {row["trial_dir"]: row["winner"] for row in load_run(run.path).trials.to_pylist()}

    assert set(marked().values()) == {None}, "no winner is named yet"
    write_json_atomic(run.path / "run.json", {**run.info, "winner": {"trial": "00001"}})
    assert marked() == {
        "trials/00000": False,
        "trials/00001": True,
        "confirm/00001_seed9": True,
        "refit/seed0": True,
    }
