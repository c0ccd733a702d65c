"""Fill a store that is being converted, video by video; what a killed process finished is kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, TypeAdapter, ValidationError

from macil.data.store.arrow_files import FeatureFileLayout, allocate_feature_file, locate_buffers, read_blocks
from macil.data.store.feature_store import AUDIO, VISUAL
from macil.data.store.meta import META, Dtype
from macil.data.xd.arrays import ArrayError, cast_features, load_features, nonzero_rows
from macil.data.xd.layout import VideoFiles
from macil.errors import DataError
from macil.io.files import write_text_atomic
from macil.io.progress import show_progress

JOURNAL = "journal.jsonl"

# Finished videos are made durable and noted in the journal each time this much was written.
_COMMIT_BYTES = 64 * 1024**2


class JournalHead(BaseModel, frozen=True, extra="forbid", strict=True):
    """The first line of the journal: what is being written."""

    plan: str
    """Key of the plan"""


class JournalLine(BaseModel, frozen=True, extra="forbid", strict=True):
    """A further line of the journal: a video that is finished."""

    video: int
    """Index in the plan"""
    signature: str
    """Signature of the video's files as they were read"""
    digest: str
    """Hash of its features"""


_JOURNAL_LINE: TypeAdapter[JournalHead | JournalLine] = TypeAdapter(JournalHead | JournalLine)


@dataclass(frozen=True)
class PlannedVideo:
    """A video and its index in the store. `signature` changes when one of its files does."""

    files: VideoFiles
    length: int
    audio_length: int
    visual_offset: int
    audio_offset: int
    signature: str


@dataclass(frozen=True)
class Plan:
    """All that decides the bytes of a store, known from the headers alone. Training videos first, then test."""

    videos: tuple[PlannedVideo, ...]
    crops: int
    visual_dim: int
    audio_dim: int
    dtype: Dtype
    key: str

    @property
    def visual_rows(self) -> int:
        """Rows of visual.arrow."""
        return sum(video.length for video in self.videos) * self.crops

    @property
    def audio_rows(self) -> int:
        """Rows of audio.arrow."""
        return sum(video.audio_length for video in self.videos)

    @property
    def feature_files(self) -> tuple[str, ...]:
        """Names of the files of features."""
        return (VISUAL, AUDIO) if self.audio_dim else (VISUAL,)

    @property
    def widths(self) -> tuple[int, int]:
        """Widths of the visual and of the audio features."""
        return self.visual_dim, self.audio_dim

    @property
    def hashed(self) -> list[tuple[str, str, int | None, int, int]]:
        """The description of each video that enters `hash_content`."""
        return [
            (
                video.files.split,
                video.files.name,
                video.files.parsed.label if video.files.split == "train" else None,
                video.length,
                video.audio_length,
            )
            for video in self.videos
        ]

    @property
    def nbytes(self) -> int:
        """Bytes of both feature files, nearly."""
        values = self.visual_rows * self.visual_dim + self.audio_rows * self.audio_dim
        return values * np.dtype(self.dtype).itemsize + self.visual_rows // 8


