from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from macil.data import FeatureStore, convert
from macil.data.reading import Reading
from macil.data.store.meta import Dtype
from macil.errors import DataError, UsageError
from tests.support.layouts import (
    AUDIO_DIM,
    CROPS,
    NORMAL,
    TEST_NORMAL,
    TEST_VIOLENT,
    VISUAL_DIM,
    annotate,
    save,
    write_layout,
)
from tests.support.old_stores import convert_as_version_1

CONVERT_MODULE = importlib.import_module("macil.data.store.conversion")
WRITER_MODULE = importlib.import_module("macil.data.store.writer")

# Converts slowly and commits as often as it is set to, so that there is a middle to be killed or waited for in.
SLOW = """
import sys, time
import macil.data.store.writer as writer
from macil.data.store.conversion import convert
load = writer.load_features
def slow_load(path):
    time.sleep(0.004)
    return load(path)
writer.load_features = slow_load
writer._COMMIT_BYTES = int(sys.argv[3])
convert(sys.argv[1], sys.argv[2])
"""


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(1, 9), st.integers(-1, 1)), min_size=4, max_size=6),
    crops=st.integers(1, 3),
    width=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_any_small_layout_converts_row_by_row(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int]], crops: int, width: int, seed: int
) -> None:
    root = tmp_path_factory.mktemp("any")
    rng = np.random.default_rng(seed)
    arrays: dict[Path, np.ndarray] = {}
    for i, (length, more) in enumerate(rows):
        visual, audio = ("RGB", "train") if i % 2 else ("RGBTest", "test")
        name = f"v={rng.integers(10**6)}.{i}__#1_label_A"
        for crop in range(crops):
            arrays[root / visual / f"{name}__{crop}.npy"] = rng.normal(size=(length, width))
        arrays[root / "vggish-features" / audio / f"{name}__vggish.npy"] = rng.normal(
            size=(max(1, length + more), width + 1)
        )
    for path, array in arrays.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, array)
    store = FeatureStore.open(convert(root, root / "store"))
    assert store.crops == crops
    for split, visual, audio in (("train", "RGB", "train"), ("test", "RGBTest", "test")):
        videos = store.videos(split)  # type: ignore[arg-type]
        assert len(videos) == len(rows) // 2 + (split == "test" and len(rows) % 2)
        for i, name in enumerate(videos.names):
            expected = [arrays[root / visual / f"{name}__{crop}.npy"] for crop in range(crops)]
            start, end = videos.visual_offsets[i], videos.visual_offsets[i] + crops * videos.lengths[i]
            np.testing.assert_array_equal(
                store.visual[start:end].numpy(force=True), np.concatenate(expected).astype("float32")
            )
            expected_audio = arrays[root / "vggish-features" / audio / f"{name}__vggish.npy"]
            start, end = videos.audio_offsets[i], videos.audio_offsets[i] + videos.audio_lengths[i]
            np.testing.assert_array_equal(
                store.audio[start:end].numpy(force=True), expected_audio.astype("float32")
            )


def test_equal_data_give_equal_bytes_and_hashes_wherever_they_lie(tmp_path: Path) -> None:
    first = convert(write_layout(tmp_path / "a"), tmp_path / "first")
    write_layout(tmp_path / "elsewhere" / "b")
    (tmp_path / "i3d").mkdir()
    second = convert(tmp_path / "elsewhere" / "b", tmp_path / "second")
    a, b = FeatureStore.open(first), FeatureStore.open(second)
    assert (a.content_hash, a.labels_hash) == (b.content_hash, b.labels_hash)
    files = contents(first), contents(second)
    for name in ("visual.arrow", "audio.arrow", "index.arrow", "labels.arrow"):
        assert files[0][name] == files[1][name]


