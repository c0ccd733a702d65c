"""The table of a confirmation, and who is marked as the winner in the tables beside it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from rich.console import Console
from scipy import stats

from macil.data import FeatureStore
from macil.io.files import write_json_atomic
from tests.support.made_confirmations import APS, confirmed
from tests.support.run_folders import RunFolder
from tune.reporting.pages.terminal import print_ending
from tune.reporting.statistics.confirmation import confirmed_rows
from tune.reporting.tables.confirmation_table import confirmation_table
from tune.reporting.tables.run_tables import leaderboard_table
from tune.results.run import load_run


def test_a_configuration_that_lost_a_seed_stands_behind_whole_ones() -> None:
    rows = confirmed_rows(confirmed(failed="confirm/00007_seed1001"))
    assert [row.name for row in rows] == ["00004", "00000", "00007"]
    table = confirmation_table(confirmed(failed="confirm/00007_seed1001"))
    assert table is not None
    assert [row[1] for row in table.rows] == ["3/3", "3/3", "2/3, 1 failed"]


def test_the_difference_to_the_reference_has_the_interval_of_the_pairs() -> None:
    differences = np.subtract(APS["00007"], APS["00000"])
    low, high = stats.t.interval(0.95, 2, loc=differences.mean(), scale=stats.sem(differences))
    table = confirmation_table(confirmed(winner={"trial": "00007"}))
    assert table is not None
    cells = {row[0]: row[-1] for row in table.rows}
    assert cells["trial 00000 (reference)"] == "reference"
    assert cells["trial 00007 (winner)"] == f"+6.00 [{100 * low:+.2f}, {100 * high:+.2f}]"
    assert cells["trial 00004"].startswith("+1.00 [")
    assert table.marked == {0}


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
