"""The folder of scores is whole or absent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import macil.inference.score_folder
from macil.errors import DataError, UsageError
from macil.inference.score_folder import check_target, write_folder
from macil.inference.scored_videos import ScoredVideos
from macil.inference.segments import SegmentRule
from macil.io.files import read_json

SCORED = ScoredVideos(("a", "b"), np.array([2, 3]), np.array([0.1, 0.9, 0.8, 0.2, 0.7], np.float32), 16)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_written_is_counted(tmp_path: Path) -> None:
    written = write_folder(SCORED, SegmentRule(), tmp_path / "deep" / "out", pictures=5)
    assert written == macil.inference.score_folder.Written(5, 80, 3, 2, 2)
    assert names(tmp_path / "deep") == ["out"]
    assert names(tmp_path / "deep" / "out" / "timelines") == ["a.png", "a.svg", "b.png", "b.svg"]


def test_what_was_cut_from_the_audio_and_filled_is_written(tmp_path: Path) -> None:
    scored = replace(SCORED, audio_lengths=np.array([5, 1]))
    write_folder(scored, SegmentRule(), tmp_path / "out")
    content = read_json(tmp_path / "out" / "segments.json")
    assert content["audio"] == {"rows_cut": 3, "videos_cut": 1, "rows_filled": 2, "videos_filled": 1}
    counted = [(video["audio_rows_cut"], video["audio_rows_filled"]) for video in content["videos"]]
    assert counted == [(3, 0), (0, 2)]


def test_labels_and_rules_of_another_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="b has 3 scores and 47 frame labels; expected 48, 16 a snippet"):
        write_folder(SCORED, SegmentRule(), tmp_path / "out", truth={"b": np.zeros(47)})
    with pytest.raises(DataError, match="the rule has 8 frames a snippet, the scores 16"):
        write_folder(SCORED, SegmentRule(snippet_frames=8), tmp_path / "out")
    assert names(tmp_path) == []


@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_leaves_what_was_there(
    existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if existing:
        write_folder(SCORED, SegmentRule(threshold=0.25), tmp_path / "out")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(macil.inference.score_folder, "write_frames", full)
    with pytest.raises(UsageError, match=r"the disk is full; .*nothing was written"):
        write_folder(SCORED, SegmentRule(), tmp_path / "out")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert names(tmp_path) == (["out"] if existing else [])


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for _ in range(2):
        check_target(tmp_path / "link", overwrite=True)
        write_folder(SCORED, SegmentRule(), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "real") == ["frames.parquet", "segments.json", "snippets.parquet"]
    assert names(tmp_path) == ["link", "real"]


def test_only_scores_are_replaced(tmp_path: Path) -> None:
    check_target(tmp_path / "new", overwrite=False)
    check_target(tmp_path, overwrite=False)
    (tmp_path / "segments.json").write_text('{"kind": "something else"}')
    with pytest.raises(UsageError, match="is not empty"):
        check_target(tmp_path, overwrite=True)
    with pytest.raises(UsageError, match="is a file"):
        check_target(tmp_path / "segments.json", overwrite=True)