@pytest.mark.parametrize("what", ["visual", "audio", "name", "train label", "crop order"])
def test_the_content_hash_covers_features_names_and_training_labels(tmp_path: Path, what: str) -> None:
    root = write_layout(tmp_path / "data")
    before = FeatureStore.open(convert(root, tmp_path / "before"))
    first, second = (root / "RGB" / f"{NORMAL}__{crop}.npy" for crop in (0, 1))
    if what == "visual":
        save(first, np.load(first) + 1)
    elif what == "audio":
        path = root / "vggish-features/test" / f"{TEST_NORMAL}__vggish.npy"
        save(path, np.load(path) + 1)
    elif what == "crop order":
        one, two = np.load(first), np.load(second)
        save(first, two)
        save(second, one)
    else:
        new = NORMAL.replace("_label_A", "_label_B1-0-0") if what == "train label" else f"x{NORMAL}"
        for path in [*root.rglob(f"{NORMAL}__*")]:
            path.rename(path.with_name(path.name.replace(NORMAL, new)))
    after = FeatureStore.open(convert(root, tmp_path / "after"))
    assert after.content_hash != before.content_hash
    assert after.labels_hash == before.labels_hash


def test_a_store_of_version_1_is_not_said_to_be_of_other_data(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout")
    out = convert_as_version_1(layout, tmp_path / "store")
    with pytest.raises(UsageError, match="holds a store of format_version 1, which is read as it is"):
        convert(layout, out)
    assert FeatureStore.open(convert(layout, out, overwrite=True)).meta.format_version == 2


def test_test_annotations_change_the_labels_hash_alone(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "data")
    before = FeatureStore.open(convert(root, tmp_path / "before"))
    text = (root / "annotations.txt").read_text()
    (root / "annotations.txt").write_text(text.replace(" 10 20 ", " 10 21 "))
    after = FeatureStore.open(convert(root, tmp_path / "after"))
    assert after.content_hash == before.content_hash
    assert after.labels_hash != before.labels_hash


@pytest.mark.nightly
def test_a_conversion_killed_in_the_middle_is_taken_up_with_the_same_result(
    demo_layout: Path, demo_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, partial = tmp_path / "store", tmp_path / "store.partial"
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(demo_layout), str(out), "1"])
    journal = partial / "journal.jsonl"
    deadline = time.monotonic() + 60
    while not journal.exists() or len(journal.read_text().splitlines()) < 8:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = len(journal.read_text().splitlines()) - 1
    assert not out.exists()
    assert 7 <= finished < 34

    loads: list[Path] = []
    load = WRITER_MODULE.load_features

    def count(path: Path) -> np.ndarray:
        loads.append(path)
        return load(path)

    monkeypatch.setattr(WRITER_MODULE, "load_features", count)
    convert(demo_layout, out)
    # Six files a video: finished videos were not read again.
    assert len(loads) <= 6 * (34 - finished)
    assert not partial.exists()
    resumed = FeatureStore.open(out)
    assert resumed.content_hash == demo_store.content_hash
    expected = contents(demo_store.path)
    assert {name: data for name, data in contents(out).items() if name != "meta.json"} == {
        name: data for name, data in expected.items() if name != "meta.json"
    }


