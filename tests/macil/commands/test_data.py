from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from macil.__main__ import app
from macil.commands import cli
from macil.data import FeatureStore, convert
from macil.io.command_line import command_line
from tests.support.layouts import (
    NORMAL,
    TEST_VIOLENT_2,
    frame_labels,
    rename,
    save_ground_truth,
    tiny_demo,
    write_layout,
)
from tests.support.old_stores import convert_as_version_1


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        cli.main(app, [str(argument) for argument in arguments])
    captured = capsys.readouterr()
    code = left.value.code
    return (code if isinstance(code, int) else -1), captured.out, captured.err


def test_check_lists_faults_apart_from_notes_and_leaves_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_layout(tmp_path)
    (root / "RGB" / f"{NORMAL}__0.npy").unlink()
    (root / "annotations.txt").write_text("")
    code, out, _ = run(capsys, "check", root)
    assert code == 1
    faults, _, notes = out.partition("notes (")
    assert faults.startswith("faults (3):\n")
    assert f"  RGB/{NORMAL}__0.npy: crop 0 of 3 is missing\n" in faults
    assert f"  annotations.txt: does not annotate {TEST_VIOLENT_2}, a violent test video\n" in faults
    assert "2 videos have one audio row more or less" in notes
    assert out.endswith("3 faults\n")


def test_check_shows_published_totals_and_the_size_of_a_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "check", write_layout(tmp_path))
    assert code == 0
    assert any(line.split() == ["training", "videos", "2", "3,954"] for line in out.splitlines())
    assert any(line.split() == ["test", "snippets", "12", "145,649"] for line in out.splitlines())
    assert "every value was read (the default up to 2 GiB of features)" in out
    assert "a store of it takes 0.00 GB as float32, 0.00 GB as float16" in out
    assert out.endswith("no faults\n")


def test_check_says_how_many_sources_it_read_from_how_many_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tiny_demo(tmp_path / "demo")
    _, out, _ = run(capsys, "check", root)
    message = next(line for line in out.splitlines() if line.startswith("sources read"))
    sources = len({path.name.partition("__#")[0] for path in (root / "RGB").iterdir()})
    assert f"{sources} in the names of 24 training videos" in message
    assert "a source of its own" not in out
    store = convert(root, tmp_path / "store")
    assert message in run(capsys, "check", store)[1]

    rename(root, lambda name: name.replace("__#", "%20"))
    code, out, _ = run(capsys, "check", root)
    assert code == 0
    assert "sources: each of the 24 training videos counts as a source of its own" in out
    assert "sources read: 24 in the names of 24 training videos, 6 in the names of 6 test videos" in out
    out = run(capsys, "check", convert_as_version_1(root, tmp_path / "old"))[1]
    assert "note: each of the 24 training videos counts as a source of its own" in out
    assert "note: the store is of format_version 1, which does not say what its test labels rest on" in out


def test_check_and_convert_say_what_the_labels_rest_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_layout(tmp_path / "layout")
    save_ground_truth(root, frame_labels())
    (root / "annotations.txt").unlink()
    message = "gt.npy: the order of the videos in it is an assumption"
    code, out, _ = run(capsys, "check", root)
    assert code == 0
    assert f"  {message}" in out
    assert f"note: {message}" in run(capsys, "convert", root, tmp_path / "store")[2]
    assert f"note: {message}" in run(capsys, "check", tmp_path / "store")[1]


def test_check_says_how_deep_it_looked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_layout(tmp_path)
    assert "headers and a sample of the values were read\n" in run(capsys, "check", root, "--quick")[1]
    assert "every value was read\n" in run(capsys, "check", root, "--deep")[1]


def test_a_long_line_of_a_fault_is_not_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_layout(tmp_path)
    name = f"v={'x' * 150}[bold]__#1_label_A"
    (root / "vggish-features/train" / f"{name}__vggish.npy").write_bytes(b"")
    out = run(capsys, "check", root)[1]
    assert f"  RGB/{name}: has audio in vggish-features/train/ but no visual features\n" in out


@pytest.mark.parametrize("command", ["check", "convert"])
def test_a_folder_that_is_not_there_is_one_line_and_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    arguments = [tmp_path / "out"] if command == "convert" else []
    code, _, err = run(capsys, command, tmp_path / "nowhere", *arguments)
    assert code == 1
    assert err.startswith(f"error: {tmp_path}/nowhere does not exist; expected RGB/")
    assert len(err.splitlines()) == 1


def test_unknown_values_and_outputs_in_use_are_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_layout(tmp_path / "data")
    assert run(capsys, "convert", root, tmp_path / "x", "--dtype", "int8")[0] == 2
    assert run(capsys, "convert", root, root)[0] == 2
    assert run(capsys, "demo", root)[0] == 2
    assert run(capsys, "demo", tmp_path / "x", "--crops", "0")[0] == 2
    assert run(capsys, "check", root, "--shallow")[0] == 2


def test_demo_check_and_convert_follow_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [
        "--train-videos",
        4,
        "--test-videos",
        3,
        "--max-snippets",
        22,
        "--visual-dim",
        16,
        "--audio-dim",
        8,
    ]
    code, out, err = run(capsys, "demo", tmp_path / "demo", *sizes)
    assert (code, out) == (
        0,
        f"wrote {tmp_path}/demo\nnext: {command_line('macil', 'check', f'{tmp_path}/demo')}\n",
    )
    assert "writing the demo: 7/7 videos" in err
    assert run(capsys, "check", tmp_path / "demo", "--deep")[0] == 0
    code, out, err = run(capsys, "convert", tmp_path / "demo", tmp_path / "store", "--dtype", "float16")
    assert code == 0
    assert "converting: 7/7 videos" in err
    store = FeatureStore.open(tmp_path / "store")
    assert store.dtype == "float16"
    assert store.content_hash[:12] in out
    assert np.isfinite(store.visual.float().numpy()).all()


def test_an_interruption_leaves_with_130_and_says_what_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_layout(tmp_path / "data")

    def interrupt(path: Path, dtype: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("macil.data.store.writer.cast_features", interrupt)
    code, _, err = run(capsys, "convert", root, tmp_path / "out")
    assert code == 130
    assert f"finished videos are kept in {tmp_path}/out.partial; run the same command again" in err
    monkeypatch.undo()
    assert run(capsys, "convert", root, tmp_path / "out")[0] == 0


def test_on_a_terminal_there_is_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pty = pytest.importorskip("pty")
    primary, secondary = pty.openpty()
    shown = bytearray()

    def read() -> None:
        # A terminal whose reader is slow blocks its writer; Linux reports its end as an error.
        with contextlib.suppress(OSError):
            while chunk := os.read(primary, 4096):
                shown.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(secondary, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        patch.setenv("TERM", "xterm")
        convert(write_layout(tmp_path / "data"), tmp_path / "out", progress=True)
    reader.join(timeout=30)
    os.close(primary)
    text = shown.decode()
    assert "converting" in text
    assert "━" in text
    assert "5/5 videos" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