class StoreWriter:
    """Writes videos into `folder`.

    Attributes:
        digests: Index of every finished video to the hash of its features.
        found: What a process that was killed left, in words, or None: where it is taken up, or why it is not.
    """

    def __init__(self, folder: Path, plan: Plan, *, progress: bool = False) -> None:
        self._plan = plan
        self._journal = folder / JOURNAL
        self._pending: list[str] = []
        self._uncommitted = 0
        self.digests: dict[int, str] = {}
        self.found: str | None = None
        self._files = self._take_up(folder, progress) or self._lay_out(folder)
        self.mask = self._files[VISUAL].read_mask(plan.visual_rows)

    def write(self, index: int) -> None:
        """Write video `index` of the plan, one file in memory at a time.

        Raises:
            VideoError: A file of it cannot be used.
        """
        digest = hashlib.blake2b(digest_size=16)
        for name, row, stored, nonzero in _blocks(self._plan, index):
            if name == VISUAL:
                self.mask[row : row + len(nonzero)] = nonzero
            self._write_rows(name, row, stored, digest)
        self._finish(index, digest.hexdigest())

    def commit(self) -> None:
        """Make everything written durable, then note it as finished: in this order, or a crash could lose rows."""
        if not self._pending:
            return
        self._files[VISUAL].write_mask(self.mask)
        for file in self._files.values():
            file.sync()
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.writelines(self._pending)
            journal.flush()
            os.fsync(journal.fileno())
        self._pending.clear()
        self._uncommitted = 0

    def close(self) -> None:
        """Close the files; what was not committed is written again by the next run."""
        for file in self._files.values():
            file.close()

    def _lay_out(self, folder: Path) -> dict[str, _File]:
        """Begin anew."""
        plan = self._plan
        self.digests.clear()
        # A kill between these lines must leave nothing that could be taken up, or taken for finished.
        for name in (META, JOURNAL):
            (folder / name).unlink(missing_ok=True)
        visual, audio = plan.visual_rows, plan.audio_rows
        layouts = {
            VISUAL: allocate_feature_file(folder / VISUAL, visual, plan.visual_dim, plan.dtype, nonzero=True),
        }
        if plan.audio_dim:
            layouts[AUDIO] = allocate_feature_file(
                folder / AUDIO, audio, plan.audio_dim, plan.dtype, nonzero=False
            )
        self._write_journal()
        return {name: _File(folder / name, layout) for name, layout in layouts.items()}

    def _take_up(self, folder: Path, progress: bool) -> dict[str, _File] | None:
        """Go on where a killed process left the folder, with what in it is whole; None when nothing can be kept."""
        if not self._journal.exists():
            return None
        lines = _read_lines(self._journal)
        if not lines or lines[0] != JournalHead(plan=self._plan.key):
            self.found = f"{folder} is of other data or options; it is made anew"
            return None
        try:
            files = {
                name: _File(folder / name, locate_buffers(folder / name)) for name in self._plan.feature_files
            }
        except (DataError, OSError, pa.ArrowException, IndexError, KeyError) as error:
            reason = " ".join(str(error).split())
            self.found = f"what an earlier conversion left in {folder} is damaged ({reason}); it is made anew"
            return None
        self._read_finished(line for line in lines if isinstance(line, JournalLine))
        damaged = self._drop_damaged(files, progress)
        total = len(self._plan.videos)
        first = next((index for index in range(total) if index not in self.digests), total)
        self.found = f"taking up the conversion at video {first + 1} of {total}"
        if first == total:
            self.found = f"taking up the conversion: all {total} videos are there"
        elif first == 0 and not damaged:
            self.found = "an earlier conversion was cut short before a video of it was kept; beginning anew"
        if damaged:
            self.found += f"; {damaged} that it had finished are not what was written and are converted again"
        # Without lines that were cut short: what is appended must begin on a line of its own.
        self._write_journal()
        return files

    def _read_finished(self, lines: Iterable[JournalLine]) -> None:
        for line in lines:
            if not 0 <= line.video < len(self._plan.videos):
                continue
            if line.signature == self._plan.videos[line.video].signature:
                self.digests[line.video] = line.digest
            else:
                self.digests.pop(line.video, None)

    def _drop_damaged(self, files: dict[str, _File], progress: bool) -> int:
        """Compare what is kept with its hashes: the store's content hash will be made of these."""
        kept = list(self.digests)
        with show_progress("reading what is kept", len(kept), "videos", enabled=progress) as advance:
            for index in kept:
                with contextlib.suppress(OSError):  # a bad disk: it is written again
                    if self._hash_written(files, index) == self.digests[index]:
                        advance(1)
                        continue
                del self.digests[index]
                advance(1)
        return len(kept) - len(self.digests)

    def _hash_written(self, files: dict[str, _File], index: int) -> str:
        video, plan = self._plan.videos[index], self._plan
        digest = hashlib.blake2b(digest_size=16)
        itemsize = np.dtype(plan.dtype).itemsize
        for name, row, rows, width in (
            (VISUAL, video.visual_offset, video.length * plan.crops, plan.visual_dim),
            (AUDIO, video.audio_offset, video.audio_length, plan.audio_dim),
        ):
            if not rows:
                continue
            for block in files[name].read(row * width * itemsize, rows * width * itemsize):
                digest.update(block)
        return digest.hexdigest()

    def _write_journal(self) -> None:
        head = _to_text(JournalHead(plan=self._plan.key))
        write_text_atomic(self._journal, "".join([head, *map(self._line, self.digests)]))

    def _line(self, index: int) -> str:
        signature = self._plan.videos[index].signature
        return _to_text(JournalLine(video=index, signature=signature, digest=self.digests[index]))

    def _write_rows(self, name: str, row: int, stored: np.ndarray, digest: Any) -> None:
        data = _bytes(stored)
        digest.update(data)
        self._files[name].write(row * stored.shape[1] * stored.itemsize, data)
        self._uncommitted += len(data)

    def _finish(self, index: int, digest: str) -> None:
        self.digests[index] = digest
        self._pending.append(self._line(index))
        if self._uncommitted >= _COMMIT_BYTES:
            self.commit()