def test_an_interrupted_conversion_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_layout(tmp_path / "data")
    load = WRITER_MODULE.load_features

    def interrupt(path: Path) -> np.ndarray:
        if path.name.startswith(TEST_VIOLENT):
            raise KeyboardInterrupt
        return load(path)

    monkeypatch.setattr(WRITER_MODULE, "load_features", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert(root, tmp_path / "store")
    assert len((tmp_path / "store.partial" / "journal.jsonl").read_text().splitlines()) == 1 + 2
    monkeypatch.undo()
    resumed = FeatureStore.open(convert(root, tmp_path / "store"))
    assert resumed.content_hash == FeatureStore.open(convert(root, tmp_path / "other")).content_hash


def test_a_journal_line_cut_short_costs_one_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_layout(tmp_path / "data")
    monkeypatch.setattr(CONVERT_MODULE, "_publish", lambda partial, out: None)
    convert(root, tmp_path / "store")
    monkeypatch.undo()
    journal = tmp_path / "store.partial" / "journal.jsonl"
    journal.write_text(journal.read_text()[:-20])
    resumed = FeatureStore.open(convert(root, tmp_path / "store"))
    assert resumed.content_hash == FeatureStore.open(convert(root, tmp_path / "other")).content_hash


def test_a_file_that_changed_since_the_interruption_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_layout(tmp_path / "data")
    monkeypatch.setattr(CONVERT_MODULE, "_publish", lambda partial, out: None)
    convert(root, tmp_path / "store")
    monkeypatch.undo()
    path = root / "RGB" / f"{NORMAL}__0.npy"
    save(path, np.load(path) + 1)
    os.utime(path, (1, 1))
    resumed = FeatureStore.open(convert(root, tmp_path / "store"))
    assert resumed.content_hash == FeatureStore.open(convert(root, tmp_path / "other")).content_hash


def test_an_unfinished_conversion_of_other_data_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_layout(tmp_path / "data")
    monkeypatch.setattr(CONVERT_MODULE, "_publish", lambda partial, out: None)
    convert(root, tmp_path / "store")
    monkeypatch.undo()
    for crop in range(CROPS):
        save(root / "RGB" / f"{NORMAL}__{crop}.npy", np.ones((4, VISUAL_DIM)))
    resumed = FeatureStore.open(convert(root, tmp_path / "store"))
    assert resumed.videos("train").lengths.tolist() == [5, 4]


def test_two_processes_at_once_convert_once(
    demo_layout: Path, demo_store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "store"
    other = subprocess.Popen([sys.executable, "-c", SLOW, str(demo_layout), str(out), "1"])
    deadline = time.monotonic() + 60
    while not (tmp_path / "store.partial" / "journal.jsonl").exists():
        assert other.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    convert(demo_layout, out, progress=True)
    # Who waited finds the work done and writes nothing.
    error = capsys.readouterr().err
    assert f"another process is converting to {out}; waiting for it" in error
    assert "converting:" not in error
    assert other.wait(timeout=60) == 0
    assert FeatureStore.open(out).content_hash == demo_store.content_hash
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_finished_store_of_the_same_data_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_layout(tmp_path / "data")
    out = convert(root, tmp_path / "store")
    inode = (out / "visual.arrow").stat().st_ino
    assert convert(root, out) == out
    assert (out / "visual.arrow").stat().st_ino == inode
    assert convert(root, out, overwrite=True) == out
    assert (out / "visual.arrow").stat().st_ino != inode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "store"]


def test_a_store_of_equal_data_is_left_alone_wherever_they_lie_and_whenever_they_were_touched(
    tmp_path: Path,
) -> None:
    root = write_layout(tmp_path / "data")
    out = convert(root, tmp_path / "store")
    inode = (out / "visual.arrow").stat().st_ino
    copy = shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copy)
    convert(copy, out)
    for path in root.rglob("*.npy"):
        path.touch()
    convert(root, out)
    assert (out / "visual.arrow").stat().st_ino == inode
    half = convert(root, tmp_path / "half", dtype="float16")
    inode = (half / "visual.arrow").stat().st_ino
    convert(copy, half, dtype="float16")
    assert (half / "visual.arrow").stat().st_ino == inode


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_store_of_features_that_changed_unseen_is_not_left_alone(tmp_path: Path, dtype: Dtype) -> None:
    root = write_layout(tmp_path / "data")
    out = convert(root, tmp_path / "store", dtype=dtype)
    path = root / "RGB" / f"{NORMAL}__0.npy"
    before = path.stat()
    array = np.load(path)
    # Beyond half precision: only the marks of rows that are all zero tell.
    array[1] = 0 if dtype == "float32" else 1e-9
    save(path, array)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(UsageError, match="holds a store of other data"):
        convert(root, out, dtype=dtype)
    new = FeatureStore.open(convert(root, out, dtype=dtype, overwrite=True))
    assert new.content_hash == FeatureStore.open(convert(root, tmp_path / "new", dtype=dtype)).content_hash
    if dtype == "float16":
        array[1] = 0
        save(path, array)
        with pytest.raises(UsageError, match="holds a store of other data"):
            convert(root, out, dtype=dtype)


