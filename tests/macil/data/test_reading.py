"""Options of reading a folder: what they change, where they are recorded, and what is told of videos without sound."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from macil.__main__ import app
from macil.config import TrialConfig
from macil.data import FeatureStore, audit, convert, resolve
from macil.data.opening import open_here
from macil.data.reading import AS_USUAL, Reading
from macil.data.store.verification import verify_store
from macil.errors import DataError, UsageError
from macil.training.trainer import Trainer
from tests.support import fuzzing
from tests.support.layouts import (
    AUDIO_DIM,
    NORMAL,
    TEST_NORMAL,
    TEST_VIOLENT,
    TEST_VIOLENT_2,
    VIOLENT,
    annotate,
    frame_labels,
    save,
    save_ground_truth,
    write_layout,
)

ZEROS, LEAVE_OUT = Reading(silent="zeros"), Reading(silent="leave-out")

THREE_SILENT = "3 videos without sound (2 whose audio holds nothing but zeros, 1 without an audio file)"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACIL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """Two training and three test videos; one of each has audio of zeros, and another test video no audio file."""
    root = write_layout(tmp_path / "data")
    silence(root, "train", NORMAL)
    silence(root, "test", TEST_VIOLENT)
    return root


def audio(root: Path, split: str, name: str) -> Path:
    return root / "vggish-features" / split / f"{name}__vggish.npy"


def silence(root: Path, split: str, name: str) -> None:
    path = audio(root, split, name)
    save(path, np.zeros_like(np.load(path)))


def test_audio_of_zeros_is_a_warning_with_a_count_everywhere(layout: Path, tmp_path: Path) -> None:
    report = audit(layout, deep=True)
    assert report.ok
    (note,) = [note for note in report.notes if note.kind == "silent"]
    text = "2 videos without sound (2 whose audio holds nothing but zeros) read as audio of zeros"
    assert (
        str(note) == f"vggish-features/: {text}; --silent leave-out leaves them out: {NORMAL}, {TEST_VIOLENT}"
    )
    store = FeatureStore.open(convert(layout, tmp_path / "store"))
    assert store.notes == (f"{text}; --silent leave-out leaves them out",)
    assert store.meta.reading == AS_USUAL
    videos = store.videos("train")
    start = videos.audio_offsets[videos.names.index(NORMAL)]
    assert not store.audio[start : start + 3].any()
    assert verify_store(store.path) == []


def test_a_missing_audio_file_is_a_fault_that_names_the_option(layout: Path) -> None:
    audio(layout, "test", TEST_NORMAL).unlink()
    report = audit(layout)
    assert [fault.kind for fault in report.faults] == ["missing"]
    assert "of a video without sound it may (--silent zeros, or leave-out)" in str(report.faults[0])


def test_videos_without_sound_get_audio_of_zeros(layout: Path, tmp_path: Path) -> None:
    audio(layout, "test", TEST_NORMAL).unlink()
    store = FeatureStore.open(convert(layout, tmp_path / "store", reading=ZEROS))
    assert store.notes == (f"{THREE_SILENT} read as audio of zeros",)
    assert store.meta.reading == ZEROS
    videos = store.videos("test")
    index = videos.names.index(TEST_NORMAL)
    assert videos.audio_lengths[index] == videos.lengths[index] == 2
    assert not store.audio[videos.audio_offsets[index] :][:2].any()
    assert store.audio_dim == AUDIO_DIM
    assert verify_store(store.path) == []


@pytest.mark.parametrize("ground_truth", [True, False])
def test_videos_without_sound_are_left_out_after_their_labels_were_read(
    layout: Path, tmp_path: Path, *, ground_truth: bool
) -> None:
    audio(layout, "test", TEST_NORMAL).unlink()
    if ground_truth:
        save_ground_truth(layout, frame_labels())
    store = FeatureStore.open(convert(layout, tmp_path / "store", reading=LEAVE_OUT))
    assert [store.videos(split).names for split in ("train", "test")] == [(VIOLENT,), (TEST_VIOLENT_2,)]
    np.testing.assert_array_equal(store.test_labels().frame_labels, frame_labels()[TEST_VIOLENT_2])
    assert store.notes == (f"{THREE_SILENT} left out (--silent leave-out)",)
    assert len(store.audio) == 4 + 4


def test_a_split_that_is_silent_as_a_whole_cannot_be_left_out(layout: Path) -> None:
    silence(layout, "train", VIOLENT)
    report = audit(layout, reading=LEAVE_OUT)
    assert [str(fault) for fault in report.faults] == [
        "vggish-features/: every train video is without sound, and left out (--silent leave-out)"
    ]


def test_without_any_audio_file_its_width_is_not_known(layout: Path) -> None:
    for path in (layout / "vggish-features").rglob("*.npy"):
        path.unlink()
    reasons = [fault.reason for fault in audit(layout, reading=ZEROS).faults]
    assert reasons == ["no video has an audio file, so that the width of the audio is not known"]


def test_options_that_make_other_data_belong_to_the_hash_and_to_the_cache(layout: Path) -> None:
    annotate(layout, {TEST_VIOLENT: [(0, 9)], TEST_VIOLENT_2: [(0, 9)]})
    readings = [AS_USUAL, ZEROS, LEAVE_OUT, Reading(snippet_frames=64), Reading(snippet_frames=16)]
    stores = [resolve(layout, reading=reading) for reading in readings]
    assert len({store.content_hash for store in stores}) == 4
    assert len({store.path for store in stores}) == 4
    assert stores[-1].path == stores[0].path
    assert stores[3].snippet_frames == 64
    again = [resolve(layout, reading=reading) for reading in readings]
    assert [store.path for store in again] == [store.path for store in stores]


def test_no_option_means_another_folder_than_before(layout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for reading in (LEAVE_OUT, AS_USUAL, LEAVE_OUT):
        resolve(layout, reading=reading)
    assert "older conversion" not in capsys.readouterr().err


def test_a_store_takes_the_options_that_it_was_made_with_and_no_others(layout: Path, tmp_path: Path) -> None:
    store = convert(layout, tmp_path / "store", reading=Reading(silent="leave-out", snippet_frames=32))
    given = Reading(silent="leave-out", snippet_frames=32)
    assert resolve(store, reading=given).path == resolve(store).path == store
    with pytest.raises(UsageError, match=r"--silent zeros is for a folder .* was made .*--silent leave-out"):
        resolve(store, reading=Reading(silent="zeros", snippet_frames=32))
    with pytest.raises(UsageError, match=r"--snippet-frames 16 is for .* with 32 frames a snippet"):
        resolve(store, reading=Reading(snippet_frames=16))
    with pytest.raises(UsageError, match="--silent zeros belongs to a data folder of your own"):
        resolve(None, reading=ZEROS)


def test_a_host_that_converts_a_folder_itself_reads_it_likewise(
    layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = resolve(layout, reading=LEAVE_OUT)
    monkeypatch.setenv("MACIL_CACHE", str(tmp_path / "other"))
    hashes = (store.content_hash, store.labels_hash)
    lines: list[str] = []
    found = open_here(str(tmp_path / "gone"), str(layout), hashes, lines.append, reading=LEAVE_OUT)
    assert found.content_hash == store.content_hash
    with pytest.raises(DataError, match="has the content hash"):
        open_here(str(tmp_path / "gone"), str(layout), hashes, lines.append)


def test_a_training_records_how_its_data_were_read(layout: Path) -> None:
    store = resolve(layout, reading=Reading(silent="zeros", snippet_frames=32))
    config = TrialConfig(hidden_dim=4, num_heads=1, feedforward_dim=4, epochs=1, batch_size=2)
    record = Trainer(config, store, device="cpu").record()
    assert Reading(**record["reading"]) == Reading(snippet_frames=32, silent="zeros")
    assert record["store_hash"] == store.content_hash


def test_a_command_that_needs_the_test_videos_reads_no_others(layout: Path, tmp_path: Path) -> None:
    for path in (layout / "RGB").iterdir():
        path.write_bytes(b"no array")
    with pytest.raises(DataError, match=r"RGB: 6 of 6 visual files cannot be read"):
        resolve(layout)
    store = resolve(layout, part="test")
    assert store.videos("test").names == (TEST_VIOLENT, TEST_VIOLENT_2, TEST_NORMAL)
    assert store.test_labels().names == store.videos("test").names
    assert verify_store(store.path) == []
    assert resolve(layout, part="test").path == store.path
    with pytest.raises(DataError, match="holds test videos alone; convert the whole folder"):
        store.videos("train")
    with pytest.raises(DataError, match="holds test videos alone"):
        Trainer(TrialConfig(epochs=1), store)
    assert fuzzing.call(app, "check", store.path).code == 0
    shutil.rmtree(layout / "RGB")
    shutil.rmtree(layout / "vggish-features/train")
    assert resolve(layout, part="test").content_hash == store.content_hash


def test_a_store_of_the_whole_folder_serves_whoever_needs_a_part(layout: Path) -> None:
    whole = resolve(layout)
    assert resolve(layout, part="test").path == whole.path
