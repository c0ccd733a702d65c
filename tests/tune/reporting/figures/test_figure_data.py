"""What pictures of one training are drawn from, and that labels which are closed stay closed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from macil.data import FeatureStore
from macil.errors import DataError
from macil.io.files import read_json, write_json_atomic
from macil.training.checkpoint import load_network
from tests.support.made_runs import sweep_results
from tests.support.run_folders import RunFolder
from tune.reporting.figures import figure_data as module
from tune.reporting.figures.figure_data import FigureData, weights_of
from tune.reporting.statistics.outcome import find_outcome
from tune.results.label_access import open_labels, read_label_accesses
from tune.results.measured import read_measured, write_measured
from tune.results.run import RunResults, load_run
from tune.storage.names import ACCESS_LOG


@pytest.fixture(scope="module")
def heldout(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of one trial whose labels are closed; read only."""
    run = RunFolder(tmp_path_factory.mktemp("runs") / "search", demo_store, "heldout").begin(trials=1)
    run.add("0000", epochs=2)
    return run.path


@pytest.fixture(scope="module")
def published(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two rows, the second of two seeds; read only."""
    run = RunFolder(tmp_path_factory.mktemp("runs") / "sweep", demo_store, "published")
    run.begin(sweep="own", trials=3)
    run.add("a-0", row="a", epochs=1)
    run.add("b-1", row="b", epochs=1, seed=1)
    run.add("b-0", row="b", epochs=1, seed=0)
    plan = read_json(run.path / "plan.json")
    write_json_atomic(run.path / "plan.json", {**plan, "reference": "b"})
    return run.path


def opened(run: Path, store: FeatureStore) -> RunResults:
    return open_labels(load_run(run), store)


def test_labels_that_were_not_opened_are_not_read(heldout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(store: FeatureStore) -> None:
        raise AssertionError("the labels were read")

    monkeypatch.setattr(FeatureStore, "test_labels", refuse)
    data = FigureData(load_run(heldout))
    for ask in (lambda: data.measured, lambda: data.labels, data.sample):
        with pytest.raises(DataError, match="have not been opened"):
            ask()
    assert not (heldout / ACCESS_LOG).exists()


def test_opened_labels_give_the_scores_of_the_tables(
    heldout: Path, demo_store: FeatureStore, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(heldout, tmp_path / "search"))
    results = opened(run, demo_store)
    (found,) = FigureData(results).measured
    (row,) = results.trials.to_pylist()
    assert (found.ap, found.ap_trapezoid) == (row["ap"], row["ap_trapezoid"])
    assert found.positive.sum() == demo_store.test_labels().frame_labels.sum()
    assert len(found.scores) == demo_store.videos("test").lengths.sum()
    assert len(read_label_accesses(run, [])) == 1, "a picture is no opening"


def test_other_labels_than_those_of_the_access_stay_closed(
    heldout: Path, demo_store: FeatureStore, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(heldout, tmp_path / "search"))
    results = opened(run, demo_store)
    write_measured(run, "0" * 32, 0.3, read_measured(run, [])[1])
    with pytest.raises(DataError, match="not those that the run was measured with"):
        _ = FigureData(results).labels


def test_scores_of_another_epoch_than_the_tables_are_refused(published: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(published, tmp_path / "sweep"))
    for name in ("b-0", "b-1"):
        (path,) = (run / "trials" / name).glob("checkpoint_*/scores.npz")
        with np.load(path) as stored:
            scores = {key: stored[key] for key in stored.files}
        np.savez(path, **{**scores, "last": scores["last"][::-1]})
    with pytest.raises(DataError, match="of another epoch"):
        _ = FigureData(load_run(run)).measured


def test_a_seed_without_scores_leaves_the_others(published: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(published, tmp_path / "sweep"))
    shutil.rmtree(next((run / "trials/b-0").glob("checkpoint_*")))
    data = FigureData(load_run(run))
    assert [found.seed for found in data.measured] == [1]
    with pytest.raises(DataError, match="no checkpoint"):
        data.sample()


def test_data_that_are_gone_or_others_are_said(published: Path, tmp_path: Path) -> None:
    results = load_run(published)
    for location, message in ((None, "does not say where"), (str(tmp_path / "gone"), "does not exist")):
        info = results.info.model_copy(update={"data": location})
        with pytest.raises(DataError, match=message):
            _ = FigureData(replace(results, info=info)).measured
    data = FigureData(results)
    data.trials = tuple(replace(trial, store_hash="0") for trial in data.trials)
    with pytest.raises(DataError, match="content hash differs"):
        _ = data.measured


def test_the_reported_training_is_the_one_of_the_headline_in_every_figure(published: Path) -> None:
    results = load_run(published)
    outcome = find_outcome(results)
    assert outcome.replayed is not None
    assert outcome.replayed.trial_dir == "trials/b-0", "the row with more seeds, by its lowest seed"
    assert FigureData(results).trials == outcome.trials
    assert [trial.trial_dir for trial in outcome.trials] == ["trials/b-0", "trials/b-1"]
    failed = sweep_results({"a": ["failed", "failed"], "b": [50.0]}, reference="a")
    assert [trial.row for trial in FigureData(failed).trials] == ["b"]
    assert FigureData(sweep_results({})).trials == ()
    with pytest.raises(DataError, match="no training"):
        _ = FigureData(sweep_results({})).measured


def test_the_sample_is_seeded_balanced_and_what_the_network_sees(
    published: Path, demo_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_SNIPPETS", 20)
    results = load_run(published)
    sample = FigureData(results).sample(seed=3)
    again = FigureData(results).sample(seed=3)
    assert sample.violent.sum() == 10
    assert len(sample.violent) == 20
    for panel, rows in sample.features.items():
        assert np.array_equal(rows, again.features[panel])
    assert not np.array_equal(
        sample.features["visual", "raw features"],
        FigureData(results).sample(seed=4).features["visual", "raw features"],
    )
    # Every row slowly: where its raw features are, there its embedding and its label are.
    network = load_network(weights_of(published / "trials/b-0"))
    labels = demo_store.test_labels().frame_labels
    videos = demo_store.videos("test")
    expected = {}
    start = 0
    for video, length in enumerate(videos.lengths.tolist()):
        offset, audio_offset = int(videos.visual_offsets[video]), int(videos.audio_offsets[video])
        visual = demo_store.visual[offset : offset + length].float()
        audio = torch.zeros(length, demo_store.audio_dim)
        have = min(length, int(videos.audio_lengths[video]))
        audio[:have] = demo_store.audio[audio_offset : audio_offset + have]
        with torch.inference_mode():
            output = network(visual[None], audio[None])
        for t in range(length):
            frames = labels[(start + t) * demo_store.snippet_frames :][: demo_store.snippet_frames]
            expected[visual[t].numpy().tobytes()] = (
                audio[t],
                output.visual_embeddings[0, t],
                output.audio_embeddings[0, t],
                frames.mean() > 0.5,
            )
        start += length
    for row in range(20):
        raw = sample.features["visual", "raw features"][row]
        audio_row, visual_embedding, audio_embedding, violent = expected[raw.tobytes()]
        np.testing.assert_array_equal(sample.features["audio", "raw features"][row], audio_row)
        np.testing.assert_array_equal(sample.features["visual", "embeddings"][row], visual_embedding)
        np.testing.assert_array_equal(sample.features["audio", "embeddings"][row], audio_embedding)
        assert sample.violent[row] == violent
