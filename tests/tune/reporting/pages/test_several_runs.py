"""Several runs side by side: what may be compared, the reason where it may not, and one bad run among good ones."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from scipy import stats

from macil.commands import cli
from macil.data import FeatureStore
from macil.io.files import write_json_atomic
from tests.support.made_runs import made_plan, made_results
from tests.support.run_folders import RunFolder
from tune.commands.report import report as command
from tune.reporting.figures.several_runs import intervals
from tune.reporting.pages.several_runs import comparison_folder, comparison_page
from tune.reporting.statistics.comparability import incomparable, verdict
from tune.reporting.tables.several_runs import name_runs, rows_tables, runs_table
from tune.reporting.write import write_reports
from tune.results.run import RunResults

SAME = {"store_hash": "a" * 32, "labels_hash": "b" * 32, "epoch_rule": "last", "sweep": "table3"}


def sweep(path: str, aps: Mapping[str, tuple[float, ...]], **info: Any) -> RunResults:
    rows = [
        {"trial_dir": f"trials/{name}_seed{seed}", "row": name, "seed": seed, "ap_trapezoid": ap, "ap": ap}
        for name, values in aps.items()
        for seed, ap in enumerate(values)
    ]
    plan = {"sweep": "table3", "rows": [], "reference": "full", "seeds": [0, 1, 2]}
    return made_results(
        rows, plan=plan, path=Path(path), **{**SAME, "protocol": "published", "name": Path(path).name, **info}
    )


ONE = {"light": (0.80, 0.82, 0.84), "full": (0.70, 0.72, 0.74)}
TWO = {"light": (0.81, 0.85, 0.86), "full": (0.70, 0.71, 0.72), "plain": (0.5, 0.5, 0.6)}


@pytest.fixture(scope="module")
def runs(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with two small runs, the second published; read only."""
    storage = tmp_path_factory.mktemp("storage")
    first = RunFolder(storage / "first", demo_store, "heldout").begin(trials=1)
    first.add("00000", epochs=1)
    second = RunFolder(storage / "second", demo_store, "published").begin(trials=1)
    second.add("00000", epochs=1)
    (storage / "broken").mkdir()
    (storage / "broken" / "run.json").write_text('{"format_version": 99}')
    return storage


@pytest.fixture
def storage(runs: Path, tmp_path: Path) -> Path:
    """The same, to be reported."""
    return Path(shutil.copytree(runs, tmp_path / "storage"))


def test_equal_runs_may_be_compared_and_every_difference_is_named() -> None:
    one, two = sweep("x/one", ONE), sweep("x/two", TWO)
    assert incomparable({"one": one, "two": two}) == []
    assert verdict([]).startswith("Test APs, yes")
    for changes, message in (
        (
            {"store_hash": "c" * 32},
            "they differ in their training and test data (one aaaaaaaa, two cccccccc)",
        ),
        ({"labels_hash": "c" * 32}, "they differ in their test labels"),
        ({"protocol": "heldout"}, "they differ in their protocol (one published, two heldout)"),
        ({"epoch_rule": "chosen"}, "they differ in their epoch rule"),
        ({"demo": True}, "demo data in two"),
    ):
        reasons = incomparable({"one": one, "two": sweep("x/two", TWO, **changes)})
        assert any(message in reason for reason in reasons), changes
        assert verdict(reasons).startswith("No")
    reasons = incomparable({"one": one, "two": sweep("x/two", TWO, labels_hash=None)})
    assert reasons == ["Not known to be comparable: the test labels of two is not recorded."]
    assert verdict(reasons).startswith("Not known")


def test_rows_of_equal_sweeps_stand_side_by_side_with_paired_differences() -> None:
    compared = name_runs([sweep("x/one", ONE), sweep("x/two", TWO)])
    (table,) = rows_tables(compared)
    cells = {row[0]: row[1:] for row in table.rows}
    assert list(cells) == ["light", "full", "plain"]
    differences = 100 * np.subtract(TWO["light"], ONE["light"])
    low, high = stats.t.interval(0.95, 2, loc=differences.mean(), scale=stats.sem(differences))
    assert cells["light"][-1] == f"{differences.mean():+.2f} [{low:+.2f}, {high:+.2f}]".replace("-", "−")
    assert cells["plain"][0] == "—"
    assert cells["plain"][-1] == "—"
    assert rows_tables(compared[:1]) == []


def test_runs_are_columns_and_names_tell_them_apart() -> None:
    compared = name_runs([sweep("x/one", ONE), sweep("y/one", TWO)])
    table = runs_table(compared)
    assert [column.title for column in table.columns] == ["Run", "x/one", "y/one"]
    lines = {row[0]: row[1:] for row in table.rows}
    assert lines["Test AP (%), trapezoidal"][0].startswith("82.00 [")
    assert lines["Interval"] == ("t, over 3 seeds", "t, over 3 seeds")
    assert lines["Winner minus reference"][0].startswith("+10.00 [+10.00, +10.00] points – Yes")
    (marked,) = table.marked
    assert table.rows[marked][0] == "Test AP (%), trapezoidal"


