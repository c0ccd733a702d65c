"""Layout folder -> feature store: streamed, atomic, resumable."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from macil.data.arrow_files import Columns, make_table, write_table
from macil.data.audit import AuditReport, audit, video_rows
from macil.data.demo import DEMO_FILE
from macil.data.layout import VideoFiles
from macil.data.locking import exclusive
from macil.data.progress import show_progress
from macil.data.store import AUDIO, FORMAT, FORMAT_VERSION, INDEX, LABELS, META, VISUAL, hash_labels, is_store
from macil.data.writer import JOURNAL, Plan, PlannedVideo, StoreWriter, VideoError
from macil.errors import DataError, UsageError
from macil.files import read_json, write_json_atomic

DTYPES = ("float32", "float16")

# Journal, index and file-system overhead, generously.
_SPARE_BYTES = 16 * 1024**2


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dtype: str = "float32",
    snippet_frames: int | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Convert a layout folder into a feature store and return its path.

    Work happens in `OUT.partial`, which becomes `OUT` when everything is written. A run that was killed is taken up
    where it stopped, with the same result to the last byte; an `OUT` already made from the same files is left as it is.

    Args:
        source: Folder in the XD-Violence layout.
        out: Folder to make.
        dtype: "float32" or "float16" (half the size; a value beyond its range is refused).
        snippet_frames: Frames of a snippet; None: 16, or what `gt.npy` says.
        overwrite: Replace an existing store.
        progress: Show progress on stderr.

    Raises:
        DataError: The data have faults; all are listed.
        UsageError: The dtype is unknown, `out` cannot be written or is taken, or the disk is too small.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    out = Path(out).absolute()
    _check_target(out)
    report = audit(source, deep=False, snippet_frames=snippet_frames, progress=progress)
    report.raise_for_faults()
    plan = make_plan(report, dtype)
    signature = _sign_source(plan, report)
    partial = out.with_name(out.name + ".partial")
    with _writing_to(out), exclusive(out.with_name(out.name + ".lock"), f"converting to {out}"):
        if _is_taken(out, signature, overwrite):
            return out
        partial.mkdir(exist_ok=True)
        _check_space(partial, plan)
        digests = _write_features(partial, plan, report, progress)
        _write_tables(partial, plan, report, digests, signature)
        _publish(partial, out)
    return out


def make_plan(report: AuditReport, dtype: str) -> Plan:
    """Lay out the store of a faultless folder: which video goes where."""
    videos = []
    visual_offset = audio_offset = 0
    key = hashlib.blake2b(
        f"{FORMAT_VERSION}/{dtype}/{report.frame_labels.snippet_frames}".encode(), digest_size=16
    )
    for files in report.layout.videos:
        length, audio_length = video_rows(report, files)
        signature = _sign_files(files)
        videos.append(PlannedVideo(files, length, audio_length, visual_offset, audio_offset, signature))
        visual_offset += length * report.layout.crops
        audio_offset += audio_length
        key.update(f"{files.split}\0{files.name}\0{length}\0{audio_length}\0".encode())
    first = report.layout.videos[0]
    assert first.audio is not None
    widths = report.headers[first.visual[0]].width, report.headers[first.audio].width
    key.update(f"{report.layout.crops}/{widths}".encode())
    return Plan(tuple(videos), report.layout.crops, *widths, dtype, key.hexdigest())


def _sign_files(files: VideoFiles) -> str:
    assert files.audio is not None
    stats = [path.stat() for path in (*files.visual, files.audio)]
    text = "/".join(f"{stat.st_size}:{stat.st_mtime_ns}" for stat in stats)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _sign_source(plan: Plan, report: AuditReport) -> str:
    """Identify the input: equal signatures promise an equal store."""
    digest = hashlib.blake2b(plan.key.encode(), digest_size=16)
    for video in plan.videos:
        digest.update(f"/{video.signature}".encode())
    digest.update(_hash_test_labels(report).encode())
    return digest.hexdigest()


def _check_target(out: Path) -> None:
    """Refuse what would be lost or cannot be written, before any work."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; name a folder that does not exist yet")
    if out.is_dir() and any(out.iterdir()) and not is_store(out):
        raise UsageError(f"{out} is not empty and not a store; name a folder that does not exist yet")
    parent = next(folder for folder in out.parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write {out}: {parent} is not a folder you may write to")


def _is_taken(out: Path, signature: str, overwrite: bool) -> bool:
    """Whether `out` is finished already, from this very input; refuse one that is not, unless it may be replaced."""
    if overwrite or not is_store(out):
        return False
    if read_json(out / META).get("source", {}).get("signature") == signature:
        return True
    raise UsageError(
        f"{out} holds a store of other data; name another folder, or replace it with --overwrite"
    )


@contextlib.contextmanager
def _writing_to(out: Path) -> Iterator[None]:
    """Say what the system refused, and that finished work is kept."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UsageError(
                f"the disk of {out} is full; finished videos are kept in {out.name}.partial: free some space, then run"
                " the same command again"
            ) from None
        raise UsageError(f"cannot write {error.filename or out}: {error.strerror or error}") from None


def _check_space(partial: Path, plan: Plan) -> None:
    present = sum(path.stat().st_blocks * 512 for path in partial.iterdir())
    needed = plan.nbytes + _SPARE_BYTES - present
    free = shutil.disk_usage(partial).free
    if needed > free:
        raise UsageError(
            f"the disk of {partial.parent} has {free / 1e9:.2f} GB free, {needed / 1e9:.2f} GB are needed; free some"
            " space, choose another disk, or halve the size with --dtype float16"
        )


def _write_features(partial: Path, plan: Plan, report: AuditReport, progress: bool) -> list[str]:
    """Write every video that is not finished yet; return the features' hash of each, in store order."""
    problems = []
    writer = StoreWriter(partial, plan)
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
                    problems.append(f"{report.layout.relative(fault.path)}: {fault}")
                advance(1)
    finally:
        try:
            writer.commit()
        finally:
            writer.close()
    if problems:
        count = f"{len(problems)} fault" + "s" * (len(problems) > 1)
        advice = f"finished videos are kept in {partial}: correct the files, then run the same command again"
        raise DataError(f"{report.layout.root} has {count}; {advice}", problems)
    return [writer.digests[index] for index in range(len(plan.videos))]


def _write_tables(partial: Path, plan: Plan, report: AuditReport, digests: list[str], signature: str) -> None:
    _write_index(partial / INDEX, plan)
    _write_labels(partial / LABELS, plan, report)
    meta = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "visual_dim": plan.visual_dim,
        "audio_dim": plan.audio_dim,
        "crops": plan.crops,
        "snippet_frames": report.frame_labels.snippet_frames,
        "dtype": plan.dtype,
        "content_hash": _hash_content(plan, digests),
        "labels_hash": _hash_test_labels(report),
        "counts": {
            "train_videos": sum(video.files.split == "train" for video in plan.videos),
            "test_videos": sum(video.files.split == "test" for video in plan.videos),
            "visual_rows": plan.visual_rows,
            "audio_rows": plan.audio_rows,
        },
        "files": {name: (partial / name).stat().st_size for name in (VISUAL, AUDIO)},
        "source": {"path": str(report.layout.root), "signature": signature},
        "made_up": (Path(report.layout.root) / DEMO_FILE).is_file(),
    }
    write_json_atomic(partial / META, meta)


