"""Layout folder -> feature store: streamed, atomic, resumable."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from macil.data.origin import DEMO_FILE
from macil.data.reading import AS_USUAL, Reading
from macil.data.store import columns
from macil.data.store.arrow_files import measure_frame, write_table
from macil.data.store.feature_store import (
    AUDIO,
    INDEX,
    LABELS,
    VISUAL,
    FeatureStore,
    hash_content,
    hash_file,
    hash_frame,
    hash_labels,
    is_store,
)
from macil.data.store.meta import DTYPES, FORMAT_VERSION, META, Dtype, FrameHash, StoreDescription, StoreMeta
from macil.data.store.provenance import (
    NOTES,
    Comparison,
    FolderState,
    Options,
    SourceFolder,
    forget,
    is_known,
    look_at,
    remember,
)
from macil.data.store.writer import JOURNAL, Plan, PlannedVideo, StoreWriter, VideoError
from macil.data.xd.audit import AuditReport, audit, video_rows
from macil.data.xd.folders import Finding
from macil.data.xd.grouping import group_findings
from macil.errors import DataError, UsageError, WriteError
from macil.io.files import is_full, refusal
from macil.io.folders import remove_replaced, replace_folder, require_creatable, sync_folder
from macil.io.locks import exclusive
from macil.io.notes import note
from macil.io.progress import show_progress
from macil.io.remote import local_path
from macil.io.text import printable
from macil.io.wording import plural

# Journal, index and file-system overhead, generously.
_SPARE_BYTES = 16 * 1024**2


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dtype: Dtype = "float32",
    reading: Reading = AS_USUAL,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Convert a layout folder into a feature store and return its path.

    Work happens in `OUT.partial`, which becomes `OUT` when everything is written. A run that was killed is taken up
    where it stopped, with the same result to the last byte. An `OUT` that holds what the folder holds is left as it is:
    see `macil.data.store.provenance`.

    Args:
        source: Folder in the XD-Violence layout.
        out: Folder to make.
        dtype: "float32" or "float16" (half the size; a value beyond its range is refused).
        reading: How the folder is read.
        overwrite: Replace an existing store.
        progress: Show progress on stderr.

    Raises:
        DataError: The data have faults; all are listed.
        UsageError: The dtype is unknown, `out` cannot be written or is taken, or the disk is too small.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    out = local_path(out).absolute()
    _check_target(out)
    folder = read_source(source, Options(dtype, reading), progress=progress)
    return write_store(folder, out, overwrite=overwrite, progress=progress)


def read_source(root: str | os.PathLike[str], options: Options, *, progress: bool = False) -> SourceFolder:
    """Read everything of a layout folder but the features; see `convert` for arguments.

    Raises:
        DataError: The data have faults; all are listed.
    """
    # Before anything is read: a change from now on is found.
    state = look_at(local_path(root).absolute())
    report = audit(root, deep=False, reading=options.reading, part=options.part, progress=progress)
    report.raise_for_faults()
    plan = make_plan(report, options.dtype, state)
    return SourceFolder(state, options, report, plan, _describe(plan, report), _index_columns(plan))


def write_store(source: SourceFolder, out: Path, *, overwrite: bool = False, progress: bool = False) -> Path:
    """Write the store `out` of a folder, or keep an equal one; see `convert` for arguments and errors."""
    partial = out.with_name(out.name + ".partial")
    with _writing_to(out), exclusive(out.with_name(out.name + ".lock"), f"converting to {out}"):
        if not _is_taken(out, source, overwrite, progress):
            if not _is_finished(partial, source, progress):
                partial.mkdir(exist_ok=True)
                _check_space(partial, source.plan)
                digests = _write_features(partial, source, progress)
                _write_tables(partial, source, digests)
                _require_unchanged(partial, source, progress)
            _publish(partial, out)
        remove_replaced(out)
    return out


def holds(store: FeatureStore, source: SourceFolder, comparison: Comparison) -> bool:
    """Whether a store holds what a folder holds, which it then notes; in doubt the content is compared."""
    suspects = comparison.suspects(store)
    if suspects is None:
        return False
    if suspects:
        note(
            f"{source.state.source} may hold what {store.path} was made from; comparing the content of "
            f"{len(suspects)} of {len(source.plan.videos)} videos to find out"
        )
    if difference := comparison.difference(store, suspects):
        note(f"{source.state.source}: {difference} are not those that {store.path} holds")
        return False
    if suspects:
        note(f"{source.state.source} holds what {store.path} was made from; nothing is converted")
    try:
        if not is_known(store.path, source.state, source.options, source.plan):
            remember(store.path, source, store.meta)
    except WriteError as error:
        note(f"{error}; {source.state.source} will be compared again next time")
    return True


def make_plan(report: AuditReport, dtype: Dtype, state: FolderState) -> Plan:
    """Lay out the store of a faultless folder in that state: which video goes where."""
    videos = []
    visual_offset = audio_offset = 0
    made = f"{report.frame_labels.snippet_frames}{report.reading.key}{report.layout.part or ''}"
    key = hashlib.blake2b(f"{FORMAT_VERSION}/{dtype}/{made}".encode(), digest_size=16)
    for files in report.layout.videos:
        length, audio_length = video_rows(report, files)
        videos.append(
            PlannedVideo(files, length, audio_length, visual_offset, audio_offset, state.sign(files))
        )
        visual_offset += length * report.layout.crops
        audio_offset += audio_length
        key.update(f"{files.split}\0{files.name}\0{length}\0{audio_length}\0".encode())
    widths = report.width("visual"), report.width("audio")
    key.update(f"{report.layout.crops}/{widths}".encode())
    return Plan(tuple(videos), report.layout.crops, *widths, dtype, key.hexdigest())


def _check_target(out: Path) -> None:
    """Refuse what would be lost or cannot be written, before any work."""
    if out.is_dir() and any(out.iterdir()) and not _was_written_here(out):
        raise UsageError(f"{out} is not empty and not a store; name a folder that does not exist yet")
    require_creatable(out)


def _was_written_here(out: Path) -> bool:
    """Whether a folder is a store, however damaged: only that may be deleted by this program."""
    names = {path.name for path in out.iterdir()} - {path.name for path in out.glob(NOTES)}
    return is_store(out) or (VISUAL in names and names <= {META, VISUAL, AUDIO, INDEX, LABELS})


def _is_taken(out: Path, source: SourceFolder, overwrite: bool, progress: bool) -> bool:
    """Whether `out` holds this very input already; refuse one that does not, unless it may be replaced."""
    if overwrite or not out.is_dir() or not any(out.iterdir()):
        return False
    try:
        store = FeatureStore.open(out)
    except DataError as error:
        if not is_known(out, source.state, source.options, source.plan):
            raise DataError(f"{error.message}; with --overwrite it is replaced") from None
        note(f"{error.message}: done now")
        return False
    if holds(store, source, Comparison(source, progress=progress)):
        return True
    raise UsageError(
        f"{out} holds a store {_otherness(store, source)}; name another folder, or replace it with --overwrite"
    )


def _otherness(store: FeatureStore, source: SourceFolder) -> str:
    """How a store differs from that of a folder."""
    wanted = source.description
    if (version := store.meta.format_version) != FORMAT_VERSION:
        return f"of format_version {version}, which is read as it is, and {FORMAT_VERSION} would be written"
    if store.dtype != wanted.dtype:
        return f"in {store.dtype}, and {wanted.dtype} would be written"
    if store.snippet_frames != wanted.snippet_frames:
        return f"with {store.snippet_frames} frames a snippet, and {wanted.snippet_frames} would be written"
    if store.reading != wanted.reading:
        made, would = (" ".join(each.words) or "no options" for each in (store.reading, wanted.reading))
        return f"that was made with {made}, and one with {would} would be written"
    return "of other data"


def _is_finished(partial: Path, source: SourceFolder, progress: bool) -> bool:
    """Whether a conversion of this very input was killed when nothing but the name was missing."""
    if (partial / JOURNAL).exists() or not is_store(partial):
        return False
    try:
        store = FeatureStore.open(partial)
    except DataError:
        return False
    if not holds(store, source, Comparison(source, progress=progress)):
        return False
    note(f"an earlier conversion of this folder was finished but for its name: {partial} becomes the store")
    return True


def _require_unchanged(partial: Path, source: SourceFolder, progress: bool) -> None:
    """Compare again what somebody touched while it was converted.

    Raises:
        DataError: It is not what was written any more.
    """
    root = source.state.source
    if look_at(root).digest == source.state.digest:
        return
    again = read_source(root, source.options, progress=progress)
    if not holds(FeatureStore.open(partial), again, Comparison(again, progress=progress)):
        raise DataError(
            f"{root} changed while it was converted; wait until nothing writes there, then run the same command again "
            f"(finished videos are kept in {partial.name})"
        )


@contextlib.contextmanager
def _writing_to(out: Path) -> Iterator[None]:
    """Say what the system refused, and that finished work is kept."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, WriteError) as error:
        refused = error if isinstance(error, WriteError) else refusal(error.filename or out, error)
        partial = out.with_name(out.name + ".partial")
        if not partial.exists():
            raise refused from None
        where = out if isinstance(error, OSError) and is_full(error) else refused.path
        raise WriteError(where, f"{refused.reason}; finished videos are kept in {partial.name}") from None


