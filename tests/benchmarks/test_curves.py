"""Recorded trainings: what is kept of one, and that a recording goes on where it was stopped."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from benchmarks.curves import sets
from benchmarks.curves.record import about, merge, missing, train
from benchmarks.curves.recording import Recording, probabilities, read
from benchmarks.curves.sets import RecordedSet, configurations, recorded_sets
from macil.config import TrialConfig
from macil.data.store.feature_store import FeatureStore
from macil.evaluation.average_precision import frame_average_precision
from macil.evaluation.heldout import assess_heldout
from macil.evaluation.protocols import Protocol


def record(recorded: RecordedSet, seeds: int, most: int | None = None) -> int:
    """Train what is missing, in this process; how many that were."""
    store = recorded.data()
    shared = about(recorded, store)
    recorded.file.with_suffix(".parts").mkdir(parents=True, exist_ok=True)
    tasks = [*missing(recorded, shared, store, seeds)][:most]
    for task in tasks:
        train(task)
    merge(recorded, shared)
    return len(tasks)


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sets, "RECORDINGS", tmp_path)
    return tmp_path


def small_set(store: FeatureStore, protocol: Protocol) -> RecordedSet:
    return RecordedSet("small", lambda: store, protocol, epochs=2, batch_size=8, random=1, splits=2)


def by_key(recording: Recording) -> dict[tuple[int, int], dict[str, object]]:
    return {
        one.key: {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in dataclasses.asdict(one).items()
            if name not in ("seconds", "figures")
        }
        | {"ap": one.figures["ap"].tolist()}
        for one in recording.trainings
    }


@pytest.mark.usefixtures("recordings")
def test_a_recording_goes_on_where_it_was_stopped_and_is_the_same(demo_store: FeatureStore) -> None:
    recorded = small_set(demo_store, "published")
    assert record(recorded, seeds=2, most=3) == 3
    assert record(recorded, seeds=2) == 1
    found = read(recorded.file)
    assert [one.key for one in found.trainings] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    recorded.file.unlink()
    assert record(recorded, seeds=2) == 4
    assert by_key(read(recorded.file)) == by_key(found)


@pytest.mark.usefixtures("recordings")
def test_scores_of_every_epoch_give_its_ap_again(demo_store: FeatureStore) -> None:
    recorded = small_set(demo_store, "published")
    record(recorded, seeds=1)
    found = read(recorded.file)
    assert found.test_labels.sum() == demo_store.test_labels().frame_labels.sum()
    assert found.about.chance == pytest.approx(found.test_labels.mean())
    for one in found.trainings:
        assert one.test is not None
        again = [frame_average_precision(probabilities(row), found.test_labels) for row in one.test]
        assert [each.ap_trapezoid for each in again] == pytest.approx(one.figures["ap_trapezoid"], abs=0.01)
        assert (one.epochs, one.error) == (2, None)
        assert one.config == recorded.configurations[one.number].replace(seed=0)


@pytest.mark.usefixtures("recordings")
def test_of_a_held_out_training_the_predictions_of_each_crop_are_kept(demo_store: FeatureStore) -> None:
    recorded = small_set(demo_store, "heldout")
    record(recorded, seeds=2)
    found = read(recorded.file)
    train_labels = np.array(found.about.train_labels)
    assert {one.split_seed for one in found.trainings} == {0, 1}
    for one in found.trainings:
        places = found.about.heldout[str(one.split_seed)]
        assert one.heldout is not None
        assert one.trained is not None
        assert one.heldout.shape == (2, len(places), demo_store.videos("train").crops)
        assert one.trained.shape == (2, len(train_labels) - len(places))
        scores = [
            assess_heldout(probabilities(row).mean(1), train_labels[places]).score for row in one.heldout
        ]
        assert scores == pytest.approx(one.figures["heldout_score"].tolist(), abs=0.002)
        assert np.isfinite(one.figures["ap"]).all(), "for whoever judges, not for whoever chooses"


def test_the_sets_are_the_demo_s_and_another_one_and_begin_with_the_paper_s_setting() -> None:
    found = recorded_sets()
    assert {each.protocol for each in found.values()} == {"published", "heldout"}
    assert found["demo-published"].configurations == found["demo-heldout"].configurations
    for each in found.values():
        paper = TrialConfig(epochs=each.epochs, batch_size=each.batch_size)
        assert each.configurations[0] == paper
        assert len(set(map(str, each.configurations))) == 1 + each.random
    assert configurations(TrialConfig(), 3) == configurations(TrialConfig(), 5)[:3]
