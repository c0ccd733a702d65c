"""The interval of a single model: computed where its AP is measured, kept, and never around another number."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from macil.data import FeatureStore
from macil.io.files import read_json, write_json_atomic
from tests.support.run_folders import RunFolder
from tune.reporting.statistics.model_interval import model_intervals
from tune.reporting.statistics.video_bootstrap import ap_interval
from tune.results.label_access import open_labels
from tune.results.run import load_run
from tune.storage.names import INTERVALS_FILE


@pytest.fixture(scope="module")
def run(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of one trial, labels opened; read only."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "run", demo_store, "heldout").begin(trials=1)
    folder.add("00000", epochs=1)
    open_labels(load_run(folder.path), demo_store)
    return folder.path


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_it_is_the_bootstrap_of_the_stored_scores(copy: Path, demo_store: FeatureStore) -> None:
    results = load_run(copy)
    (found,) = model_intervals(results, results.trial_rows).values()
    scores = np.load(copy / "trials/00000/checkpoint_000000/scores.npz")["chosen"]
    labels = demo_store.test_labels().frame_labels
    drawn = ap_interval(scores, labels, demo_store.videos("test").lengths)
    assert found.ap_trapezoid == (drawn.ap_trapezoid.low, drawn.ap_trapezoid.high)
    assert found.ap == (drawn.ap.low, drawn.ap.high)
    assert found.videos == len(demo_store.videos("test").names)
    figure = found.around(0.25, "ap_trapezoid")
    assert (figure.n, figure.mean, figure.low) == (1, 0.25, drawn.ap_trapezoid.low)


def test_it_is_kept_and_then_needs_no_data(copy: Path) -> None:
    results = load_run(copy)
    first = model_intervals(results, results.trial_rows)
    results = replace(results, info=results.info.model_copy(update={"data": "gone"}))
    assert model_intervals(results, results.trial_rows) == first
    (copy / INTERVALS_FILE).write_text("damaged")
    assert model_intervals(results, results.trial_rows) == {}


def test_other_scores_or_closed_labels_have_none(copy: Path) -> None:
    results = load_run(copy)
    (trial,) = results.trial_rows
    assert model_intervals(results, [replace(trial, ap_trapezoid=None)]) == {}
    assert not (copy / INTERVALS_FILE).exists()
    assert model_intervals(results, [replace(trial, ap=0.123)]) == {}, "the scores do not give this AP"
    found = model_intervals(results, [trial])
    kept = read_json(copy / INTERVALS_FILE)
    write_json_atomic(copy / INTERVALS_FILE, {**kept, "format_version": 99})
    assert model_intervals(results, [trial]) == found, "a file of another version is made again"