def _check_space(partial: Path, plan: Plan) -> None:
    present = sum(path.stat().st_blocks * 512 for path in partial.iterdir())
    needed = plan.nbytes + _SPARE_BYTES - present
    free = shutil.disk_usage(partial).free
    if needed > free:
        raise UsageError(
            f"the disk of {partial.parent} has {free / 1e9:.2f} GB free, {needed / 1e9:.2f} GB are needed; free some"
            " space, choose another disk, or halve the size with --dtype float16"
        )


def _write_features(partial: Path, source: SourceFolder, progress: bool) -> list[str]:
    """Write every video that is not finished yet; return the features' hash of each, in store order."""
    plan, report = source.plan, source.report
    problems: list[Finding] = []
    writer = StoreWriter(partial, plan, progress=progress)
    if writer.found:
        note(f"{writer.found} ({report.layout.origin})")
    try:
        with show_progress("converting", len(plan.videos), "videos", enabled=progress) as advance:
            advance(len(writer.digests))
            for index in range(len(plan.videos)):
                if index in writer.digests:
                    continue
                try:
                    writer.write(index)
                except VideoError as fault:
                    # The others are still read, so that every fault is listed at once.
                    problems.append(Finding(fault.kind, report.layout.relative(fault.path), str(fault)))
                advance(1)
    finally:
        try:
            writer.commit()
        finally:
            writer.close()
    if problems:
        count = plural(len(problems), "fault")
        advice = f"finished videos are kept in {partial}: correct the files, then run the same command again"
        raise DataError(
            f"{report.layout.origin} has {count}; {advice}", group_findings(problems, report.expected)
        )
    return [writer.digests[index] for index in range(len(plan.videos))]


