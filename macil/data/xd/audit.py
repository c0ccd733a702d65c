"""Check a folder in the XD-Violence layout: every fault at once, notes apart from faults, and the size of a store."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from macil.data.manifest import is_manifest, read_manifest
from macil.data.pairing import EXPECTED, are_far_apart
from macil.data.reading import AS_USUAL, Reading
from macil.data.silence import ABSENT, ZEROS, silence_note
from macil.data.xd.annotations import FrameLabels, read_frame_labels
from macil.data.xd.arrays import ArrayError, ArrayHeader, is_silent, load_features, nonzero_rows, read_header
from macil.data.xd.folders import FOLDERS, SPLITS, Finding, Modality, Part
from macil.data.xd.grouping import group_findings
from macil.data.xd.layout import Layout, VideoFiles, read_layout
from macil.data.xd.names import source_doubts
from macil.errors import DataError, UsageError
from macil.io.progress import show_progress
from macil.io.wording import plural

DEEP_BY_DEFAULT_BYTES = 2 * 1024**3
"""Up to this much data every value is read without asking; it takes seconds."""

# What a quick audit reads the values of.
_SAMPLE_FILES = 64
_SAMPLE_BYTES = 64 * 1024**2
_MOST_NAMED = 3


@dataclass(frozen=True)
class Total:
    """One figure of the data beside the published one (None where none was published)."""

    name: str
    value: int
    published: int | None = None


@dataclass
class AuditReport:
    """Everything an audit found. `headers` holds each readable file's header, `frame_labels` the test labels."""

    layout: Layout
    mode: Literal["quick", "deep"]
    chosen: bool
    headers: dict[Path, ArrayHeader] = field(default_factory=dict)
    frame_labels: FrameLabels = field(default_factory=FrameLabels)
    reading: Reading = AS_USUAL
    silent: dict[str, int] = field(default_factory=dict)
    """Numbers of videos without sound, see `macil.data.silence`"""
    faults: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    totals: list[Total] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    def width(self, modality: Modality) -> int:
        """The width of most feature files of a modality; 0 without any that can be read."""
        headers, files = self.headers, _files(self.layout)
        widths = Counter(headers[path].width for path, kind in files if kind == modality and path in headers)
        return widths.most_common(1)[0][0] if widths else 0

    def store_bytes(self, dtype: str) -> int:
        """Bytes that the features take in a store."""
        values = sum(header.rows * header.width for header in self.headers.values())
        return values * np.dtype(dtype).itemsize

    def fault_lines(self) -> list[str]:
        """The faults for people, what repeats as one line."""
        return group_findings(self.faults, self.expected)

    def note_lines(self) -> list[str]:
        """Likewise the notes."""
        return group_findings(self.notes, self.expected)

    @property
    def expected(self) -> dict[str, str]:
        """Folder of the layout to the number of files that it should have."""
        counts: dict[str, str] = {}
        if self.layout.manifest is not None:
            return counts
        for (modality, split), folders in FOLDERS.items():
            videos = len(self.layout.of_split(split))
            files = videos * (self.layout.crops if modality == "visual" else 1)
            counts |= dict.fromkeys(folders, plural(files, f"{modality} file"))
        return counts

    def raise_for_faults(self) -> None:
        """Raise a DataError that carries every fault, if there is one."""
        if self.faults:
            count = plural(len(self.faults), "fault")
            raise DataError(f"{self.layout.origin} has {count}; nothing was converted", self.fault_lines())


def audit(
    root: str | os.PathLike[str],
    *,
    deep: bool | None = None,
    reading: Reading = AS_USUAL,
    part: Part | None = None,
    progress: bool = False,
) -> AuditReport:
    """Check a layout folder.

    Args:
        root: The folder.
        deep: True reads every value, streaming; False reads headers and a small sample of files; None reads every
            value up to `DEEP_BY_DEFAULT_BYTES` of features and is quick beyond.
        reading: How the folder is read.
        part: The only split to look at; None: both.
        progress: Show progress on stderr.

    Raises:
        DataError: There is no such folder, or it is not in the layout at all.
    """
    layout = read_videos(root, reading, part)
    headers, faults = _read_headers(layout, progress)
    size = sum(header.nbytes for header in headers.values())
    mode: Literal["quick", "deep"] = (
        "deep" if deep or (deep is None and size <= DEEP_BY_DEFAULT_BYTES) else "quick"
    )
    report = AuditReport(layout, mode, chosen=deep is not None, headers=headers, reading=reading)
    report.faults += layout.faults + faults
    report.notes += layout.notes
    videos = layout.of_split("train")
    doubts = source_doubts([video.name for video in videos], [video.parsed.source for video in videos])
    report.notes += [Finding("source", "sources", doubt) for doubt in doubts]
    _check_uniform(report)
    lengths = _check_lengths(report)
    report.frame_labels = read_frame_labels(layout, lengths, reading.snippet_frames)
    report.faults += report.frame_labels.faults
    report.notes += report.frame_labels.notes + report.frame_labels.doubts
    _find_silent(report)
    _check_values(report, progress)
    report.totals = _count_totals(report)
    return report


