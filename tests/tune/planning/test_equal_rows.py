"""Rows of a sweep that are one training: trained once, shown in all of them, counted once."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from macil.config import TrialConfig
from macil.data.store.feature_store import FeatureStore
from macil.errors import UsageError
from macil.io.files import read_json, write_json_atomic
from tests.support.made_runs import Seeds, sweep_results
from tests.support.run_folders import RunFolder
from tune.execution.batches import trials_batch
from tune.planning.equal_rows import equal_rows, planned_equal_rows
from tune.planning.options import Options
from tune.planning.paper_sweeps import SWEEPS
from tune.planning.plan import Plan
from tune.planning.resolve import resolve_plan
from tune.planning.resources import Machine
from tune.reporting.pages.first_screen import answers
from tune.reporting.statistics.outcome import find_outcome
from tune.reporting.statistics.sweep_rows import measured_noise, sweep_rows
from tune.reporting.tables.reference_table import comparison_table
from tune.reporting.tables.run_tables import leaderboard_table
from tune.reporting.tables.sweep_table import sweep_table
from tune.reporting.text.sweep_verdict import verdicts
from tune.results.ranking import counted_trials
from tune.results.replay import find_trial
from tune.results.run import RunResults, load_run
from tune.results.run_info import usable_plan
from tune.results.trainings import standing_for
from tune.storage.run_folder import Workspace
from tune.storage.trial_names import folder_name, member_folders

TABLE4 = SWEEPS["table4"]
# What three epochs cannot tell apart: of r = 0.1 and of r = 0.3 all four Λ.
ALIKE = ("01 = 04 = 07 = 10", "02 = 05 = 08 = 11")
BASE = TrialConfig(epochs=3).to_dict()


def plan(**options: Any) -> Plan:
    return resolve_plan(
        Options(**{"sweep": "table4", "hyperparameters": {"epochs": 3}, **options}), Machine(2, 0)
    )


def table4(seeds: dict[str, Seeds], **own: Any) -> RunResults:
    """A sweep of table 4 over three epochs with trainings of the rows in `seeds`."""
    return sweep_results(
        {row.name: seeds.get(row.name, []) for row in TABLE4.rows},
        published={row.name: float(row.published_ap or 0) for row in TABLE4.rows},
        changes={row.name: dict(row.changes) for row in TABLE4.rows},
        **{"sweep": "table4", "reference": "10", "base": BASE, **own},
    )


# Means by row that order the six trainings so that tau over the twelve rows is 0.557.
MEANS = {"01": 55.0, "02": 50.0, "03": 51.0, "06": 54.0, "09": 52.0, "12": 53.0}
ONCE: dict[str, Seeds] = {name: [mean - 0.5, mean, mean + 0.5] for name, mean in MEANS.items()}


def test_rows_that_are_one_training_are_planned_once_and_the_plan_says_so() -> None:
    planned = plan(seeds=2)
    assert [row.name for row in planned.trained_rows] == ["01", "02", "03", "06", "09", "12"]
    assert (planned.trials, planned.tune_trials, planned.most_epochs) == (12, 12, 36)
    content = planned.model_dump(mode="json")
    assert content["trials"] == 12
    assert [row["trained_as"] for row in content["rows"]][9:] == ["01", "02", "12"]
    assert [" = ".join(each) for each in dict.fromkeys(planned_equal_rows(planned).values())][:2] == list(
        ALIKE
    )
    enough = plan(hyperparameters={"epochs": 12})
    assert enough.trials == len(enough.trained_rows) == 12


@pytest.mark.parametrize(
    ("options", "folders"),
    [
        ({}, ["01_seed0", "02_seed0", "03_seed0", "06_seed0", "09_seed0", "12_seed0"]),
        ({"lockstep": True}, [f"lockstep_{row}_seeds0-1" for row in ("01", "02", "03", "06", "09", "12")]),
    ],
)
def test_what_is_run_is_each_training_once_with_every_seed(
    options: dict[str, Any], folders: list[str], demo_store: FeatureStore, tmp_path: Path
) -> None:
    planned = plan(seeds=2).model_copy(update=options)
    batch = trials_batch(Workspace(tmp_path / "run"), planned, demo_store)
    names = [folder_name(point) for point in batch.points]
    assert names[: len(folders)] == folders
    assert batch.total == len(names) == len(set(names)) == planned.tune_trials
    assert sum(len(member_folders(point)) or 1 for point in batch.points) == planned.trials


def test_a_plan_that_does_not_record_it_is_read_by_the_same_rule() -> None:
    known = planned_equal_rows(plan())
    content = plan().model_dump(mode="json")
    for row in content["rows"]:
        del row["trained_as"]
    assert planned_equal_rows(usable_plan(content, [])) == known
    assert known == equal_rows(TrialConfig(epochs=3), ((row.name, row.changes) for row in TABLE4.rows))
    for damaged in ({**content, "base": None}, {**content, "base": {"epochs": "x"}}):
        assert all(len(rows) == 1 for rows in planned_equal_rows(usable_plan(damaged, [])).values())
    assert planned_equal_rows(usable_plan({}, [])) == {}


def test_a_training_is_shown_in_all_its_rows_and_n_does_not_grow() -> None:
    results = table4(ONCE)
    rows = {row.name: row for row in sweep_rows(results)}
    assert rows["10"].trials == rows["01"].trials != ()
    assert rows["10"].title == ALIKE[0]
    table = sweep_table(results)
    assert table is not None
    cells = {row[0]: row for row in table.rows}
    assert cells["10 (reference, as 01)"][4:6] == cells["01"][4:6] == ("3/3", "55.00 [53.76, 56.24]")
    assert "(as …): the same training as that row" in table.caption
    noise = measured_noise(list(rows.values()), "ap_trapezoid")
    assert noise is not None
    assert (noise.groups, noise.degrees) == (6, 12)
    pairs = comparison_table(results)
    assert pairs is not None
    assert [row[0] for row in pairs.rows] == [ALIKE[1], "03", "06", "09", "12"]
    what, best, better, _ = answers(results, find_outcome(results), {})
    assert "12 rows that are 6 trainings × 3 seeds" in what.messages[0]
    assert f"Row {ALIKE[0]}, the best of 6 trainings" in best.messages[0]
    running = dataclasses.replace(results, info=results.info.model_copy(update={"status": "running"}))
    _, best, _, _ = answers(running, find_outcome(running), {})
    assert f"Row {ALIKE[0]}, the best so far of 6 trainings" in best.messages[0]
    assert better.messages[0] == "The best row is the reference itself."
    text = " ".join(verdicts(results))
    assert "Of 5 other trainings" in text
    assert "is the first of 6 trainings" in text
    assert f"the same training in so many epochs: {'; '.join(ALIKE)}: trained once" in text


def test_holm_corrects_over_the_trainings_and_not_over_the_rows() -> None:
    reference = [60.0 + seed for seed in range(8)]
    seeds: dict[str, Seeds] = {"01": reference}
    seeds |= {
        name: [ap + 1 + 0.1 * seed for seed, ap in enumerate(reference)] for name in ("02", "03", "06", "09")
    }
    seeds["12"] = [ap + (-1) ** seed for seed, ap in enumerate(reference)]
    table = comparison_table(table4(seeds))
    assert table is not None
    assert "with Holm's correction over 5 rows" in table.caption
    assert table.rows[0][3] == f"{5 * 2 / 2**8:.2g}"


def tau_b(ours: list[float], published: list[float]) -> float:
    pairs = list(itertools.combinations(range(len(ours)), 2))
    first = [np.sign(ours[i] - ours[j]) for i, j in pairs]
    second = [np.sign(published[i] - published[j]) for i, j in pairs]
    return float(np.dot(first, second) / np.sqrt(np.count_nonzero(first) * np.count_nonzero(second)))


def test_the_p_of_kendall_permutes_the_trainings_and_not_the_rows() -> None:
    results = table4(ONCE)
    (verdict,) = [sentence for sentence in verdicts(results) if "the order of the" in sentence.lower()]
    groups = planned_equal_rows(results.plan)
    names = [row.name for row in TABLE4.rows]
    published = [float(row.published_ap or 0) for row in TABLE4.rows]
    trained = list(dict.fromkeys(rows[0] for rows in groups.values()))
    taus = []
    for order in itertools.permutations(MEANS[name] for name in trained):
        value = dict(zip(trained, order, strict=True))
        taus.append(tau_b([value[groups[name][0]] for name in names], published))
    found = tau_b([MEANS[groups[name][0]] for name in names], published)
    p = float(np.mean([abs(tau) >= abs(found) - 1e-12 for tau in taus]))
    independent = stats.kendalltau([MEANS[groups[name][0]] for name in names], published).pvalue
    assert (round(found, 2), round(p, 3), round(float(independent), 3)) == (0.56, 0.056, 0.018)
    assert verdict.startswith("The order of the 12 rows, which are 6 trainings, by our means")
    assert (
        "Kendall +0.56. Kendall's p, two-sided, is 0.056, from all orders of the 6 trainings: chance alone"
        in verdict
    )


def test_no_p_where_the_noise_was_not_measured_or_trainings_are_too_few() -> None:
    one = verdicts(table4({name: [mean] for name, mean in MEANS.items()}))
    assert "can be told from chance; --seeds 3 measures it" in one[0]
    (order,) = [sentence for sentence in one if "the order of the" in sentence.lower()]
    assert order.endswith("Kendall +0.56 (no p: how far seeds of a row differ was not measured).")
    few = table4({name: ONCE[name] for name in ("01", "02", "03", "06")})
    (order,) = [sentence for sentence in verdicts(few) if "the order of the" in sentence.lower()]
    assert order.endswith("(no p: it needs 5 different trainings, these are 4).")


def test_more_than_eight_trainings_are_permuted_at_random_and_that_is_reported() -> None:
    seeds: dict[str, Seeds] = {
        row.name: [float(row.published_ap or 0) - 20, float(row.published_ap or 0) - 19]
        for row in TABLE4.rows
    }
    results = table4(seeds, base=TrialConfig().to_dict())
    (order,) = [sentence for sentence in verdicts(results) if "the order of the" in sentence.lower()]
    assert "is about 5e-05, from 20,000 orders drawn at random" in order
    assert "by more than chance, which says nothing of any two rows" in order
    assert verdicts(results) == verdicts(results)


def test_trainings_that_an_earlier_version_made_apart_count_once() -> None:
    apart: dict[str, Seeds] = {
        row.name: list(ONCE[planned_equal_rows(plan())[row.name][0]]) for row in TABLE4.rows
    }
    apart["01"] = ["failed", *apart["01"][1:]]
    results, once = table4(apart), table4(ONCE)
    rows = {row.name: row for row in sweep_rows(results)}
    folders = [trial.trial_dir for trial in rows["07"].trials]
    assert folders == ["trials/01-1", "trials/01-2", "trials/04-0"], (
        "of the one that failed the next stands in"
    )
    noise = measured_noise(list(rows.values()), "ap_trapezoid")
    assert noise == measured_noise(sweep_rows(once), "ap_trapezoid")
    assert len(counted_trials(results)) == len(counted_trials(once)) == 18
    scored = [dataclasses.replace(row, selection_score=row.ap) for row in results.trial_rows]
    board = leaderboard_table(dataclasses.replace(results, trial_rows=scored))
    assert board is not None
    assert "Left out: 18 of 36 trainings, of rows that are the same as another." in board.caption
    (verdict,) = [
        sentence for sentence in verdicts(results) if "the same training in so many epochs" in sentence
    ]
    assert "they were trained apart, and are counted as the one training they are" in verdict
    assert set(standing_for(results.trial_rows, usable_plan({}, [])).values()) == {
        (row.name,) for row in TABLE4.rows
    }


def test_the_reference_may_be_any_row_of_its_training() -> None:
    results = table4(ONCE | {"03": [90.0, 90.5, 91.0]})
    better = answers(results, find_outcome(results), {})[2]
    assert better.small.startswith("Row 03 minus row 10, test AP")
    assert "picked as the best of 6" in better.messages[0]
    other = dataclasses.replace(results, plan=results.plan.model_copy(update={"reference": "none of them"}))
    assert comparison_table(other) is None


def test_the_tables_of_a_run_say_which_rows_a_training_is_of(
    demo_store: FeatureStore, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run", demo_store, "published").begin(sweep="own", trials=1)
    rows = [{"name": "one", "changes": {"lambda_v2b": 1.0}}, {"name": "two", "changes": {"lambda_v2b": 1.5}}]
    write_json_atomic(
        run.path / "plan.json",
        {**read_json(run.path / "plan.json"), "rows": rows, "base": BASE, "seeds": [0]},
    )
    run.add("one_seed0", row="one", epochs=1)
    (trial,) = load_run(run.path).trials.to_pylist()
    assert (trial["row"], trial["rows"]) == ("one", "one, two")
    folder, message = find_trial(run.path, "two_seed0")
    assert folder == run.path / "trials" / "one_seed0"
    assert message == "row two is the same training as row one, which is replayed: one_seed0"
    assert find_trial(run.path, "one_seed0") == (folder, "")
    with pytest.raises(UsageError, match="has no trial 'two_seed1'; it has one_seed0"):
        find_trial(run.path, "two_seed1")
