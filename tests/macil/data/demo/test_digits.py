from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.curves.sets import REAL_AV
from macil.data import audit, write_demo
from macil.data.demo.dice import Dice
from macil.data.demo.digits import DigitsDemo
from tests.support.repository import ROOT

# Whoever changes a byte of the demo raises DEMO_VERSION, measures again (python -m benchmarks.demo_criteria) and prints
# new figures wherever the old ones stand.
HASH = "11db27d47edb8c4a563f03accaf8086f"


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("digits") / "layout", ground_truth=True)


def test_the_embedded_demo_has_the_same_bytes_on_every_host(layout: Path) -> None:
    found = hashlib.blake2b(digest_size=16)
    for path in sorted(layout.rglob("*")):
        if path.is_file():
            found.update(path.relative_to(layout).as_posix().encode() + b"\0")
            found.update(path.read_bytes())
    assert found.hexdigest() == HASH


def test_it_passes_its_own_audit_and_is_as_wide_as_the_real_data(layout: Path) -> None:
    report = audit(layout, deep=True)
    assert report.faults == []
    totals = {total.name: total.value for total in report.totals}
    expected = {
        "training videos": 120,
        "test videos": 80,
        "crops": 5,
        "visual width": 1024,
        "audio width": 128,
    }
    assert totals | expected == totals


def test_it_says_whose_work_it_is_made_of(layout: Path) -> None:
    notice = (layout / "NOTICE").read_text(encoding="utf-8")
    assert notice == (ROOT / "macil/data/demo/NOTICE").read_text(encoding="utf-8")
    for owed in ("Free Spoken Digit Dataset", "CC BY-SA 4.0", "load_digits", "CC BY 4.0"):
        assert owed in notice
    assert json.loads((layout / "demo.json").read_text())["license"] == "CC-BY-SA-4.0"


def test_half_of_the_videos_have_an_event_whose_halves_are_up_to_two_snippets_apart() -> None:
    videos = DigitsDemo().videos
    for split, count in (("train", 120), ("test", 80)):
        assert sum(video.violent for video in videos if video.split == split) == count // 2
    shifts = set()
    for video in videos:
        assert bool(video.intervals) == video.violent == ("_label_A" not in video.name)
        assert all(0 <= start < end <= 16 * video.length for start, end in video.intervals)
        for seen, heard in zip(video.visual_events, video.audio_events, strict=True):
            shifts.add((heard[0] - seen[0]) // 16)
    assert shifts == {-2, -1, 0, 1, 2}


def test_sources_are_shared_and_never_across_splits() -> None:
    videos = DigitsDemo().videos
    sources = {
        split: [video.name.partition("__#")[0] for video in videos if video.split == split]
        for split in ("train", "test")
    }
    assert not set(sources["train"]) & set(sources["test"])
    shared = np.mean([sources["train"].count(source) > 1 for source in sources["train"]])
    assert 0.5 < shared < 0.9  # 2551 of 3954 in XD-Violence
    assert len({video.name for video in videos}) == len(videos)


def _examples(demo: DigitsDemo, which: str, split: str) -> set[int]:
    indices = getattr(demo, which)._indices.items()
    return {int(i) for (_, of), found in indices if of == split for i in found}


@pytest.mark.parametrize(("which", "train", "test"), [("_images", 600, 300), ("_recordings", 1140, 360)])
def test_no_image_and_no_recording_is_in_both_splits_or_in_the_data_that_confirm(
    which: str, train: int, test: int
) -> None:
    demo, other = DigitsDemo(), DigitsDemo(REAL_AV)
    parts = [_examples(each, which, split) for each in (demo, other) for split in ("train", "test")]
    assert [len(part) for part in parts[:2]] == [train, test]
    assert sum(len(part) for part in parts) == len(set.union(*parts))


def test_crops_agree_without_being_equal() -> None:
    demo = DigitsDemo()
    visual, audio = demo.draw(demo.videos[0])
    assert visual.dtype == audio.dtype == np.float32
    assert visual.min() >= 0
    correlation = np.corrcoef(visual.reshape(5, -1))[np.triu_indices(5, 1)]
    assert (correlation > 0.3).all()
    assert (correlation < 0.95).all()


def test_dice_are_fair_and_depend_on_their_key_alone() -> None:
    assert Dice(3, 1).below(10, 5).tolist() == Dice(3, 1).below(10, 5).tolist()
    assert Dice(3, 1).below(1000, 5).tolist() != Dice(3, 2).below(1000, 5).tolist()
    assert np.bincount(Dice(1).below(5, 50_000)) == pytest.approx(10_000, rel=0.05)
    assert sorted(Dice(1).order(9)) == [*range(9)]
    assert {Dice(i).between(-2, 2) for i in range(60)} == {-2, -1, 0, 1, 2}
    noise = Dice(2).noise(500, 64, 100)
    assert abs(noise.mean()) < 2
    assert noise.std() == pytest.approx(100, rel=0.03)
