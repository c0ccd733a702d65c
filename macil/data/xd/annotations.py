"""Frame labels of the test videos, from `annotations.txt`, from `gt.npy`, or from both when they agree."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from macil.data.xd.arrays import ArrayError, load_array
from macil.data.xd.folders import SIDE_FOLDERS, Finding
from macil.data.xd.gt_order import contradictions, cut_in_every_order, order_doubt
from macil.data.xd.label_units import too_early, too_late
from macil.data.xd.layout import Layout, VideoFiles
from macil.data.xd.likeness import similar_file
from macil.data.xd.names import normalise_name
from macil.io.reading import read_text
from macil.io.text import brief
from macil.io.wording import plural

SNIPPET_FRAMES = 16
"""Frames of a snippet in XD-Violence (24 frames a second)."""

Interval = tuple[int, int]

# Digits of the last frame of a video of a year.
_FRAME_DIGITS = 9

# The name ends with its label, so that a source with spaces in it is still read right.
_LINE = re.compile(r"(?P<name>\S.*_label_\S+|\S+)(?P<numbers>(?:\s+\S+)*)\s*")


@dataclass
class FrameLabels:
    """Labels of all test videos: name -> uint8 `(snippet_frames * T,)`, 1 = violent; faults and notes apart.

    `doubts` are notes too: what the labels rest on that no file proves, to be shown with every number made with them.
    """

    snippet_frames: int = SNIPPET_FRAMES
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    faults: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    doubts: list[Finding] = field(default_factory=list)


def parse_annotation(line: str) -> tuple[str, list[Interval]]:
    """Split `NAME START END [START END ...]` into the name, normalised, without `.mp4`, and half-open frame intervals.

    Raises:
        ValueError: No interval, an odd count, something that is no frame number, or an END before its START.
    """
    match = _LINE.fullmatch(line.strip())
    if match is None:
        raise ValueError("the line is empty")
    return normalise_name(match["name"].removesuffix(".mp4")), parse_intervals(match["numbers"].split())


def parse_intervals(words: Sequence[str]) -> list[Interval]:
    """Half-open frame intervals from their numbers, START END [START END ...].

    Raises:
        ValueError: None, an odd count, something that is no frame number, or an END before its START.
    """
    if not words:
        raise ValueError("names no interval, expected NAME START END [START END ...]")
    for word in words:
        if not (word.isascii() and word.isdecimal()):
            raise ValueError(f"{word!r} is not a frame number (a whole number from 0)")
        if len(word.lstrip("0")) > _FRAME_DIGITS:
            raise ValueError(f"{brief(word)} is not a frame number: no video is so long")
    if len(words) % 2:
        raise ValueError(f"holds {len(words)} frame numbers, an odd count; expected START END pairs")
    numbers = [int(word) for word in words]
    intervals = list(zip(numbers[::2], numbers[1::2], strict=True))
    for start, end in intervals:
        if end < start:
            raise ValueError(f"interval {start} {end} ends before it starts")
    return intervals


def rasterise(intervals: Sequence[Interval], frames: int) -> np.ndarray:
    """Mark the frames of half-open intervals: uint8 `(frames,)`; what lies beyond the last frame is dropped."""
    labels = np.zeros(frames, np.uint8)
    for start, end in intervals:
        labels[start:end] = 1
    return labels


def read_frame_labels(
    layout: Layout, lengths: Mapping[str, int], snippet_frames: int | None = None
) -> FrameLabels:
    """Build the frame labels of every test video whose length is known.

    Args:
        layout: The folder.
        lengths: Snippets (visual rows) of each test video.
        snippet_frames: Frames of a snippet; None reads it off `gt.npy` where there is one, else 16.
    """
    ground_truth = _load_ground_truth(layout)
    if snippet_frames is None:
        snippet_frames = SNIPPET_FRAMES
        inferred = _infer_snippet_frames(ground_truth, lengths)
        if inferred not in (None, SNIPPET_FRAMES):
            attempt = _combine(layout, lengths, inferred, ground_truth)
            if not any(fault.kind == "gt-mismatch" for fault in attempt.faults):
                reason = f"{plural(inferred, 'frame')} a snippet (published: {SNIPPET_FRAMES})"
                if layout.annotations is None:
                    reason += ", which its length alone says: no annotations.txt confirms it"
                findings = attempt.notes if layout.annotations is not None else attempt.doubts
                findings.append(Finding("snippet-frames", "gt.npy", reason))
                return attempt
    return _combine(layout, lengths, snippet_frames, ground_truth)


def _combine(
    layout: Layout, lengths: Mapping[str, int], snippet_frames: int, ground_truth: np.ndarray | Finding | None
) -> FrameLabels:
    result = FrameLabels(snippet_frames)
    videos = [video for video in layout.of_split("test") if video.name in lengths]
    if layout.annotations is not None:
        intervals = _parse_annotations(layout, layout.annotations, lengths, result)
        _apply_intervals(layout.relative(layout.annotations), intervals, videos, lengths, result)
    elif layout.intervals is not None:
        given: dict[str, list[Interval] | None] = {name: own for name, (_, own) in layout.intervals.items()}
        for name, (where, own) in layout.intervals.items():
            if name in lengths:
                _check_intervals(where, name, own, lengths[name], result)
        _apply_intervals(layout.origin.name, given, videos, lengths, result)
    if isinstance(ground_truth, Finding):
        result.faults.append(ground_truth)
    elif ground_truth is not None and (len(videos) < len(layout.of_split("test")) or layout.unreadable_names):
        reason = "is not compared: its order needs every test video, and some have faults"
        result.notes.append(Finding("gt", "gt.npy", reason))
    elif ground_truth is not None:
        _apply_ground_truth(layout, ground_truth, videos, lengths, result)
    elif layout.annotations is None and layout.intervals is None:
        _assume_normal(layout, videos, lengths, result)
    return result


def _assume_normal(
    layout: Layout, videos: list[VideoFiles], lengths: Mapping[str, int], result: FrameLabels
) -> None:
    """Without frame labels every frame is normal, which no violent video can be."""
    if any(video.parsed.label for video in videos):
        reason = "is missing, and gt.npy too: violent test videos need frame labels"
        folders = [layout.root / folder for folder in SIDE_FOLDERS]
        if like := next(filter(None, (similar_file(folder, "annotations.txt") for folder in folders)), None):
            reason += f"; {like} looks like it: rename it"
        result.faults.append(Finding("annotation", "annotations.txt", reason))
    for video in videos:
        result.labels[video.name] = rasterise([], lengths[video.name] * result.snippet_frames)


def _apply_intervals(
    where: str,
    intervals: Mapping[str, list[Interval] | None],
    videos: list[VideoFiles],
    lengths: Mapping[str, int],
    result: FrameLabels,
) -> None:
    """Labels from the intervals of every annotated video; of None, which had a fault, no frame is violent."""
    clipped = 0
    for video in videos:
        frames = lengths[video.name] * result.snippet_frames
        pairs = intervals.get(video.name) or []
        if video.parsed.label and video.name not in intervals:
            reason = f"does not annotate {video.name}, a violent test video"
            result.faults.append(Finding("annotation", where, reason))
        result.labels[video.name] = rasterise(pairs if video.parsed.label else [], frames)
        clipped += any(end > frames for _, end in pairs)
    if clipped:
        videos_are = f"{plural(clipped, 'video')} {'is' if clipped == 1 else 'are'}"
        reason = f"{videos_are} annotated past the last whole snippet; what is beyond is clipped"
        result.notes.append(Finding("annotation", where, reason))
    violent = [video.name for video in videos if video.parsed.label and intervals.get(video.name)]
    ends = {name: max(end for _, end in intervals[name] or ()) for name in violent}
    _doubt_units(where, ends, lengths, result)


def _parse_annotations(
    layout: Layout, path: Path, lengths: Mapping[str, int], result: FrameLabels
) -> dict[str, list[Interval] | None]:
    """Return the intervals of every annotated video, None where its line has a fault, which is in `result`."""
    where = layout.relative(path)
    known = {video.name: video for video in layout.of_split("test")}
    intervals: dict[str, list[Interval] | None] = {}
    strangers = 0
    for number, line in enumerate(_read_lines(layout, path, result), start=1):
        if not line.strip():
            continue
        location = f"{where} line {number}"
        try:
            name, pairs = parse_annotation(line)
        except ValueError as error:
            name = normalise_name(line.split()[0].removesuffix(".mp4"))
            intervals.setdefault(name, None)
            result.faults.append(Finding("annotation", location, f"{name} {error}"))
            continue
        if name in intervals:
            result.faults.append(Finding("duplicate", location, f"annotates {name} again"))
            continue
        intervals[name] = pairs
        if name not in known:
            strangers += 1
        elif known[name].parsed.label == 0:
            result.faults.append(
                Finding("annotation", location, f"annotates {name}, which its name calls normal")
            )
        elif name in lengths:
            _check_intervals(location, name, pairs, lengths[name], result)
    if strangers:
        lines = (
            "1 line annotates a video that is"
            if strangers == 1
            else f"{strangers} lines annotate videos that are"
        )
        reason = f"{lines} not here"
        result.notes.append(Finding("annotation", where, reason))
    return intervals


def _read_lines(layout: Layout, path: Path, result: FrameLabels) -> list[str]:
    try:
        return read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        result.faults.append(Finding("unreadable", layout.relative(path), f"cannot be read: {error}"))
        return []


def _check_intervals(
    location: str, name: str, pairs: list[Interval], length: int, result: FrameLabels
) -> None:
    # The features lack the video's last frame and the rest modulo a snippet, hence the tolerance of one snippet.
    frames = length * result.snippet_frames
    limit = frames + result.snippet_frames
    for start, end in pairs:
        if end > limit:
            reason = (
                f"interval {start} {end} of {name} ends beyond frame {limit} ({length} snippets and one more)"
            )
            result.faults.append(Finding("annotation", location, reason))
    if not rasterise(pairs, frames).any():
        result.notes.append(Finding("annotation", location, f"marks no frame of {name}"))


def _load_ground_truth(layout: Layout) -> np.ndarray | Finding | None:
    """Return the 0/1 frame labels of `gt.npy`, or the fault that keeps it from being read."""
    path = layout.ground_truth
    if path is None:
        return None
    where = layout.relative(path)
    try:
        labels = load_array(path)
    except ArrayError as error:
        return Finding(error.kind, where, str(error))
    if labels.ndim != 1 or labels.dtype.kind not in "biuf":
        return Finding(
            "gt", where, f"has shape {labels.shape} {labels.dtype}, expected one 0/1 number a frame"
        )
    bad = np.flatnonzero((labels != 0) & (labels != 1))
    if bad.size:
        return Finding("gt", where, f"holds {labels[bad[0]]} at frame {bad[0]}, expected 0 or 1")
    return labels.astype(np.uint8)


def _infer_snippet_frames(
    ground_truth: np.ndarray | Finding | None, lengths: Mapping[str, int]
) -> int | None:
    total = sum(lengths.values())
    if (
        not isinstance(ground_truth, np.ndarray)
        or not total
        or not ground_truth.size
        or ground_truth.size % total
    ):
        return None
    return ground_truth.size // total


def _apply_ground_truth(
    layout: Layout,
    ground_truth: np.ndarray,
    videos: list[VideoFiles],
    lengths: Mapping[str, int],
    result: FrameLabels,
) -> None:
    """Cut `gt.npy` into videos; compare with the annotations or, without any, take it as the labels."""
    where = "gt.npy"
    frames = sum(lengths[video.name] for video in videos) * result.snippet_frames
    if ground_truth.size != frames:
        reason = (
            f"holds {ground_truth.size} frames, the test videos {frames} ({result.snippet_frames} a snippet)"
        )
        result.faults.append(Finding("gt-mismatch", where, reason))
        return
    attempts = cut_in_every_order(ground_truth, layout, videos, lengths, result.snippet_frames)
    if layout.annotations is not None:
        reasons = min((_disagreements(each.labels, videos, result.labels) for each in attempts), key=len)
        result.faults.extend(Finding("gt-mismatch", where, reason) for reason in reasons)
        return
    possible = [each for each in attempts if not contradictions(each, videos)]
    taken = possible[0] if possible else min(attempts, key=lambda each: len(contradictions(each, videos)))
    result.labels = {video.name: taken.labels[video.name] for video in videos}
    if not possible:
        reasons = contradictions(taken, videos)
        result.faults.extend(Finding("gt-mismatch", where, reason) for reason in reasons)
        tried = "; ".join(each.order for each in attempts)
        reason = f"in no order that was tried ({tried}) do its labels agree with the names; give annotations.txt too"
        result.notes.append(Finding("order", where, reason))
        return
    result.doubts.append(Finding("order", where, order_doubt(taken, possible)))
    violent = [video for video in videos if video.parsed.label]
    ends = {video.name: int(np.flatnonzero(taken.labels[video.name])[-1]) + 1 for video in violent}
    _doubt_units(where, ends, lengths, result)


def _doubt_units(
    where: str, ends: Mapping[str, int], lengths: Mapping[str, int], result: FrameLabels
) -> None:
    """Look whether the numbers can be frames; `ends` is the frame after the last violent one, by violent video."""
    given = list(ends.values()), [lengths[name] * result.snippet_frames for name in ends]
    if early := too_early(*given, result.snippet_frames):
        result.doubts.append(Finding("units", where, early))
    if late := too_late(*given, result.snippet_frames):
        result.notes.append(Finding("units", where, late))


def _disagreements(
    labels: dict[str, np.ndarray], videos: list[VideoFiles], annotated: dict[str, np.ndarray]
) -> list[str]:
    reasons = []
    for video in videos:
        if video.name in annotated:
            differ = np.flatnonzero(labels[video.name] != annotated[video.name])
        else:
            differ = np.flatnonzero(labels[video.name]) if not video.parsed.label else np.empty(0, int)
        if differ.size:
            reasons.append(
                f"disagrees with annotations.txt on {differ.size} frames of {video.name}, the first is {differ[0]}"
            )
    return reasons
