from __future__ import annotations

import json
from pathlib import Path

import pytest

from macil.errors import DataError
from tune.snapshots import cut_log, roll_back, write_snapshot


def log(folder: Path, epochs: list[int]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "result.json"
    file.write_text(
        "".join(json.dumps({"training_iteration": epoch, "n": n}) + "\n" for n, epoch in enumerate(epochs))
    )
    return file


def epochs_in(file: Path) -> list[int]:
    return [json.loads(line)["training_iteration"] for line in file.read_text().splitlines()]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose snapshot was taken when trial a had reported 2 epochs and the journal had 10 bytes."""
    staging = tmp_path / "staging"
    staging.mkdir()
    for name in ("experiment_state-2.json", "searcher-state-2.pkl", "search_gen_state-2.json"):
        (staging / name).write_text(f"snapshot of {name}")
    for number in range(3):
        write_snapshot(
            tmp_path / "snapshots",
            sorted(staging.iterdir()),
            journal_bytes=9 + number // 2,
            epochs={"a": number},
            checkpoints={"a": number - 1},
        )
    trials = tmp_path / "trials"
    log(trials / "a", [1, 2, 3])
    for number in range(3):
        (trials / "a" / f"checkpoint_{number:06d}").mkdir()
    log(trials / "begun-later", [1])
    (trials / "experiment_state-3.json").write_text("torn")
    (trials / "searcher-state-1.pkl").write_text("old")
    (tmp_path / "study.journal").write_bytes(b"0123456789later")
    return tmp_path


def test_a_resume_puts_back_the_moment_of_the_newest_snapshot(run: Path) -> None:
    (run / "study.journal.lock").symlink_to(run / "study.journal")
    assert roll_back(run / "snapshots", run / "trials", run / "study.journal") is True
    assert (run / "study.journal").read_bytes() == b"0123456789"
    assert not (run / "study.journal.lock").is_symlink(), "a killed driver's lock would block the study"
    assert epochs_in(run / "trials/a/result.json") == [1, 2]
    assert sorted(path.name for path in (run / "trials/a").glob("checkpoint_*")) == [
        "checkpoint_000000",
        "checkpoint_000001",
    ]
    assert sorted(path.name for path in (run / "trials").iterdir()) == [
        "a",
        "experiment_state-2.json",
        "search_gen_state-2.json",
        "searcher-state-2.pkl",
    ]


def test_rolling_back_twice_is_rolling_back_once(run: Path) -> None:
    roll_back(run / "snapshots", run / "trials", run / "study.journal")
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    roll_back(run / "snapshots", run / "trials", run / "study.journal")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files


def test_without_a_snapshot_the_run_begins_again(tmp_path: Path) -> None:
    log(tmp_path / "trials" / "a", [1])
    (tmp_path / "study.journal").write_bytes(b"x")
    assert roll_back(tmp_path / "snapshots", tmp_path / "trials", tmp_path / "study.journal") is False
    assert list(tmp_path.iterdir()) == []


def test_a_snapshot_that_was_being_written_is_none(run: Path) -> None:
    (run / "snapshots" / ".000004.tmp").mkdir()
    assert roll_back(run / "snapshots", run / "trials", run / "study.journal") is True
    assert epochs_in(run / "trials/a/result.json") == [1, 2]


def test_only_the_last_snapshots_are_kept(run: Path) -> None:
    assert sorted(path.name for path in (run / "snapshots").iterdir()) == ["000002", "000003"]


def test_a_replaced_journal_or_another_version_is_refused(run: Path) -> None:
    (run / "study.journal").write_bytes(b"short")
    with pytest.raises(DataError, match="shorter than when the run was last saved"):
        roll_back(run / "snapshots", run / "trials", run / "study.journal")
    manifest = run / "snapshots/000003/snapshot.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format_version": 99}))
    with pytest.raises(DataError, match="format_version 99"):
        roll_back(run / "snapshots", run / "trials", run / "study.journal")


def test_a_cut_log_has_every_epoch_once_with_its_last_report(tmp_path: Path) -> None:
    file = log(tmp_path, [1, 2, 3, 2, 3, 4])
    with file.open("a") as out:
        out.write('{"training_iteration": 5')
    cut_log(file, 3)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["training_iteration"], line["n"]) for line in lines] == [(1, 0), (2, 3), (3, 4)]