class VideoError(Exception):
    """A file of a video cannot be used; `kind` as of a `Finding`."""

    def __init__(self, path: Path, kind: str, reason: str) -> None:
        self.path, self.kind = path, kind
        super().__init__(reason)


class _File:
    """A feature file being filled at its buffers' offsets."""

    def __init__(self, path: Path, layout: FeatureFileLayout) -> None:
        self._layout = layout
        self._descriptor = os.open(path, os.O_RDWR)

    def write(self, offset: int, data: memoryview) -> None:
        _write_at(self._descriptor, self._layout.values + offset, data)

    def read(self, offset: int, size: int) -> Iterator[bytes]:
        """Blocks of the values; not through a mapping, in which a page that cannot be read kills the process."""
        return read_blocks(self._descriptor, self._layout.values + offset, size)

    def read_mask(self, rows: int) -> np.ndarray:
        assert self._layout.nonzero is not None
        packed = os.pread(self._descriptor, (rows + 7) // 8, self._layout.nonzero)
        return np.unpackbits(np.frombuffer(packed, np.uint8), count=rows, bitorder="little").astype(bool)

    def write_mask(self, mask: np.ndarray) -> None:
        assert self._layout.nonzero is not None
        _write_at(self._descriptor, self._layout.nonzero, np.packbits(mask, bitorder="little").data)

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def hash_video(plan: Plan, index: int) -> tuple[str, np.ndarray]:
    """The hash that video `index` of the plan has in a store, and its visual rows (bool) that are not all zero.

    Raises:
        VideoError: A file of it cannot be used.
    """
    digest = hashlib.blake2b(digest_size=16)
    marks = []
    for name, _, stored, nonzero in _blocks(plan, index):
        digest.update(_bytes(stored))
        if name == VISUAL:
            marks.append(nonzero)
    return digest.hexdigest(), np.concatenate(marks)


def _blocks(plan: Plan, index: int) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
    """Rows of a video as a store has them, a file in memory at a time: where, first row, rows, which are not all zero.

    The last is of visual rows alone and refers to the float32 input: a float16 row of tiny values may have become zero.
    Audio without a file is zeros.
    """
    video = plan.videos[index]
    row = video.visual_offset
    for path in video.files.visual:
        with _naming(path):
            values = _load_planned(path, video.length, plan.visual_dim)
            nonzero = nonzero_rows(values)
            stored = cast_features(values, plan.dtype)
        yield VISUAL, row, stored, nonzero
        row += video.length
    if not plan.audio_dim:
        return
    if video.files.audio is None:
        stored = np.zeros((video.audio_length, plan.audio_dim), plan.dtype)
    else:
        with _naming(video.files.audio):
            values = _load_planned(video.files.audio, video.audio_length, plan.audio_dim)
            stored = cast_features(values, plan.dtype)
    yield AUDIO, video.audio_offset, stored, np.empty(0, bool)


def _bytes(stored: np.ndarray) -> memoryview:
    return stored.reshape(-1).view(np.uint8).data


def _write_at(descriptor: int, offset: int, data: memoryview) -> None:
    while len(data):
        written = os.pwrite(descriptor, data, offset)
        data = data[written:]
        offset += written


def _load_planned(path: Path, rows: int, width: int) -> np.ndarray:
    values = load_features(path)
    if values.shape != (rows, width):
        raise ArrayError(
            "changed", f"has shape {values.shape}, its header said {(rows, width)}: it has just changed"
        )
    return values


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except ArrayError as fault:
        raise VideoError(path, fault.kind, str(fault)) from None


def _to_text(line: JournalHead | JournalLine) -> str:
    return json.dumps(line.model_dump()) + "\n"


def _read_lines(journal: Path) -> list[JournalHead | JournalLine]:
    """The lines that are whole; the last may have been cut short by a kill, and any by a bad disk."""
    lines = []
    for line in journal.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValidationError):
            lines.append(_JOURNAL_LINE.validate_json(line))
    return lines
