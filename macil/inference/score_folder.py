"""The folder that `python -m macil score` leaves: tables, segments, timelines; whole or absent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel

from macil import __version__
from macil.errors import DataError, UsageError, WriteError
from macil.inference.score_tables import TableFormat, write_frames, write_snippets
from macil.inference.scored_videos import ScoredVideos
from macil.inference.segments import DescribedSegment, SegmentRule, describe_segment, find_segments
from macil.io.files import refusal
from macil.io.folders import atomic_folder
from macil.io.formats import FileFormat
from macil.io.text import file_name

SEGMENTS = "segments.json"
_OWN = ("segments.json", "snippets.parquet", "snippets.csv", "frames.parquet", "frames.csv", "timelines")


class DescribedVideo(BaseModel, frozen=True, extra="forbid", strict=True):
    """A scored video as it stands in `segments.json`."""

    name: str
    frames: int
    seconds: float
    audio_rows_cut: int
    audio_rows_filled: int
    segments: list[DescribedSegment]


class SegmentsFile(FileFormat):
    """segments.json, which marks a folder as one of scores."""

    WHAT: ClassVar[str] = "a list of the violent segments of videos"
    MARK: ClassVar[str | None] = "kind"

    kind: Literal["macil segments"] = "macil segments"
    format_version: int = 1
    macil_version: str = __version__
    network: dict[str, Any]
    """Plain values about the network that scored"""
    threshold: float
    fps: float
    snippet_frames: int
    min_seconds: float
    merge_seconds: float
    audio: dict[str, int]
    """See `macil.inference.scored_videos.ScoredVideos.count_audio`"""
    videos: list[DescribedVideo]


@dataclass(frozen=True)
class Written:
    """The content of a folder of scores."""

    snippets: int
    frames: int
    segments: int
    violent_videos: int
    pictures: int


def check_target(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that could not be written, before anything is computed.

    Raises:
        UsageError: It is a file, holds something else, or holds scores and `overwrite` is off.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    strangers = sorted(path.name for path in out.iterdir() if path.name not in _OWN)
    if strangers or not _holds_scores(out):
        what = f"holds {', '.join(strangers[:3])}, which no scoring wrote" if strangers else "is not empty"
        raise UsageError(f"--out {out} {what}; name a folder that does not exist yet")
    if not overwrite:
        raise UsageError(f"--out {out} holds scores; name another folder, or replace them with --overwrite")


def write_folder(
    scored: ScoredVideos,
    rule: SegmentRule,
    out: Path,
    *,
    formats: Sequence[TableFormat] = ("parquet",),
    pictures: int = 0,
    truth: Mapping[str, np.ndarray] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Written:
    """Write everything beside `out`, then give it its name, in place of scores that it may hold.

    Args:
        scored: The scores.
        rule: What counts as a segment; its `snippet_frames` are those of `scored`.
        out: A folder that `check_target` passed.
        formats: Of both tables.
        pictures: Timelines are drawn of so many videos, the first ones.
        truth: Frame labels by name, shaded in the timelines of the videos they name.
        origin: Plain values about the network, for `segments.json`.

    Raises:
        DataError: `rule` or `truth` does not fit the scores.
        WriteError: The folder cannot be written, or the disk is full; names it.
    """
    _require_fit(scored, rule, truth or {})
    segments = {name: find_segments(scores, rule) for name, scores in scored}
    with _replacing(out) as folder:
        snippets = frames = 0
        for kind in formats:
            snippets = write_snippets(scored, folder / f"snippets.{kind}", kind)
            frames = write_frames(scored, folder / f"frames.{kind}", kind)
        drawn = list(scored)[:pictures]
        if drawn:
            from macil.inference.timelines import draw_timeline  # matplotlib takes a second

            (folder / "timelines").mkdir()
            for name, scores in drawn:
                labels = (truth or {}).get(name)
                path = folder / "timelines" / file_name(name)
                draw_timeline(path, name, scores, segments[name], rule, labels)
        described = [
            DescribedVideo(
                name=name,
                frames=len(scores) * rule.snippet_frames,
                seconds=round(rule.seconds(len(scores)), 6),
                audio_rows_cut=max(gap, 0),
                audio_rows_filled=max(-gap, 0),
                segments=[describe_segment(segment, rule) for segment in segments[name]],
            )
            for (name, scores), gap in zip(scored, scored.audio_gaps.tolist(), strict=True)
        ]
        found = SegmentsFile(
            network=dict(origin or {}), **rule._asdict(), audio=scored.count_audio(), videos=described
        )
        found.write(folder / SEGMENTS)
    counts = [len(found) for found in segments.values()]
    return Written(snippets, frames, sum(counts), sum(count > 0 for count in counts), len(drawn))


def _require_fit(scored: ScoredVideos, rule: SegmentRule, truth: Mapping[str, np.ndarray]) -> None:
    if rule.snippet_frames != scored.snippet_frames:
        raise DataError(
            f"the rule has {rule.snippet_frames} frames a snippet, the scores {scored.snippet_frames}; expected equal"
        )
    for name, scores in scored:
        expected = len(scores) * scored.snippet_frames
        if name in truth and len(truth[name]) != expected:
            raise DataError(
                f"{name} has {len(scores)} scores and {len(truth[name])} frame labels; expected {expected}, "
                f"{scored.snippet_frames} a snippet"
            )


def _holds_scores(out: Path) -> bool:
    try:
        SegmentsFile.read(out / SEGMENTS)
    except DataError:
        return False
    return True


@contextlib.contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name on success and is removed on failure."""
    out = out.resolve()  # a link stays, what it leads to is replaced
    try:
        with atomic_folder(out) as partial:
            yield partial
    except WriteError as error:
        raise WriteError(out, f"{error.reason}; nothing was written") from None
    except OSError as error:
        raise WriteError(out, f"{refusal(out, error).reason}; nothing was written") from None
