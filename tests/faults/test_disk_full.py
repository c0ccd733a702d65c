"""Disks that fill up: every command names the file and the reason, and leaves nothing that looks whole."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from macil.data import FeatureStore, convert, write_demo
from macil.errors import WriteError
from macil.io.files import atomic_path, write_text_atomic
from macil.training.checkpoint import load_checkpoint
from tests.faults.test_killed import (
    DEMO,
    VIDEOS,
    finished,
    pause_converting,
    pause_demo,
    require_whole,
    taken_up,
)
from tests.support.faults import (
    MACIL,
    REPORT,
    SmallDisk,
    contents,
    half_written,
    pause,
    run,
    small_disk,
    start,
)
from tests.support.run_folders import RunFolder

FULL = "the disk is full; free some space and run again"

SMALL = [
    "--batch-size",
    24,
    "--hidden-dim",
    16,
    "--feedforward-dim",
    16,
    "--max-snippets",
    20,
    "--threads",
    1,
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", "24m") as mounted:
        yield mounted


def test_a_full_disk_at_the_first_byte_and_in_the_middle_is_named_and_leaves_the_old_file(
    disk: SmallDisk,
) -> None:
    path = disk.path / "a.txt"
    write_text_atomic(path, "old")
    for room in (0, 4096, 65536):
        disk.fill(leave=room)
        with pytest.raises(WriteError, match=rf"cannot write {path}: {FULL}"):
            write_text_atomic(path, "x" * 200_000)
        assert path.read_text() == "old"
        assert half_written(disk.path) == []
        disk.make_room()
    write_text_atomic(path, "x" * 200_000)


def test_a_disk_without_room_for_another_file_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m", ",nr_inodes=2") as disk:
        (disk.path / "a").touch()
        with pytest.raises(WriteError, match=rf"cannot write {disk.path}/b: {FULL}"):
            write_text_atomic(disk.path / "b", "text")
        assert [path.name for path in disk.path.iterdir()] == ["a"]


def test_a_limit_on_file_sizes_is_named(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(WriteError, match="larger than this file system or your limits allow"):
            write_text_atomic(tmp_path / "a", "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, former)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.EDQUOT, "quota"), (errno.EIO, "Input/output error"), (errno.EROFS, "Read-only")],
)
def test_what_a_disk_refuses_in_the_middle_is_named(number: int, message: str, tmp_path: Path) -> None:
    """Raised, not real: a quota, a broken disk and one that is remounted read-only cannot be had here."""
    with (
        pytest.raises(WriteError, match=f"cannot write {tmp_path}/a: .*{message}"),
        atomic_path(tmp_path / "a"),
    ):
        raise OSError(number, os.strerror(number))
    assert not list(tmp_path.iterdir())


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"), atomic_path(tmp_path / "a") as temporary:
        shutil.copyfile(tmp_path / "absent", temporary)


@pytest.mark.nightly
def test_a_conversion_on_a_disk_that_fills_up_keeps_what_is_finished(
    demo_layout: Path, demo_store: FeatureStore, disk: SmallDisk, tmp_path: Path
) -> None:
    out, partial = disk.path / "store", disk.path / "store.partial"
    held = pause_converting(8, tmp_path / "go")
    command = start(MACIL, "convert", demo_layout, out, logs=tmp_path, before=held)
    command.wait_for(lambda: finished(partial) == 8)
    disk.fill()
    (tmp_path / "go").touch()
    command.finish().refused(
        f"error: cannot write {out}: {FULL}", "finished videos are kept in store.partial"
    )
    kept = finished(partial)
    assert 8 <= kept < VIDEOS
    assert not out.exists()

    # Nothing to be done before there is room.
    run(MACIL, "convert", demo_layout, out, logs=tmp_path).refused(out.parent)
    disk.make_room()
    ended = run(MACIL, "convert", demo_layout, out, logs=tmp_path).done()
    assert 8 < taken_up(ended.err, "the conversion") <= kept + 1
    assert contents(out) == contents(convert(demo_layout, tmp_path / "other"))
    assert half_written(disk.path) == []


@pytest.mark.nightly
@pytest.mark.parametrize("room", [0, 4096])
def test_a_demo_on_a_disk_that_fills_up_keeps_what_is_finished(
    room: int, disk: SmallDisk, tmp_path: Path
) -> None:
    out = disk.path / "demo"
    audio = disk.path / "demo.partial" / "vggish-features"
    held = pause_demo(6, tmp_path / "go")
    command = start(MACIL, "demo", out, *DEMO, logs=tmp_path, before=held)
    command.wait_for(lambda: len([*audio.glob("*/[!.]*")]) == 6)
    disk.fill(leave=room)
    (tmp_path / "go").touch()
    command.finish().refused(f"error: cannot write {out}: {FULL}", "finished videos are kept in demo.partial")
    assert not out.exists()

    disk.make_room()
    ended = run(MACIL, "demo", out, *DEMO, logs=tmp_path).done()
    assert taken_up(ended.err, "the demo") > 6
    names = [str(name).removeprefix("--").replace("-", "_") for name in DEMO[::2]]
    sizes = dict(zip(names, DEMO[1::2], strict=True))
    assert contents(out) == contents(write_demo(tmp_path / "other", **sizes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of six epochs that nothing disturbed; read only."""
    folder = tmp_path_factory.mktemp("train")
    run(MACIL, "train", demo_store.path, "--out", folder / "run", *SMALL, "--epochs", 6, logs=folder).done()
    return folder / "run"