def test_the_folder_is_named_after_the_runs_and_never_too_long() -> None:
    assert comparison_folder([sweep("x/one", ONE), sweep("y/two", TWO)]) == Path("x/comparison-one+two")
    many = [sweep(f"x/{'n' * 90}{number}", ONE) for number in range(3)]
    other = [sweep(f"x/{'n' * 90}{number}", ONE) for number in range(4)]
    assert len(comparison_folder(many).name) < 120
    assert comparison_folder(many) != comparison_folder(other)


def test_an_interval_figure_shows_every_series_whole_and_nothing_is_not_drawn() -> None:
    compared = name_runs([sweep("x/one", ONE), sweep("x/two", TWO)])
    figures = [each.headline for each in compared]
    figure = intervals(["one", "two"], [("", figures)], "AP")
    assert figure is not None
    low, high = figure.axes[0].get_xlim()
    ends = [100 * end for each in figures if each for end in (each.low or 0.0, each.high or 0.0)]
    assert low < min(ends)
    assert high > max(ends)
    assert intervals(["one"], [("", [None])], "AP") is None


def test_one_unreadable_run_is_listed_and_the_others_are_reported(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(command, ["first", "broken", "second", "first", "--storage", str(storage), "--no-figures"])
    assert stop.value.code == 1
    printed = capsys.readouterr()
    assert "error: broken: " in printed.err
    assert "format_version 99" in printed.err
    folder = storage / "comparison-first+second"
    assert str(folder / "comparison.html") in printed.out
    page, text = ((folder / name).read_text() for name in ("comparison.html", "comparison.md"))
    for content in (page, text):
        assert "Not comparable: they differ in their protocol (first heldout, second published)." in content
        assert "broken could not be read" in content
        assert "Demo data, made up" in content
    assert "<script" not in page
    assert page.index("Not comparable") < page.index("<h2")
    table = pyarrow.parquet.read_table(folder / "trials.parquet")
    assert table.column_names[0] == "run"
    assert table["run"].to_pylist() == ["first", "second"]
    assert pyarrow.csv.read_csv(folder / "trials.csv").num_rows == 2
    assert {path.name for path in folder.iterdir()} >= {"runs.png", "runs.svg"}
    for name in ("first", "second"):
        assert (storage / name / "report" / "report.html").exists()


def test_without_figures_a_report_that_a_run_has_is_left_as_it_is(storage: Path) -> None:
    (storage / "first" / "report").mkdir()
    (storage / "first" / "report" / "report.html").write_text("with figures")
    paths, comparison, unread = write_reports(["first", "second"], storage, figures=False)
    assert unread == []
    assert comparison is not None
    assert paths == [storage / name / "report" / "report.html" for name in ("first", "second")]
    assert paths[0].read_text() == "with figures"
    assert [path.name for path in paths[0].parent.iterdir()] == ["report.html"]
    assert "<h2" in paths[1].read_text(), "there was none"
    assert pyarrow.parquet.read_table(comparison.with_name("trials.parquet")).num_rows == 2


def test_no_readable_run_at_all_is_an_error_and_out_is_obeyed(storage: Path, tmp_path: Path) -> None:
    paths, comparison, unread = write_reports(["gone", "broken"], storage, figures=False)
    assert (paths, comparison, [name for name, _ in unread]) == ([], None, ["gone", "broken"])
    write_json_atomic(storage / "second" / "run.json", {"format_version": 1, "status": "failed"})
    out = tmp_path / "deep" / "out"
    _, comparison, unread = write_reports(["first", "second"], storage, out=out, figures=False)
    assert (comparison, unread) == (out / "comparison.html", [])
    assert "second is failed: its numbers are partial." in (out / "comparison.md").read_text()
    (tmp_path / "file").write_text("")
    arguments = ["first", "second", "--storage", str(storage), "--no-figures"]
    with pytest.raises(SystemExit) as stop:
        cli.main(command, [*arguments, "--out", str(tmp_path / "file")])
    assert stop.value.code == 2
    with pytest.raises(SystemExit) as stop:
        cli.main(command, ["first", "--storage", str(storage), "--out", str(out)])
    assert stop.value.code == 2


def test_chance_stands_beside_each_result(tmp_path: Path) -> None:
    runs = [replace(sweep("x/one", ONE), chance=0.287), sweep("x/two", TWO)]
    first, second = comparison_page(name_runs(runs), [], tmp_path).answers[1].messages
    assert "% (chance 28.70). Row light" in first
    assert "chance" not in second, "it is not known"


def test_rows_that_share_a_name_but_not_their_values_are_told() -> None:
    runs = [sweep("x/one", ONE), sweep("x/two", TWO)]
    assert "By the same name" not in rows_tables(name_runs(runs))[0].caption
    runs = [
        replace(run, plan=made_plan(rows=[{"name": "light", "changes": {"ramp": ramp}}]))
        for run, ramp in zip(runs, (0.1, 0.3), strict=True)
    ]
    (table,) = rows_tables(name_runs(runs))
    assert "By the same name, but with other values in these runs: row light." in table.caption