@pytest.mark.parametrize("change", ["features", "annotations", "touched"])
def test_what_changes_while_it_is_converted_is_noticed(
    tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_layout(tmp_path / "data")
    first = root / "RGB" / f"{NORMAL}__0.npy"
    write_index = CONVERT_MODULE._write_index

    def meanwhile(*args: object) -> None:
        if change == "features":
            save(first, -np.load(first))
        elif change == "annotations":
            text = (root / "annotations.txt").read_text()
            (root / "annotations.txt").write_text(text.replace(" 10 20 ", " 10 21 "))
        else:
            first.touch()
        write_index(*args)

    with monkeypatch.context() as patch:
        patch.setattr(CONVERT_MODULE, "_write_index", meanwhile)
        if change == "touched":
            convert(root, tmp_path / "store")
        else:
            with pytest.raises(DataError, match="changed while it was converted; wait until nothing writes"):
                convert(root, tmp_path / "store")
            assert not (tmp_path / "store").exists()
    made = FeatureStore.open(convert(root, tmp_path / "store"))
    fresh = FeatureStore.open(convert(root, tmp_path / "fresh"))
    assert (made.content_hash, made.labels_hash) == (fresh.content_hash, fresh.labels_hash)


def test_what_a_killed_conversion_noted_of_a_folder_does_not_outlive_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_layout(tmp_path / "data")
    other = write_layout(tmp_path / "other")
    path = other / "RGB" / f"{NORMAL}__0.npy"
    save(path, -np.load(path))
    with monkeypatch.context() as patch:
        patch.setattr(CONVERT_MODULE, "_publish", lambda partial, out: None)
        convert(root, tmp_path / "store")
    convert(other, tmp_path / "store")
    with pytest.raises(UsageError, match="holds a store of other data"):
        convert(root, tmp_path / "store")


def test_a_store_of_other_data_is_replaced_only_on_request(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "data")
    out = convert(root, tmp_path / "store")
    old = FeatureStore.open(out)
    with pytest.raises(
        UsageError, match=r"holds a store in float32, and float16 would be written; .*--overwrite"
    ):
        convert(root, out, dtype="float16")
    with pytest.raises(UsageError, match="with 16 frames a snippet, and 15 would be written"):
        convert(root, out, reading=Reading(snippet_frames=15))
    new = FeatureStore.open(convert(root, out, dtype="float16", overwrite=True))
    assert (old.dtype, new.dtype) == ("float32", "float16")
    # What is mapped stays readable.
    assert old.visual.abs().sum() > 0


def test_float16_halves_the_size_and_rounds(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "data")
    full = FeatureStore.open(convert(root, tmp_path / "full"))
    half = FeatureStore.open(convert(root, tmp_path / "half", dtype="float16"))
    assert half.nbytes * 2 == full.nbytes
    np.testing.assert_array_equal(half.visual.numpy(force=True), full.visual.half().numpy(force=True))
    assert half.content_hash != full.content_hash
    assert half.labels_hash == full.labels_hash


def test_a_value_beyond_float16_is_refused_with_its_file(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "data")
    path = root / "vggish-features/train" / f"{NORMAL}__vggish.npy"
    array = np.load(path)
    array[2, 3] = -1e5
    save(path, array)
    with pytest.raises(DataError, match="beyond the largest float16") as error:
        convert(root, tmp_path / "store", dtype="float16")
    assert error.value.problems[0].startswith(f"vggish-features/train/{NORMAL}__vggish.npy: holds -100000")
    convert(root, tmp_path / "store")


def test_rows_count_as_padding_by_their_float32_values(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "data")
    path = root / "RGB" / f"{NORMAL}__1.npy"
    array = np.load(path)
    array[1] = 0
    array[2] = 1e-9  # zero in float16
    save(path, array)
    for dtype in ("float32", "float16"):
        store = FeatureStore.open(convert(root, tmp_path / dtype, dtype=dtype))
        videos = store.videos("train")
        start = videos.visual_offsets[1] + videos.lengths[1]
        assert videos.names[1] == NORMAL
        assert store.nonzero[start : start + 3].tolist() == [True, False, True]
        assert np.count_nonzero(~store.nonzero) == 1


def test_data_with_faults_are_refused_with_every_fault(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "data")
    (root / "RGB" / f"{NORMAL}__0.npy").unlink()
    annotate(root, {})
    with pytest.raises(DataError) as error:
        convert(root, tmp_path / "store")
    assert len(error.value.problems) == 3
    assert not (tmp_path / "store.partial").exists()


def test_values_that_a_quick_look_missed_are_found_while_converting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("macil.data.xd.audit"), "_SAMPLE_FILES", 1)
    root = write_layout(tmp_path / "data")
    audio = root / "vggish-features/test" / f"{TEST_NORMAL}__vggish.npy"
    good = np.load(audio)
    save(audio, np.full((2, AUDIO_DIM), np.nan))
    save(root / "RGBTest" / f"{TEST_VIOLENT}__2.npy", np.zeros((6, VISUAL_DIM)))
    with pytest.raises(DataError, match="has 2 faults; finished videos are kept") as error:
        convert(root, tmp_path / "store")
    assert [problem.partition(":")[0] for problem in error.value.problems] == [
        f"RGBTest/{TEST_VIOLENT}__2.npy",
        f"vggish-features/test/{TEST_NORMAL}__vggish.npy",
    ]
    assert not (tmp_path / "store").exists()
    save(audio, good)
    shutil.copy(root / "RGBTest" / f"{TEST_VIOLENT}__1.npy", root / "RGBTest" / f"{TEST_VIOLENT}__2.npy")
    FeatureStore.open(convert(root, tmp_path / "store"))