def _write_tables(partial: Path, source: SourceFolder, digests: list[str]) -> None:
    plan = source.plan
    _write_index(partial / INDEX, source, digests)
    _write_labels(partial / LABELS, plan, source.report)
    meta = StoreMeta(
        **dict(source.description),
        source={"path": printable(str(source.report.layout.origin))},
        content_hash=hash_content(
            plan.dtype, plan.crops, plan.widths, plan.hashed, digests, source.description.reading
        ),
        files={name: (partial / name).stat().st_size for name in plan.feature_files},
        hashes={
            **{name: _hash_frame(partial / name) for name in plan.feature_files},
            **{name: hash_file(partial / name) for name in (INDEX, LABELS)},
        },
    )
    forget(partial)
    meta.write(partial / META)
    remember(partial, source, meta)


def _describe(plan: Plan, report: AuditReport) -> StoreDescription:
    """What meta.json records of a folder, but for what depends on features and on the folder's path."""
    return StoreDescription(
        format_version=FORMAT_VERSION,
        visual_dim=plan.visual_dim,
        audio_dim=plan.audio_dim,
        crops=plan.crops,
        snippet_frames=report.frame_labels.snippet_frames,
        dtype=plan.dtype,
        labels_hash=_hash_test_labels(report),
        label_notes=[str(doubt) for doubt in report.frame_labels.doubts],
        counts={
            "train_videos": sum(video.files.split == "train" for video in plan.videos),
            "test_videos": sum(video.files.split == "test" for video in plan.videos),
            "visual_rows": plan.visual_rows,
            "audio_rows": plan.audio_rows,
            **report.silent,
        },
        made_up=(Path(report.layout.root) / DEMO_FILE).is_file(),
        part=report.layout.part,
        reading=report.reading.plain,
    )


