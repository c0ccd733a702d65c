"""Fill a store that is being converted, video by video; what a killed process finished is kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from macil.data.arrays import ArrayError, cast_features, load_features
from macil.data.arrow_files import FeatureFileLayout, allocate_feature_file, locate_buffers
from macil.data.layout import VideoFiles
from macil.data.store import AUDIO, VISUAL

JOURNAL = "journal.jsonl"

# Finished videos are made durable and noted in the journal each time this much was written.
_COMMIT_BYTES = 64 * 1024**2


@dataclass(frozen=True)
class PlannedVideo:
    """A video and its place in the store. `signature` changes when one of its files does."""

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
    dtype: str
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
    def nbytes(self) -> int:
        """Bytes of both feature files, nearly."""
        values = self.visual_rows * self.visual_dim + self.audio_rows * self.audio_dim
        return values * np.dtype(self.dtype).itemsize + self.visual_rows // 8


class StoreWriter:
    """Writes videos into `folder`; `digests` maps the index of every finished video to the hash of its features."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._plan = plan
        self._journal = folder / JOURNAL
        self._pending: list[str] = []
        self._uncommitted = 0
        self.digests: dict[int, str] = {}
        self._files = {name: _File(folder / name, layout) for name, layout in self._prepare(folder).items()}
        self.mask = self._files[VISUAL].read_mask(plan.visual_rows)

    def write(self, index: int) -> None:
        """Write video `index` of the plan, one file in memory at a time.

        Raises:
            VideoError: A file of it cannot be used.
        """
        video, plan = self._plan.videos[index], self._plan
        digest = hashlib.blake2b(digest_size=16)
        row = video.visual_offset
        for path in video.files.visual:
            with _naming(path):
                values = _load_planned(path, video.length, plan.visual_dim)
                stored = cast_features(values, plan.dtype)
            # From the float32 input: a float16 row of tiny values may have become zero.
            self.mask[row : row + video.length] = values.any(axis=1)
            self._write_rows(VISUAL, row, stored, digest)
            row += video.length
        assert video.files.audio is not None
        with _naming(video.files.audio):
            stored = cast_features(
                _load_planned(video.files.audio, video.audio_length, plan.audio_dim), plan.dtype
            )
        self._write_rows(AUDIO, video.audio_offset, stored, digest)
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

    def _prepare(self, folder: Path) -> dict[str, FeatureFileLayout]:
        """Take up the folder where a killed process left it, or lay it out anew."""
        plan = self._plan
        if self._read_journal():
            return {name: locate_buffers(folder / name) for name in (VISUAL, AUDIO)}
        layouts = {
            VISUAL: allocate_feature_file(
                folder / VISUAL, plan.visual_rows, plan.visual_dim, plan.dtype, nonzero=True
            ),
            AUDIO: allocate_feature_file(
                folder / AUDIO, plan.audio_rows, plan.audio_dim, plan.dtype, nonzero=False
            ),
        }
        self._journal.write_text(json.dumps({"plan": plan.key}) + "\n", encoding="utf-8")
        return layouts

    def _read_journal(self) -> bool:
        """Read which videos are finished; False when there is no journal of this plan."""
        try:
            lines = self._journal.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        entries = [entry for entry in map(_parse_line, lines) if entry is not None]
        if not entries or entries[0].get("plan") != self._plan.key:
            return False
        for entry in entries[1:]:
            index = entry["video"]
            if entry["signature"] == self._plan.videos[index].signature:
                self.digests[index] = entry["digest"]
            else:
                self.digests.pop(index, None)
        return True

    def _write_rows(self, name: str, row: int, stored: np.ndarray, digest: Any) -> None:
        data = stored.reshape(-1).view(np.uint8).data
        digest.update(data)
        self._files[name].write(row * stored.shape[1] * stored.itemsize, data)
        self._uncommitted += len(data)

    def _finish(self, index: int, digest: str) -> None:
        self.digests[index] = digest
        entry = {"video": index, "signature": self._plan.videos[index].signature, "digest": digest}
        self._pending.append(json.dumps(entry) + "\n")
        if self._uncommitted >= _COMMIT_BYTES:
            self.commit()


class VideoError(Exception):
    """A file of a video cannot be used."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(reason)


class _File:
    """A feature file being filled at its buffers' offsets."""

    def __init__(self, path: Path, layout: FeatureFileLayout) -> None:
        self._layout = layout
        self._descriptor = os.open(path, os.O_RDWR)

    def write(self, offset: int, data: memoryview) -> None:
        _write_at(self._descriptor, self._layout.values + offset, data)

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
        raise VideoError(path, str(fault)) from None


def _parse_line(line: str) -> dict[str, Any] | None:
    # The last line may have been cut short by a kill.
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
