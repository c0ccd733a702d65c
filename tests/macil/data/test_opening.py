from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from macil.data import FeatureStore, convert, default_cache, resolve
from macil.data.reading import Reading
from macil.errors import DataError, UsageError
from tests.support.layouts import CROPS, NORMAL, TEST_VIOLENT, save, write_layout

RESOLVE_MODULE = importlib.import_module("macil.data.opening")
WRITER_MODULE = importlib.import_module("macil.data.store.writer")
VIDEOS = 5  # of the layout

# Makes a small demo slowly.
SLOW_DEMO = """
import importlib, time
from macil.data.demo.generator import DemoGenerator
resolve = importlib.import_module("macil.data.opening")
draw, write_demo = DemoGenerator.draw, resolve.write_demo
def slow_draw(self, video):
    time.sleep(0.1)
    return draw(self, video)
DemoGenerator.draw = slow_draw
resolve.write_demo = lambda out, **more: write_demo(out, train_videos=6, test_videos=4, visual_dim=16, **more)
print(resolve.resolve(None).content_hash)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MACIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "data")


def read_by(call: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the feature files whose values were read to be converted or compared."""
    read: list[str] = []
    load = WRITER_MODULE.load_features

    def spy(path: Path) -> np.ndarray:
        read.append(path.name)
        return load(path)

    with monkeypatch.context() as patch:
        patch.setattr(WRITER_MODULE, "load_features", spy)
        call()
    return read


