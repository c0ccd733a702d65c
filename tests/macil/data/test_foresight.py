from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from macil.__main__ import app
from macil.data.foresight import foresee
from macil.data.opening import resolve
from macil.data.split import make_split, split_doubt, split_videos
from macil.errors import DataError
from tests.support import fuzzing
from tests.support.layouts import rename, tiny_demo

LABELS = [0, 1] * 10


def test_too_few_sources_are_foreseen_and_a_split_by_video_is_offered() -> None:
    (note, batch) = foresee(LABELS, ["a", "b"] * 10, 1)
    assert note.reason.startswith(
        "a search will refuse these data as they are: cannot hold out a part of 20 training"
    )
    assert "from 2 sources (10 normal, 10 violent)" in note.reason
    assert "use --split-by video, which may put clips of one film on both sides" in note.reason
    assert "a batch of 128, the default, holds all 20 bags" in batch.reason
    train, heldout = split_videos(_array(LABELS), ["a", "b"] * 10, 0, "video")
    assert sorted([*train, *heldout]) == list(range(20))
    assert {LABELS[i] for i in heldout} == {0, 1}


def test_sources_of_one_class_each_on_one_side_are_foreseen() -> None:
    sources = [f"film {i}" if label == 0 else "one film" for i, label in enumerate(LABELS)]
    assert any("use --split-by video" in note.reason for note in foresee(LABELS, sources, 1))


def test_too_few_videos_of_a_class_are_no_matter_of_sources() -> None:
    reason = foresee([0] * 20 + [1], [str(i) for i in range(21)], 1)[0].reason
    assert "(20 normal, 1 violent)" in reason
    assert "--split-by" not in reason


@pytest.mark.parametrize(("label", "word"), [(0, "normal"), (1, "violent")])
def test_one_class_alone_is_foreseen(label: int, word: str) -> None:
    (note,) = foresee([label] * 9, list("abcdefghi"), 5)
    assert note.reason == f"all 9 training videos are {word}: nothing can be learnt without the other class"


def test_ordinary_data_are_nothing_to_foresee() -> None:
    assert foresee(LABELS * 20, [str(i) for i in range(400)], 5) == []


def test_a_search_by_video_goes_where_one_by_source_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MACIL_CACHE", str(tmp_path / "cache"))
    root = tiny_demo(tmp_path / "demo")
    rename(
        root,
        lambda name: f"One.Film__#{name}" if "__#" not in name else "One.Film__#" + name.split("__#", 1)[1],
    )
    checked = fuzzing.call(app, "check", root)
    assert "a search will refuse these data as they are" in checked.out
    assert "docs/data.md#what-a-search-will-refuse" in checked.out
    store = resolve(root)
    assert "a search will refuse these data as they are" in fuzzing.call(app, "check", store.path).out
    with pytest.raises(DataError, match="use --split-by video"):
        make_split(store)
    split = make_split(store, 3, "video").check(store)
    assert len(split.heldout) >= 4
    small = ["--epochs", 1, "--hidden-dim", 4, "--num-heads", 1, "--feedforward-dim", 4, "--threads", 1]
    line = ["train", root, "--out", tmp_path / "out", *small, "--protocol", "heldout", "--split-by", "video"]
    trained = fuzzing.call(app, *line)
    assert trained.code == 0
    assert str(split_doubt(split, store, "video")) in trained.err
    assert '"split_by": "video"' in (tmp_path / "out" / "record.json").read_text()
    (tmp_path / "out" / "split.json").unlink()
    again = fuzzing.call(
        app, "train", root, "--out", tmp_path / "again", "--record", tmp_path / "out" / "record.json"
    )
    assert again.code == 0
    assert (tmp_path / "again" / "scores.npz").read_bytes() == (tmp_path / "out" / "scores.npz").read_bytes()
    refused = fuzzing.call(app, *line[:-3], "published", "--split-by", "video", "--overwrite")
    assert (refused.code, "--split-by belongs to --protocol heldout" in refused.err) == (2, True)


def _array(labels: list[int]) -> np.ndarray:
    return np.array(labels)
