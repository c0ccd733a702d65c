"""Data without audio: converted and checked, and refused by what needs audio."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from macil.__main__ import app
from macil.config import TrialConfig
from macil.data import FeatureStore, audit, convert, resolve
from macil.data.reading import Reading
from macil.data.store.faults import index_faults
from macil.data.store.staging import source_of, stage
from macil.data.store.verification import verify_store
from macil.errors import DataError, UsageError
from macil.training.trainer import Trainer
from tests.support import fuzzing
from tests.support.layouts import CROPS, NORMAL, TEST_VIOLENT, VISUAL_DIM, write_layout
from tests.support.manifests import rows_of, write_csv

VISUAL_ONLY = Reading(visual_only=True)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MACIL_CACHE", str(tmp_path / "cache"))
    return write_layout(tmp_path / "data")


@pytest.mark.parametrize("audio", ["gone", "there", "damaged"])
def test_a_folder_is_converted_and_checked_without_looking_at_audio(
    layout: Path, tmp_path: Path, audio: str
) -> None:
    if audio == "gone":
        shutil.rmtree(layout / "vggish-features")
    elif audio == "damaged":
        (layout / "vggish-features/test" / f"{TEST_VIOLENT}__vggish.npy").write_bytes(b"x")
    assert audit(layout, deep=True, reading=VISUAL_ONLY).ok
    out = tmp_path / "store"
    assert fuzzing.call(app, "convert", layout, out, "--visual-only").code == 0
    store = FeatureStore.open(out)
    assert (store.audio_dim, store.audio.shape, store.meta.reading) == (0, (0, 0), VISUAL_ONLY)
    assert not (out / "audio.arrow").exists()
    assert store.visual.shape == (CROPS * 20, VISUAL_DIM)
    assert store.videos("train").audio_lengths.tolist() == [0, 0]
    assert verify_store(out) == []
    assert fuzzing.call(app, "check", out).code == 0
    assert fuzzing.call(app, "convert", layout, out, "--visual-only").code == 0, "the same again"


def test_a_manifest_needs_no_audio_column(layout: Path) -> None:
    rows = [{name: each for name, each in row.items() if name != "audio"} for row in rows_of(layout)]
    path = write_csv(layout / "videos.csv", rows)
    assert len(audit(path).faults) >= len(rows)
    store = resolve(path, reading=VISUAL_ONLY)
    assert store.content_hash == resolve(layout, reading=VISUAL_ONLY).content_hash
    full = write_csv(layout / "full.csv", rows_of(layout))
    assert resolve(full, reading=VISUAL_ONLY).content_hash == store.content_hash


def test_macil_sd_is_not_trained_on_them_and_says_what_it_needs(layout: Path, tmp_path: Path) -> None:
    store = resolve(layout, reading=VISUAL_ONLY)
    with pytest.raises(
        DataError, match=r"holds no audio \(--visual-only\): MACIL-SD trains on visual and audio"
    ):
        Trainer(TrialConfig(epochs=1), store)
    trained = fuzzing.call(app, "train", layout, "--visual-only", "--out", tmp_path / "out")
    assert trained.code == 1
    assert (
        "MACIL-SD trains on visual and audio features of the same videos. Give audio features too"
        in trained.err
    )
    assert not (tmp_path / "out" / "record.json").exists()


def test_what_is_damaged_in_such_a_store_is_named(layout: Path, tmp_path: Path) -> None:
    out = convert(layout, tmp_path / "store", reading=VISUAL_ONLY)
    copy = stage(source_of(out), tmp_path / "copies", lambda text: None)
    assert FeatureStore.open(copy).content_hash == FeatureStore.open(out).content_hash
    content = bytearray((out / "visual.arrow").read_bytes())
    middle = len(content) // 2
    content[middle] ^= 0xFF
    (out / "visual.arrow").write_bytes(content)
    assert any("are not what was converted" in problem for problem in verify_store(out))


def test_a_conversion_that_was_interrupted_goes_on(
    layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = FeatureStore.open(convert(layout, tmp_path / "whole", reading=VISUAL_ONLY))
    writer = importlib.import_module("macil.data.store.writer")
    load = writer.load_features

    def interrupt(path: Path) -> np.ndarray:
        if path.name.startswith(TEST_VIOLENT):
            raise KeyboardInterrupt
        return load(path)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "load_features", interrupt)
        with pytest.raises(KeyboardInterrupt):
            convert(layout, tmp_path / "store", reading=VISUAL_ONLY)
    store = FeatureStore.open(convert(layout, tmp_path / "store", reading=VISUAL_ONLY))
    assert "taking up the conversion at video 3 of 5" in capsys.readouterr().err
    assert store.content_hash == whole.content_hash


def test_an_ordinary_store_without_rows_of_audio_is_damaged(layout: Path) -> None:
    store = resolve(layout)
    sets = {split: store.videos(split) for split in ("train", "test")}
    found = index_faults(sets, 5, len(store.visual), 0, None)
    assert "audio_length of a train video is out of range" in found


def test_faults_of_visual_features_stay_faults(layout: Path) -> None:
    np.save(layout / "RGB" / f"{NORMAL}__0.npy", np.zeros((3, VISUAL_DIM), np.float32))
    (fault,) = audit(layout, deep=True, reading=VISUAL_ONLY).faults
    assert fault.kind == "all-zero"
    with pytest.raises(UsageError, match="--visual-only reads no audio, and --silent says"):
        audit(layout, reading=Reading(visual_only=True, silent="zeros"))