def read_videos(root: str | os.PathLike[str], reading: Reading, part: Part | None = None) -> Layout:
    """The videos of a folder in the layout, or of a manifest; see `read_layout` and `read_manifest` for errors."""
    if reading.visual_only and reading.silent:
        raise UsageError(
            "--visual-only reads no audio, and --silent says what becomes of it; give one of them"
        )
    may_lack = reading.silent is not None
    if is_manifest(Path(root)):
        layout = read_manifest(
            Path(root),
            audio_may_lack=may_lack or reading.visual_only is not None,
            part=part,
            outside=reading.outside is not None,
        )
        if reading.visual_only:
            layout.videos = tuple(replace(video, audio=None) for video in layout.videos)
        return layout
    if reading.outside is not None:
        raise UsageError(f"--outside is for a manifest; {root} is none")
    return read_layout(root, audio_may_lack=may_lack, visual_only=reading.visual_only is not None, part=part)


def video_rows(report: AuditReport, video: VideoFiles) -> tuple[int, int]:
    """Return the visual and the audio rows of a video without faults."""
    visual = report.headers[video.visual[0]].rows
    if video.audio is None:
        return visual, 0 if report.reading.visual_only else visual
    return visual, report.headers[video.audio].rows


def _files(layout: Layout) -> Iterable[tuple[Path, Modality]]:
    for video in layout.videos:
        yield from ((path, "visual") for path in video.visual)
        if video.audio is not None:
            yield video.audio, "audio"


def _read_headers(layout: Layout, progress: bool) -> tuple[dict[Path, ArrayHeader], list[Finding]]:
    headers: dict[Path, ArrayHeader] = {}
    faults = []
    paths = [path for path, _ in _files(layout)]
    with show_progress("reading headers", len(paths), "files", enabled=progress) as advance:
        for path in paths:
            try:
                headers[path] = read_header(path)
            except ArrayError as fault:
                faults.append(Finding(fault.kind, layout.relative(path), str(fault)))
            advance(1)
    return headers, faults


def _check_uniform(report: AuditReport) -> None:
    """All visual files must agree in width and dtype, all audio files too; the majority is taken as right."""
    for modality in ("visual", "audio"):
        paths = [path for path, kind in _files(report.layout) if kind == modality and path in report.headers]
        for what in ("width", "dtype"):
            values = {path: getattr(report.headers[path], what) for path in paths}
            counts = Counter(values.values()).most_common()
            if not counts:
                continue
            expected, agreeing = counts[0]
            for path in (path for path in paths if values[path] != expected):
                reason = f"has {what} {values[path]}, {agreeing} other {modality} files have {expected}"
                report.faults.append(Finding(what, report.layout.relative(path), reason))
            if what == "dtype" and expected == "float64":
                report.notes.append(
                    Finding("dtype", f"{modality} features", "are float64; the store rounds them")
                )


def _check_lengths(report: AuditReport) -> dict[str, int]:
    """Compare lengths within each video; return the snippets of every test video where they are certain."""
    lengths: dict[str, int] = {}
    off_by_one = 0
    for video in report.layout.videos:
        rows = {path: report.headers[path].rows for path in video.visual if path in report.headers}
        if not rows:
            continue
        expected = Counter(rows.values()).most_common(1)[0][0]
        for path in (path for path in rows if rows[path] != expected):
            reason = f"has {rows[path]} rows, other crops of this video {expected}"
            report.faults.append(Finding("length", report.layout.relative(path), reason))
        if video.split == "test":
            lengths[video.name] = expected
        if video.audio in report.headers:
            audio = report.headers[video.audio].rows
            if are_far_apart(expected, audio):
                reason = f"has {audio} rows, the visual features {expected}; {EXPECTED}"
                report.faults.append(Finding("length", report.layout.relative(video.audio), reason))
            else:
                off_by_one += audio != expected
    if off_by_one:
        videos = f"{plural(off_by_one, 'video')} {'has' if off_by_one == 1 else 'have'}"
        reason = f"{videos} one audio row more or less than visual rows"
        report.notes.append(Finding("length", _audio_place(report.layout), reason))
    return lengths