def replace_unseen(path: Path) -> None:
    """Other values in a file, which keeps its size and its time."""
    before = path.stat()
    save(path, -3 * np.load(path)[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_a_store_is_opened_where_it_is(demo_store: FeatureStore, cache: Path) -> None:
    assert resolve(demo_store.path).path == demo_store.path
    assert resolve(str(demo_store.path)).content_hash == demo_store.content_hash
    assert not cache.exists()


def test_a_layout_folder_is_converted_once(layout: Path, cache: Path) -> None:
    first = resolve(layout)
    inode = (first.path / "visual.arrow").stat().st_ino
    assert first.path.parent == cache
    assert resolve(layout).path == first.path
    assert (first.path / "visual.arrow").stat().st_ino == inode
    assert [path.name for path in cache.iterdir()] == [first.path.name]


def test_a_relative_path_means_the_same_folder(layout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(layout.parent)
    assert resolve("data").path == resolve(layout).path


@pytest.mark.parametrize("change", ["value", "annotation", "video"])
def test_a_change_in_the_folder_is_noticed(
    layout: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = resolve(layout)
    if change == "value":
        path = layout / "RGB" / f"{NORMAL}__0.npy"
        save(path, np.load(path) + 1)
        os.utime(path, ns=(0, 12345))
    elif change == "annotation":
        text = (layout / "annotations.txt").read_text()
        (layout / "annotations.txt").write_text(text.replace(" 10 20 ", " 9 20 "))
    else:
        for path in [*layout.rglob(f"{NORMAL}__*")]:
            path.rename(path.with_name(path.name.replace(NORMAL, f"new{NORMAL}")))
    second = resolve(layout)
    assert second.path != first.path
    assert (second.content_hash, second.labels_hash) != (first.content_hash, first.labels_hash)
    note = (
        f"note: {first.path} is an older conversion; delete it when no run that was begun on it is to go on"
    )
    assert note in capsys.readouterr().err
    # Whoever trains on the older one goes on.
    assert FeatureStore.open(first.path).content_hash == first.content_hash


def test_new_features_of_the_same_size_and_time_are_noticed(
    layout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = resolve(layout)
    replace_unseen(layout / "RGBTest" / f"{TEST_VIOLENT}__1.npy")
    second = resolve(layout)
    assert second.path != first.path
    assert second.content_hash != first.content_hash
    assert second.content_hash == resolve(layout, cache=layout.parent / "empty").content_hash
    output = capsys.readouterr().err
    assert f"note: {layout}: the features of {TEST_VIOLENT} are not those that {first.path} holds" in output


def test_a_file_of_the_same_size_and_time_put_in_the_place_of_another_is_noticed(layout: Path) -> None:
    """As an archive does that was packed with fixed times: other inodes, no other time."""
    first = resolve(layout)
    path = layout / "vggish-features/train" / f"{NORMAL}__vggish.npy"
    other = path.with_suffix(".new")
    shutil.copy2(path, other)
    with other.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x41")
    shutil.copystat(path, other)
    other.replace(path)
    assert resolve(layout).content_hash != first.content_hash


def test_what_says_nothing_new_is_not_read(layout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = resolve(layout)
    monkeypatch.setattr(RESOLVE_MODULE, "read_source", None)
    assert resolve(layout).path == first.path


def test_a_copied_folder_is_read_once_and_not_converted_again(
    layout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = resolve(layout)
    inode = (first.path / "visual.arrow").stat().st_ino
    copy = layout.parent / "elsewhere" / "copy"
    shutil.copytree(layout, copy, copy_function=shutil.copy)  # other inodes, times and path
    found: list[Path] = []
    read = read_by(lambda: found.append(resolve(copy, progress=True).path), monkeypatch)
    assert found == [first.path]
    assert (first.path / "visual.arrow").stat().st_ino == inode
    assert len(read) == len(set(read)) == VIDEOS * (CROPS + 1)
    output = capsys.readouterr().err
    assert f"note: {copy} may hold what {first.path} was made from; comparing the content of 5 of 5" in output
    assert f"comparing: {VIDEOS}/{VIDEOS} videos" in output
    assert f"note: {copy} holds what {first.path} was made from; nothing is converted" in output
    assert read_by(lambda: resolve(copy), monkeypatch) == []
    assert read_by(lambda: resolve(layout), monkeypatch) == []
    assert capsys.readouterr().err == ""
    # One of them changes: the other keeps the store, which is nobody's older conversion.
    replace_unseen(layout / "RGB" / f"{NORMAL}__0.npy")
    assert resolve(layout).content_hash != first.content_hash
    assert "older conversion" not in capsys.readouterr().err
    assert resolve(copy).path == first.path


def test_only_videos_whose_files_were_touched_are_compared(
    layout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = resolve(layout)
    os.utime(layout / "RGB" / f"{NORMAL}__0.npy", (1, 1))
    (layout / "annotations.txt").touch()
    found: list[Path] = []
    read = read_by(lambda: found.append(resolve(layout).path), monkeypatch)
    assert found == [first.path]
    assert sorted(read) == [*(f"{NORMAL}__{crop}.npy" for crop in range(CROPS)), f"{NORMAL}__vggish.npy"]
    assert read_by(lambda: resolve(layout), monkeypatch) == []


def test_a_store_that_does_not_say_what_it_was_made_from_is_compared_once(
    layout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of an earlier version, whose name tells nothing of inodes."""
    made = resolve(layout).path
    (note,) = made.glob("provenance-*.json")
    note.unlink()
    old = made.rename(made.with_name(f"{made.name[:-16]}0123456789abcdef"))
    found: list[Path] = []
    read = read_by(lambda: found.append(resolve(layout).path), monkeypatch)
    assert found == [old]
    assert len(read) == VIDEOS * (CROPS + 1)
    assert read_by(lambda: resolve(layout), monkeypatch) == []


@pytest.mark.parametrize("changed", [False, True])
def test_a_comparison_cut_short_is_done_again_and_nothing_is_trusted_before(
    layout: Path, changed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = resolve(layout)
    copy = shutil.copytree(layout, layout.parent / "copy")
    if changed:
        replace_unseen(copy / "RGBTest" / f"{TEST_VIOLENT}__1.npy")
    load = WRITER_MODULE.load_features

    def interrupt(path: Path) -> np.ndarray:
        if path.name.startswith(TEST_VIOLENT):
            raise KeyboardInterrupt
        return load(path)

    with monkeypatch.context() as patch:
        patch.setattr(WRITER_MODULE, "load_features", interrupt)
        with pytest.raises(KeyboardInterrupt):
            resolve(copy)
    again = resolve(copy)
    assert (again.path != first.path) == (again.content_hash != first.content_hash) == changed


def test_a_note_counts_only_for_the_store_it_was_written_for(layout: Path, tmp_path: Path) -> None:
    """Somebody puts another store into the folder of the first, where the first's note stays."""
    first = resolve(layout)
    other = write_layout(tmp_path / "other")
    replace_unseen(other / "RGB" / f"{NORMAL}__0.npy")
    second = resolve(other)
    for path in second.path.glob("*.arrow"):
        shutil.copy(path, first.path)
    shutil.copy(second.path / "meta.json", first.path)
    assert resolve(layout).content_hash == first.content_hash != second.content_hash


def test_a_store_of_another_format_is_not_taken_for_the_folder(
    layout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = resolve(layout)
    monkeypatch.setattr(importlib.import_module("macil.data.store.conversion"), "FORMAT_VERSION", 0)
    monkeypatch.setattr(importlib.import_module("macil.data.store.provenance"), "STORE_VERSION", 0)
    with pytest.raises(
        DataError, match="format_version is 0"
    ):  # it was made anew, and this version cannot read it
        resolve(layout)
    assert len([*first.path.parent.glob("data-*")]) == 2


@pytest.mark.parametrize("options", [{"dtype": "float16"}, {"reading": Reading(snippet_frames=15)}, {}])
def test_a_store_in_the_cache_that_somebody_made_with_other_options_is_not_taken_for_the_folder(
    layout: Path, cache: Path, options: dict[str, Any]
) -> None:
    made = convert(layout, cache / "a", **options)
    store = resolve(layout)
    assert (store.dtype, store.snippet_frames) == ("float32", 16)
    assert (store.path == made) is not bool(options)


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"kind": "macil provenance", "format_version": 2}'])
def test_a_note_that_is_none_is_as_good_as_absent(
    layout: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = resolve(layout)
    (note,) = first.path.glob("provenance-*.json")
    note.write_text(damage)
    assert resolve(layout).path == first.path
    assert read_by(lambda: resolve(layout), monkeypatch) == []


def test_where_the_note_cannot_be_written_the_store_is_used_and_that_is_reported(
    layout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = resolve(layout)
    (note,) = first.path.glob("provenance-*.json")
    note.unlink()
    note.mkdir()
    assert resolve(layout).path == first.path
    assert f"{layout} will be compared again next time" in capsys.readouterr().err


def test_several_at_once_compare_once(layout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = resolve(layout)
    copy = shutil.copytree(layout, layout.parent / "copy")
    found: list[Path] = []

    def several() -> None:
        threads = [threading.Thread(target=lambda: found.append(resolve(copy).path)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    read = read_by(several, monkeypatch)
    assert found == [first.path] * 3
    assert len(read) == VIDEOS * (CROPS + 1)


def test_data_that_are_made_up_are_not_taken_for_others_that_hold_the_same(layout: Path) -> None:
    honest = resolve(layout)
    (layout / "demo.json").write_text("{}")
    made_up = resolve(layout)
    assert made_up.path != honest.path
    assert (honest.meta.made_up, made_up.meta.made_up) == (False, True)


def test_two_folders_of_the_same_name_do_not_meet(tmp_path: Path, layout: Path) -> None:
    other = write_layout(tmp_path / "other" / "data")
    path = other / "RGB" / f"{NORMAL}__0.npy"
    save(path, np.load(path) + 1)
    assert resolve(layout).content_hash != resolve(other).content_hash


def test_what_is_begun_of_an_older_state_is_removed(layout: Path, cache: Path) -> None:
    path = resolve(layout).path
    prefix = path.name.rpartition("-")[0]
    shutil.copytree(path, cache / f"{prefix}-0000000000000000.partial")
    (cache / "another-0000.partial").mkdir()
    resolve(layout)
    assert sorted(entry.name for entry in cache.iterdir()) == ["another-0000.partial", path.name]


def test_a_damaged_copy_in_the_cache_is_made_again(layout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = resolve(layout)
    path = first.path / "audio.arrow"
    path.write_bytes(path.read_bytes()[:-10])
    assert resolve(layout).content_hash == first.content_hash
    assert "making it again" in capsys.readouterr().err


def test_two_processes_at_once_make_the_demo_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = subprocess.Popen([sys.executable, "-c", SLOW_DEMO], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not [*cache.glob("demo-*.layout.partial")]:
        assert other.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    monkeypatch.setattr(RESOLVE_MODULE, "write_demo", None)
    store = resolve(None)
    assert "another process is making the demo" in capsys.readouterr().err
    assert other.communicate(timeout=60)[0].strip() == store.content_hash
    assert [path.name for path in cache.iterdir()] == [store.path.name]
    assert resolve(None).path == store.path


def test_no_data_means_the_demo(cache: Path) -> None:
    store = resolve(None)
    assert (len(store.videos("train")), len(store.videos("test"))) == (120, 80)
    assert (store.visual_dim, store.audio_dim, store.crops) == (1024, 128, 5)
    assert [path.name for path in cache.iterdir()] == [store.path.name]


def test_a_demo_killed_between_writing_and_converting_is_finished(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def small(out: Path, *, progress: bool) -> Path:
        return write_layout(out)

    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RESOLVE_MODULE, "write_demo", small)
        patch.setattr(RESOLVE_MODULE, "convert", stop)
        with pytest.raises(KeyboardInterrupt):
            resolve(None)
    monkeypatch.setattr(RESOLVE_MODULE, "write_demo", stop)
    assert resolve(None).videos("test").names[0] == TEST_VIOLENT
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


def test_data_that_are_not_there_are_refused(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        resolve(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file"):
        resolve(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is empty"):
        resolve(tmp_path / "empty")
    assert not cache.exists()


def test_data_with_faults_are_refused_with_every_fault(layout: Path) -> None:
    for path in [*layout.glob("RGB/*__0.npy")]:
        path.unlink()
    with pytest.raises(DataError) as error:
        resolve(layout)
    assert len(error.value.problems) == 2


def test_a_link_to_nowhere_is_a_fault_of_the_data(layout: Path) -> None:
    path = layout / "RGB" / f"{NORMAL}__0.npy"
    path.unlink()
    path.symlink_to("/nowhere/x.npy")
    with pytest.raises(DataError) as error:
        resolve(layout)
    (problem,) = error.value.problems
    assert problem == f"RGB/{NORMAL}__0.npy: cannot be read: No such file or directory"


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path, layout: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot make the cache .*MACIL_CACHE"):
        resolve(layout, cache=tmp_path / "file" / "cache")


def test_the_cache_is_where_the_platform_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MACIL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/cache")
    monkeypatch.setattr(sys, "platform", "linux")
    assert default_cache() == Path("/some/cache/macil")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "macil"


def test_a_file_uri_names_data_and_an_empty_text_nothing(demo_store: FeatureStore) -> None:
    uri = demo_store.path.as_uri()
    assert resolve(uri).path == FeatureStore.open(uri).path == demo_store.path
    for opened in (resolve, FeatureStore.open):
        with pytest.raises(UsageError, match="the path is empty"):
            opened("")


def test_without_a_home_folder_the_cache_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("MACIL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(UsageError, match="no home folder; set MACIL_CACHE"):
        default_cache()