def epochs(out: Path) -> int:
    path = out / "epochs.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def saved(out: Path) -> int:
    return int(load_checkpoint(out / "last.pt")["epoch"]) if (out / "last.pt").exists() else 0


@pytest.mark.nightly
def test_a_training_on_a_disk_that_fills_up_keeps_its_epochs_and_goes_on(
    trained: Path, demo_store: FeatureStore, disk: SmallDisk, tmp_path: Path
) -> None:
    out = disk.path / "run"
    arguments = ["train", demo_store.path, "--out", out, *SMALL, "--epochs", 6]
    held = pause("macil.commands.run_training:_describe", 3, tmp_path / "go")
    command = start(MACIL, *arguments, logs=tmp_path, before=held)
    command.wait_for(lambda: epochs(out) == 3 and saved(out) == 3)
    disk.fill()
    (tmp_path / "go").touch()
    command.finish().refused(
        f"error: cannot write {out}/", FULL, "finished epochs are kept, go on with --resume"
    )
    assert half_written(out) == []
    assert saved(out) == 3

    disk.make_room()
    ended = run(MACIL, "train", demo_store.path, "--out", out, "--resume", logs=tmp_path).done()
    assert "note: going on after epoch 3 of 6" in ended.err
    assert epochs(out) == 6
    with np.load(trained / "scores.npz") as whole, np.load(out / "scores.npz") as resumed:
        assert set(whole) == set(resumed)
        for name in whole:
            np.testing.assert_array_equal(whole[name], resumed[name])


@pytest.mark.nightly
@pytest.mark.parametrize("room", [0, 4096, 16384, 65536])
def test_a_training_that_has_no_room_from_the_start_leaves_nothing_that_could_be_resumed_wrongly(
    room: int, demo_store: FeatureStore, disk: SmallDisk, tmp_path: Path
) -> None:
    out = disk.path / "run"
    arguments = ["train", demo_store.path, "--out", out, *SMALL, "--epochs", 2]
    disk.fill(leave=room)
    run(MACIL, *arguments, logs=tmp_path).refused(f"cannot write {out}", FULL)
    assert half_written(disk.path) == []
    assert not (out / "last.pt").exists()
    disk.make_room()
    run(MACIL, *arguments, logs=tmp_path).done()


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize("room", [0, 4096, 32768, 131072])
def test_scores_on_a_full_disk_are_whole_or_absent(
    kind: str, room: int, trained: Path, demo_store: FeatureStore, disk: SmallDisk, tmp_path: Path
) -> None:
    out = disk.path / "scores"
    arguments = ["score", trained / "last.pt", demo_store.path, "--out", out, "--format", kind]
    disk.fill(leave=room)
    run(MACIL, *arguments, logs=tmp_path).refused(f"error: cannot write {out}: {FULL}; nothing was written")
    assert [path.name for path in disk.path.iterdir()] == [".filler"]
    disk.make_room()
    run(MACIL, *arguments, logs=tmp_path).done()
    before = contents(out)
    # Scores that are there outlive an attempt to replace them.
    disk.fill(leave=room)
    run(MACIL, *arguments, "--overwrite", logs=tmp_path).refused(f"cannot write {out}")
    assert contents(out) == before


@pytest.mark.nightly
@pytest.mark.parametrize("to", ["safetensors", "released", "onnx"])
@pytest.mark.parametrize("room", [0, 4096])
def test_an_export_on_a_full_disk_is_whole_or_absent(
    to: str, room: int, trained: Path, disk: SmallDisk, tmp_path: Path
) -> None:
    out = disk.path / f"network.{'pkl' if to == 'released' else to}"
    arguments = ["export", trained / "last.pt", "--to", to, "--out", out]
    disk.fill(leave=room)
    run(MACIL, *arguments, logs=tmp_path).refused(f"error: cannot write {out}: {FULL}")
    assert [path.name for path in disk.path.iterdir()] == [".filler"]
    disk.make_room()
    run(MACIL, *arguments, logs=tmp_path).done()


@pytest.fixture(scope="module")
def searched(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "search", demo_store, "heldout").begin(trials=2)
    folder.add("00000", lambda_v2b=0.5)
    folder.add("00001", lambda_v2b=2.0)
    return folder.path


@pytest.mark.nightly
@pytest.mark.parametrize("room", [0, 4096, 12288, 40_000, 400_000])
def test_a_report_on_a_full_disk_leaves_the_older_one_whole(
    room: int, searched: Path, disk: SmallDisk, tmp_path: Path
) -> None:
    target = Path(shutil.copytree(searched, disk.path / "search"))
    flags = [] if room > 20_000 else ["--no-figures"]
    run(REPORT, target, logs=tmp_path).done()
    before = contents(target / "report")
    disk.fill(leave=room)
    run(REPORT, target, *flags, logs=tmp_path).refused(f"cannot write {target / 'report'}/", FULL)
    require_whole(target / "report")
    after = contents(target / "report")
    assert after.keys() == before.keys(), "nothing is lost, no half of a file is left"
    assert after["report.html"] == before["report.html"]
    disk.make_room()
    run(REPORT, target, *flags, logs=tmp_path).done()
    assert (target / "report" / "report.html").read_bytes() != before["report.html"]
