"""The run that the benchmark of the report writes is one that a search could have written."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.report import write_run
from macil.data import FeatureStore
from macil.errors import DataError
from tests.support.run_folders import RunFolder
from tune.results.label_access import open_labels
from tune.results.run import load_run
from tune.storage.saved_epochs import SavedEpochs, read_saved_epochs


def test_a_made_up_run_reads_without_a_problem_and_is_measured(
    demo_store: FeatureStore, tmp_path: Path
) -> None:
    results = load_run(write_run(tmp_path / "many", demo_store, trials=4, epochs=6))
    assert results.problems == []
    trials = results.trials.to_pylist()
    assert [row["epochs_run"] for row in trials if row["kind"] == "search"] == [2, 6, 6, 6]
    assert results.epochs.num_rows == 20 + 3
    measured = open_labels(results, demo_store)
    assert measured.problems == []
    assert measured.trials["ap"].null_count == 0
    assert len(set(measured.trials["ap"].to_pylist())) == 5


def test_a_checkpoint_of_an_earlier_version_says_its_epochs_too(
    demo_store: FeatureStore, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run", demo_store, "heldout").begin(trials=1)
    trainer = run.add("00000", epochs=2)
    path = tmp_path / "run/trials/00000/checkpoint_000001/trainer.pt"
    expected = SavedEpochs(last=2, chosen=trainer.chosen_epoch)
    assert read_saved_epochs(path.parent) == expected
    (path.parent / "saved.json").unlink()
    assert read_saved_epochs(path.parent) == expected, "one of an earlier version"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError):
        read_saved_epochs(path.parent)
    path.write_bytes(b"")
    with pytest.raises(DataError):
        read_saved_epochs(path.parent)