def _hash_frame(path: Path) -> FrameHash:
    head, tail = measure_frame(path)
    return head, tail, hash_frame(path, head, tail)


def _write_index(path: Path, source: SourceFolder, digests: list[str]) -> None:
    # Of a video's features: shows which one is damaged. The content hash is made of these.
    write_table(
        path, pa.table({**source.index_columns, columns.DIGEST: digests}, schema=columns.INDEX_SCHEMA)
    )


def _index_columns(plan: Plan) -> dict[str, list[Any]]:
    """All columns of index.arrow but the features' hashes."""
    videos = plan.videos
    # What a test video is must not be known to a training: its label and category are in labels.arrow only.
    trained = [video.files.split == "train" for video in videos]
    parsed = [video.files.parsed for video in videos]
    return {
        columns.NAME: [video.files.name for video in videos],
        columns.SOURCE: [name.source for name in parsed],
        columns.SPLIT: [video.files.split for video in videos],
        columns.CATEGORY: [p.category if t else None for p, t in zip(parsed, trained, strict=True)],
        columns.LABEL: [p.label if t else None for p, t in zip(parsed, trained, strict=True)],
        columns.LENGTH: [video.length for video in videos],
        columns.VISUAL_OFFSET: [video.visual_offset for video in videos],
        columns.AUDIO_OFFSET: [video.audio_offset for video in videos],
        columns.AUDIO_LENGTH: [video.audio_length for video in videos],
        columns.CROPS: [plan.crops] * len(videos),
    }


def _write_labels(path: Path, plan: Plan, report: AuditReport) -> None:
    videos = [video.files for video in plan.videos if video.files.split == "test"]
    frames = report.frame_labels.snippet_frames
    labels = [report.frame_labels.labels[video.name].reshape(-1, frames) for video in videos]
    content = {
        columns.NAME: [video.name for video in videos],
        columns.CATEGORY: [video.parsed.category for video in videos],
        columns.LABEL: [video.parsed.label for video in videos],
        columns.FRAME_LABELS: [list(rows) for rows in labels],
    }
    write_table(path, pa.table(content, schema=columns.labels_schema(frames)))


def _hash_test_labels(report: AuditReport) -> str:
    videos = report.layout.of_split("test")
    frame_labels = [report.frame_labels.labels[video.name] for video in videos]
    video_labels = np.array([video.parsed.label for video in videos])
    return hash_labels([video.name for video in videos], video_labels, np.concatenate(frame_labels))


def _publish(partial: Path, out: Path) -> None:
    """Turn the finished folder into `out`: after a kill at any of these lines the next run finds what to do."""
    sync_folder(partial)
    (partial / JOURNAL).unlink(missing_ok=True)
    replace_folder(partial, out)
