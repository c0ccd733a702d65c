"""Test-label access: its log and what it gave stay when the report is deleted, also of runs of an earlier version."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from macil.data import FeatureStore
from macil.io.files import read_json, write_json_atomic
from macil.io.remote import Remote
from tests.support.run_folders import RunFolder
from tune.reporting.write import write_report
from tune.results.label_access import LabelAccess, move_older, open_labels, read_label_accesses
from tune.results.run import load_run
from tune.storage.location import RunLocation
from tune.storage.names import ACCESS_LOG, INTERVALS_FILE, MEASURED_FILE
from tune.storage.run_folder import Workspace, clear


@pytest.fixture(scope="module")
def reported(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A held-out search of one trial with its report; read only."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "search", demo_store, "heldout").begin(trials=1)
    folder.add("00000", epochs=1)
    write_report(folder.path, figures=False)
    return folder.path


@pytest.fixture
def run(reported: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(reported, tmp_path / "search"))


@pytest.fixture
def older(run: Path) -> Path:
    """The same as an earlier version left it."""
    for name in (ACCESS_LOG, MEASURED_FILE, INTERVALS_FILE):
        (run / name).rename(run / "report" / name)
    return run


def page(run: Path) -> str:
    write_report(run, figures=False)
    return (run / "report/report.md").read_text(encoding="utf-8")


def test_a_deleted_report_takes_no_access_and_no_number_with_it(run: Path) -> None:
    kept = {name: (run / name).read_bytes() for name in (ACCESS_LOG, MEASURED_FILE, INTERVALS_FILE)}
    shutil.rmtree(run / "report")
    assert load_run(run).trials["ap"].null_count == 0
    assert "opened once" in page(run)
    assert {name: (run / name).read_bytes() for name in kept} == kept
    (run / MEASURED_FILE).unlink()
    shutil.rmtree(run / "report")
    assert "opened 2 times" in page(run), "numbers that are lost need another access, which is not the first"


def test_an_older_run_keeps_its_accesses_and_numbers_and_is_moved_by_the_next_report(older: Path) -> None:
    before = load_run(older)
    assert before.trials["ap"].null_count == 0
    assert len(read_label_accesses(older, [])) == 1
    assert "opened once" in page(older)
    assert not any((older / "report" / name).exists() for name in (ACCESS_LOG, MEASURED_FILE, INTERVALS_FILE))
    shutil.rmtree(older / "report")
    assert "opened once" in page(older)
    assert load_run(older).trials.equals(before.trials)


def test_the_next_access_to_an_older_run_is_not_logged_as_the_first(
    older: Path, demo_store: FeatureStore
) -> None:
    opened = open_labels(load_run(older), demo_store)
    assert len(opened.label_accesses) == 2
    shutil.rmtree(older / "report")
    assert len(read_label_accesses(older, [])) == 2


def test_a_move_that_was_cut_short_counts_every_access_once(older: Path) -> None:
    shutil.copy(older / "report" / ACCESS_LOG, older / ACCESS_LOG)
    assert len(read_label_accesses(older, [])) == 1
    with (older / ACCESS_LOG).open("a") as log:
        log.write(json.dumps({"purpose": "report"}) + "\n")
    assert len(read_label_accesses(older, [])) == 2
    move_older(load_run(older).location)
    assert len(read_label_accesses(older, [])) == 2


def test_an_older_log_that_cannot_be_read_is_told_and_no_access_goes_unlogged(older: Path) -> None:
    (older / "report" / ACCESS_LOG).unlink()
    (older / "report" / ACCESS_LOG).mkdir()
    problems: list[str] = []
    assert read_label_accesses(older, problems) == [LabelAccess()]
    assert ACCESS_LOG in problems[0]
    (older / "report" / MEASURED_FILE).unlink()
    assert "no opening may go unlogged" in page(older)
    assert load_run(older).trials["ap"].null_count == 1


def test_a_new_run_of_the_name_begins_its_own_log(run: Path) -> None:
    clear(Workspace(run))
    assert list(run.iterdir()) == []


def test_an_access_is_in_the_bucket_before_a_label_is_read(
    run: Path, bucket: str, demo_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Remote(f"{bucket}/search")
    results = load_run(run)
    (run / ACCESS_LOG).unlink()
    read = FeatureStore.test_labels
    uploaded: list[bytes] = []

    def look(store: FeatureStore) -> object:
        uploaded.append(remote.read(ACCESS_LOG))
        return read(store)

    monkeypatch.setattr(FeatureStore, "test_labels", look)
    object.__setattr__(results, "found_at", RunLocation(run, remote.uri, remote))
    open_labels(results, demo_store)
    assert uploaded[0] == (run / ACCESS_LOG).read_bytes()


def test_an_interval_that_is_lost_reads_the_labels_again_which_is_logged(run: Path) -> None:
    kept = read_json(run / INTERVALS_FILE)
    (run / INTERVALS_FILE).unlink()
    text = page(run)
    assert "opened 2 times" in text
    assert "interval of trials/00000" in text
    assert read_json(run / INTERVALS_FILE) == kept
    assert "opened 2 times" in page(run)
    info = read_json(run / "run.json")
    write_json_atomic(run / "run.json", {**info, "data": str(run / "gone")})
    (run / INTERVALS_FILE).unlink()
    assert "opened 2 times" in page(run), "without the data nothing is read"


def test_chance_is_the_share_of_violent_frames_and_stands_beside_the_ap(
    run: Path, demo_store: FeatureStore
) -> None:
    chance = float(demo_store.test_labels().frame_labels.mean())
    assert load_run(run).chance == chance
    text = page(run)
    beside = f"(chance {100 * chance:.2f})"
    leaderboard = text.partition("## Leaderboard")[2]
    assert beside in text.partition("## Result")[0], "on the first screen"
    assert f"Test AP (%), chosen epoch {beside}" in leaderboard
    # Closed labels tell nothing, this neither.
    for name in (ACCESS_LOG, MEASURED_FILE, INTERVALS_FILE):
        (run / name).unlink()
    assert load_run(run).chance is None


def test_chance_of_a_published_run_is_recorded_or_read_again(
    demo_store: FeatureStore, tmp_path: Path
) -> None:
    chance = float(demo_store.test_labels().frame_labels.mean())
    folder = RunFolder(tmp_path / "published", demo_store, "published").begin(trials=1)
    folder.add("00000", epochs=1)
    assert load_run(folder.path).chance is None, "as an earlier version left it"
    assert f"(chance {100 * chance:.2f})" in page(folder.path)
    write_json_atomic(folder.path / "run.json", {**read_json(folder.path / "run.json"), "chance": 0.25})
    assert "(chance 25.00)" in page(folder.path)


def test_a_damaged_line_of_the_log_counts_and_stops_no_report(run: Path) -> None:
    with (run / ACCESS_LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps({"scores_hash": ["x"], "purpose": {}}) + "\n")
    assert "opened 2 times" in page(run)
    assert f"{ACCESS_LOG} line 2 is damaged" in page(run)
