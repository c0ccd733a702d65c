from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from macil.data import audit, write_demo
from macil.data.demo.generator import DemoGenerator, DemoSize
from macil.data.xd.annotations import parse_annotation
from macil.errors import UsageError

TINY: dict[str, Any] = {
    "train_videos": 5, "test_videos": 4, "min_snippets": 3, "max_snippets": 6,
    "visual_dim": 16, "audio_dim": 8, "crops": 2,
}  # fmt: skip

SLOW = """
import json, sys, time
from macil.data.demo.writing import write_demo
from macil.data.demo.generator import DemoGenerator
draw = DemoGenerator.draw
def slow_draw(self, video):
    time.sleep(0.05)
    return draw(self, video)
DemoGenerator.draw = slow_draw
write_demo(sys.argv[1], **json.loads(sys.argv[2]))
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_demo_passes_its_own_audit(demo_layout: Path) -> None:
    report = audit(demo_layout, deep=True)
    assert report.faults == []
    assert {total.name: total.value for total in report.totals} | {
        "training videos": 24,
        "test videos": 10,
        "crops": 5,
        "visual width": 64,
        "audio width": 16,
    } == {total.name: total.value for total in report.totals}
    assert {header.dtype for header in report.headers.values()} == {"float32"}
    lengths = [report.headers[video.visual[0]].rows for video in report.layout.videos]
    assert min(lengths) >= 8
    assert max(lengths) <= 30


def test_equal_arguments_give_equal_files(tmp_path: Path) -> None:
    first = contents(write_demo(tmp_path / "a", **TINY, seed=3))
    assert contents(write_demo(tmp_path / "b", **TINY, seed=3)) == first
    other = contents(write_demo(tmp_path / "c", **TINY, seed=4))
    assert other.keys() != first.keys()


def test_the_number_of_videos_does_not_change_the_features_of_a_place() -> None:
    few, many = (DemoGenerator(DemoSize(**TINY | {"train_videos": n})) for n in (4, 9))
    assert few.videos[2].length == many.videos[2].length


def test_crops_agree_without_being_equal() -> None:
    generator = DemoGenerator(DemoSize(train_videos=2, test_videos=2))
    visual, audio = generator.draw(generator.videos[0])
    assert visual.dtype == audio.dtype == np.float32
    assert visual.min() >= 0
    correlation = np.corrcoef(visual.reshape(5, -1))[np.triu_indices(5, 1)]
    assert (correlation > 0.5).all()
    assert (correlation < 0.95).all()


def test_events_are_in_visual_and_audio_features_at_different_times_in_violent_videos_only() -> None:
    videos = DemoGenerator(DemoSize(train_videos=200)).videos
    for video in videos:
        assert video.violent == bool(video.intervals) == ("_label_A" not in video.name)
        for start, end in video.intervals:
            assert 0 <= start < end <= 16 * video.length
    both = [video for video in videos if video.visual_events and video.audio_events]
    assert len(both) > 50
    assert all(video.visual_events != video.audio_events for video in both)
    # Shifted by up to four snippets, so some are apart and most overlap.
    pairs = [
        (video.visual_events[0], video.audio_events[0])
        for video in both
        if len(video.visual_events) == len(video.audio_events) == 1
    ]
    overlap = np.mean([a[0] < b[1] and b[0] < a[1] for a, b in pairs])
    assert 0.5 < overlap < 1


def test_normal_videos_hold_distractors_along_the_direction_of_violence() -> None:
    # Along a direction common to all violence, a normal video's strongest snippet can beat a violent one's.
    generator = DemoGenerator(DemoSize(train_videos=60, visual_dim=256))
    direction = np.mean(list(generator._visual._violence.values()), axis=0)
    direction /= np.linalg.norm(direction)
    peaks: dict[bool, list[float]] = {True: [], False: []}
    for video in generator.videos[:60]:
        score = (generator.draw(video)[0].mean(0) - 0.5) @ direction / 0.3
        peaks[video.violent].append(float(np.sort(score)[-3:].mean()))
    assert np.median(peaks[True]) > np.median(peaks[False])
    assert max(peaks[False]) > np.median(peaks[True])


def test_sources_are_shared_and_never_across_splits() -> None:
    videos = DemoGenerator(DemoSize(train_videos=400, test_videos=200)).videos
    sources = {
        split: [v.name.rpartition("__#")[0] for v in videos if v.split == split]
        for split in ("train", "test")
    }
    assert not set(sources["train"]) & set(sources["test"])
    shared = sum(sources["train"].count(source) > 1 for source in sources["train"]) / 400
    assert 0.5 < shared < 0.8  # 2551 of 3954 in XD-Violence
    assert len({video.name for video in videos}) == 600


def test_annotations_have_the_quirks_of_the_real_file(tmp_path: Path) -> None:
    path = write_demo(tmp_path / "demo", **TINY | {"test_videos": 120})
    lines = (path / "annotations.txt").read_text().splitlines()
    assert len(lines) == 75
    mp4 = sum(line.split()[0].endswith(".mp4") for line in lines)
    assert 1 <= mp4 < 12
    lengths = {
        file.name.removesuffix("__0.npy"): np.load(file).shape[0]
        for file in (path / "RGBTest").glob("*__0.npy")
    }
    excess = [end - 16 * lengths[name] for name, pairs in map(parse_annotation, lines) for _, end in pairs]
    assert 0 < max(excess) <= 16


def test_the_ground_truth_file_agrees(demo_layout: Path) -> None:
    labels = np.load(demo_layout / "gt.npy")
    assert set(np.unique(labels)) == {0, 1}
    report = audit(demo_layout)
    assert report.layout.ground_truth is not None
    assert report.ok


def test_a_demo_says_what_it_is(demo_layout: Path) -> None:
    description = json.loads((demo_layout / "demo.json").read_text())
    assert description["what"].startswith("made-up features")
    assert description["train_videos"] == 24


@pytest.mark.nightly
def test_a_killed_demo_is_taken_up_with_the_same_result(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(out), json.dumps(TINY)])
    audio = tmp_path / "demo.partial" / "vggish-features" / "train"
    deadline = time.monotonic() + 60
    while not audio.exists() or len([*audio.iterdir()]) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    times = {path.name: path.stat().st_mtime_ns for path in audio.glob("[!.]*")}
    write_demo(out, **TINY)
    again = {path.name: path.stat().st_mtime_ns for path in (out / "vggish-features" / "train").iterdir()}
    assert len(times) >= 2
    assert times.items() <= again.items()
    assert contents(out) == contents(write_demo(tmp_path / "other", **TINY))


def test_an_unfinished_demo_of_another_size_is_begun_anew(tmp_path: Path) -> None:
    partial = tmp_path / "demo.partial"
    shutil.copytree(write_demo(tmp_path / "old", **TINY, seed=9), partial)
    assert contents(write_demo(tmp_path / "demo", **TINY)) == contents(write_demo(tmp_path / "new", **TINY))


def test_only_a_demo_is_ever_replaced(tmp_path: Path) -> None:
    out = write_demo(tmp_path / "demo", **TINY)
    with pytest.raises(UsageError, match="holds a demo already"):
        write_demo(out, **TINY)
    write_demo(out, **TINY | {"train_videos": 3}, overwrite=True)
    assert len([*(out / "vggish-features" / "train").iterdir()]) == 3
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UsageError, match="is not empty"):
        write_demo(tmp_path / "mine", **TINY, overwrite=True)
    with pytest.raises(UsageError, match="is a file"):
        write_demo(tmp_path / "mine" / "thesis.tex", **TINY, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo", "mine"]


def test_sizes_out_of_range_are_refused_all_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        write_demo(tmp_path / "demo", train_videos=1, crops=0, min_snippets=9, max_snippets=5)
    assert str(error.value) == (
        "demo: train-videos 1 is not between 2 and 100000; max-snippets 5 is not between 9 and 100000;"
        " crops 0 is not between 1 and 10"
    )
    assert not (tmp_path / "demo.partial").exists()


def test_a_disk_that_is_too_small_is_refused_beforehand(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the demo needs [\d.]+ GB, the disk of .* has [\d.]+ GB free"):
        write_demo(tmp_path / "demo", train_videos=100_000, max_snippets=100_000)


@pytest.mark.parametrize("smallest", [{"min_snippets": 1, "max_snippets": 1}, {"crops": 1}, {"audio_dim": 8}])
def test_the_smallest_sizes_work(tmp_path: Path, smallest: dict[str, int]) -> None:
    assert audit(write_demo(tmp_path / "demo", **TINY | {"train_videos": 2, "test_videos": 2} | smallest)).ok