def _write_index(path: Path, plan: Plan) -> None:
    videos = plan.videos
    # What a test video is must not be known to a training: its label and category are in labels.arrow only.
    trained = [video.files.split == "train" for video in videos]
    parsed = [video.files.parsed for video in videos]
    columns: Columns = {
        "name": (pa.string(), [video.files.name for video in videos]),
        "source": (pa.string(), [name.source for name in parsed]),
        "split": (pa.string(), [video.files.split for video in videos]),
        "category": (pa.string(), [p.category if t else None for p, t in zip(parsed, trained, strict=True)]),
        "label": (pa.int8(), [p.label if t else None for p, t in zip(parsed, trained, strict=True)]),
        "length": (pa.int64(), [video.length for video in videos]),
        "visual_offset": (pa.int64(), [video.visual_offset for video in videos]),
        "audio_offset": (pa.int64(), [video.audio_offset for video in videos]),
        "audio_length": (pa.int64(), [video.audio_length for video in videos]),
        "crops": (pa.int32(), [plan.crops] * len(videos)),
    }
    write_table(path, make_table(columns))


def _write_labels(path: Path, plan: Plan, report: AuditReport) -> None:
    videos = [video.files for video in plan.videos if video.files.split == "test"]
    frames = report.frame_labels.snippet_frames
    labels = [report.frame_labels.labels[video.name].reshape(-1, frames) for video in videos]
    columns: Columns = {
        "name": (pa.string(), [video.name for video in videos]),
        "category": (pa.string(), [video.parsed.category for video in videos]),
        "label": (pa.int8(), [video.parsed.label for video in videos]),
        "frame_labels": (pa.large_list(pa.list_(pa.uint8(), frames)), [list(rows) for rows in labels]),
    }
    write_table(path, make_table(columns))


def _hash_content(plan: Plan, digests: list[str]) -> str:
    """Hash names, training labels and features in store order; how they came to be written is no part of it."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{plan.dtype}/{plan.crops}/{plan.visual_dim}/{plan.audio_dim}".encode())
    for video, features in zip(plan.videos, digests, strict=True):
        label = video.files.parsed.label if video.files.split == "train" else None
        fields = (video.files.split, video.files.name, label, video.length, video.audio_length, features)
        digest.update(("\0".join(map(str, fields)) + "\n").encode())
    return digest.hexdigest()


def _hash_test_labels(report: AuditReport) -> str:
    videos = report.layout.of_split("test")
    frame_labels = [report.frame_labels.labels[video.name] for video in videos]
    video_labels = np.array([video.parsed.label for video in videos])
    return hash_labels([video.name for video in videos], video_labels, np.concatenate(frame_labels))


def _publish(partial: Path, out: Path) -> None:
    """Turn the finished folder into `out` in one step."""
    (partial / JOURNAL).unlink()
    for path in partial.iterdir():
        _sync(path)
    old = None
    if out.is_dir() and any(out.iterdir()):
        old = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.old")
        out.rename(old)
    os.replace(partial, out)
    _sync(out.parent)
    if old is not None:
        shutil.rmtree(old)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