def test_a_disk_that_is_too_small_is_refused_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_layout(tmp_path / "data")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(UsageError, match="GB are needed"):
        convert(root, tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_is_reported_and_what_is_finished_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_layout(tmp_path / "data")
    full = os.open("/dev/full", os.O_WRONLY)
    write_at, count = WRITER_MODULE._write_at, 0

    def fill(descriptor: int, offset: int, data: memoryview) -> None:
        nonlocal count
        count += 1
        # The third video meets the full disk.
        write_at(full if count == 2 * (CROPS + 1) + 2 else descriptor, offset, data)

    monkeypatch.setattr(WRITER_MODULE, "_write_at", fill)
    with pytest.raises(
        UsageError, match=r"store: the disk is full; .*finished videos are kept in store\.partial"
    ):
        convert(root, tmp_path / "store")
    os.close(full)
    monkeypatch.undo()
    assert len((tmp_path / "store.partial" / "journal.jsonl").read_text().splitlines()) == 1 + 2
    FeatureStore.open(convert(root, tmp_path / "store"))


def test_an_output_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    root = write_layout(tmp_path / "data")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        convert(root, tmp_path / "file")
    with pytest.raises(UsageError, match="is a file; expected a folder"):
        convert(root, tmp_path / "file" / "below")
    with pytest.raises(UsageError, match="not empty and not a store"):
        convert(root, root)
    with pytest.raises(UsageError, match="dtype 'int8' is not one of float32, float16"):
        convert(root, tmp_path / "store", dtype="int8")  # type: ignore[arg-type]


def test_a_folder_that_the_system_does_not_let_be_made_is_refused(tmp_path: Path) -> None:
    # Not even root may make a folder there.
    with pytest.raises(UsageError, match="cannot write /proc/"):
        convert(write_layout(tmp_path / "data"), "/proc/macil/store")


def test_an_empty_folder_may_be_the_output(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    assert FeatureStore.open(convert(write_layout(tmp_path / "data"), tmp_path / "store")).crops == CROPS


def test_a_folder_that_cannot_be_written_is_reported_and_not_waited_for(demo_layout: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        convert(demo_layout, "/proc/nowhere")