def _find_silent(report: AuditReport) -> None:
    """Count the videos without sound, and leave them out where that is asked for: labels have been read by then."""
    layout, headers = report.layout, report.headers
    if report.reading.visual_only:
        return
    zeros, absent = [], []
    for video in layout.videos:
        if video.audio is None and layout.audio_may_lack:
            absent.append(video)
        elif video.audio in headers:
            try:
                zeros += [video] if is_silent(video.audio) else []
            except ArrayError as fault:
                report.faults.append(Finding(fault.kind, layout.relative(video.audio), str(fault)))
    silent = [*zeros, *absent]
    report.silent = {name: len(found) for name, found in ((ZEROS, zeros), (ABSENT, absent)) if found}
    if (text := silence_note(report.silent, report.reading)) is None:
        return
    first = ", ".join(video.name for video in silent[:_MOST_NAMED])
    more = ", the first are" if len(silent) > _MOST_NAMED else ":"
    report.notes.append(Finding("silent", _audio_place(layout), f"{text}{more} {first}"))
    if report.reading.silent == "leave-out":
        _leave_out(report, silent)
    elif not report.width("audio"):
        reason = "no video has an audio file, so that the width of the audio is not known"
        report.faults.append(Finding("missing", _audio_place(layout), reason))


def _audio_place(layout: Layout) -> str:
    return "vggish-features/" if layout.manifest is None else layout.manifest.name


def _leave_out(report: AuditReport, videos: Collection[VideoFiles]) -> None:
    layout, gone = report.layout, set(videos)
    for split in SPLITS:
        if (before := layout.of_split(split)) and gone.issuperset(before):
            reason = f"every {split} video is without sound, and left out (--silent leave-out)"
            report.faults.append(Finding("empty", _audio_place(layout), reason))
    layout.videos = tuple(video for video in layout.videos if video not in gone)
    for video in gone:
        for path in (*video.visual, *filter(None, [video.audio])):
            report.headers.pop(path, None)
        report.frame_labels.labels.pop(video.name, None)


def _check_values(report: AuditReport, progress: bool) -> None:
    """Read every value of a sample, or in a deep audit of all files, one file in memory at a time."""
    zero_rows = 0
    visual = {path for path, modality in _files(report.layout) if modality == "visual"}
    deep = report.mode == "deep"
    paths = list(report.headers) if deep else _choose_sample(report.headers)
    with show_progress("reading values", len(paths), "files", enabled=progress and deep) as advance:
        for path in paths:
            advance(1)
            try:
                values = load_features(path)
                if path in visual:
                    zero_rows += len(values) - int(np.count_nonzero(nonzero_rows(values)))
            except ArrayError as fault:
                report.faults.append(Finding(fault.kind, report.layout.relative(path), str(fault)))
                continue
    if zero_rows:
        reason = f"{zero_rows} visual rows of the files read hold nothing but zeros; they count as padding"
        report.notes.append(Finding("zero-rows", "", reason))


def _choose_sample(headers: Mapping[Path, ArrayHeader]) -> list[Path]:
    """Files spread evenly over the data, together not much larger than `_SAMPLE_BYTES`."""
    paths = list(headers)
    chosen: list[Path] = []
    size = 0
    for index in np.unique(np.linspace(0, len(paths) - 1, min(_SAMPLE_FILES, len(paths))).astype(int)):
        if size < _SAMPLE_BYTES:
            chosen.append(paths[index])
            size += headers[paths[index]].nbytes
    return chosen


def _count_totals(report: AuditReport) -> list[Total]:
    layout, headers = report.layout, report.headers
    train, test = layout.of_split("train"), layout.of_split("test")

    def snippets(videos: list[VideoFiles]) -> int:
        return sum(
            headers[video.visual[0]].rows for video in videos if video.visual and video.visual[0] in headers
        )

    return [
        Total("training videos", len(train), 3954),
        Total("training videos, normal", sum(not video.parsed.label for video in train), 2049),
        Total("training videos, violent", sum(video.parsed.label for video in train), 1905),
        Total("training snippets", snippets(train)),
        Total("test videos", len(test), 800),
        Total("test videos, normal", sum(not video.parsed.label for video in test), 300),
        Total("test videos, violent", sum(video.parsed.label for video in test), 500),
        Total("test snippets", snippets(test), 145_649),
        Total(
            "violent test frames", sum(int(labels.sum()) for labels in report.frame_labels.labels.values())
        ),
        Total("frames of a snippet", report.frame_labels.snippet_frames, 16),
        Total("crops", layout.crops, 5),
        Total("visual width", report.width("visual"), 1024),
        Total("audio width", report.width("audio"), 128),
    ]
