"""The feature store: Arrow files that every process on a machine maps, so that K trainings share one copy of the data.

A store is a folder:

    meta.json       format, widths, dtype, hashes, counts, what the labels rest on
    visual.arrow    one row a snippet: video, then crop, then snippet; and whether the row is not all zero
    audio.arrow     one row a snippet
    index.arrow     one row a video: training videos, then test videos, each by name; no label of a test video
    labels.arrow    one row a test video: label, category and frame labels; read by `test_labels` alone
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from macil.data.reading import Reading
from macil.data.silence import silence_note
from macil.data.store import columns
from macil.data.store.arrow_files import FEATURES, NONZERO, map_batch, map_table
from macil.data.store.faults import index_faults
from macil.data.store.meta import FORMAT, META, StoreMeta
from macil.errors import DataError
from macil.io.command_line import command_line
from macil.io.files import read_json
from macil.io.remote import local_path

if TYPE_CHECKING:
    import torch

_NOT_SAID = (
    "the store is of format_version 1, which does not say what its test labels rest on: check the folder that it was "
    "made from, or convert it again"
)
VISUAL, AUDIO, INDEX, LABELS = "visual.arrow", "audio.arrow", "index.arrow", "labels.arrow"


@dataclass(frozen=True, eq=False)
class VideoSet:
    """The videos of one split, by name.

    Snippet t of crop c of video i is row `visual_offsets[i] + c * lengths[i] + t` of `FeatureStore.visual`; its audio
    is row `audio_offsets[i] + t` of `FeatureStore.audio`, t < `audio_lengths[i]`, which may differ from `lengths[i]`.
    `labels` (0 normal, 1 violent) and `categories` of test videos are withheld: None and empty strings.
    """

    names: tuple[str, ...]
    sources: tuple[str, ...]
    categories: tuple[str, ...]
    lengths: np.ndarray
    visual_offsets: np.ndarray
    audio_offsets: np.ndarray
    audio_lengths: np.ndarray
    labels: np.ndarray | None
    crops: int

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class TestLabels:
    """Labels of the test videos in the order of `FeatureStore.videos("test")`.

    `video_labels` int64 (V,), `frame_labels` uint8 (snippet_frames * sum of lengths,), `hash` of all of them.
    """

    __test__ = False  # pytest would take the class for a test by its name

    names: tuple[str, ...]
    categories: tuple[str, ...]
    video_labels: np.ndarray
    frame_labels: np.ndarray
    hash: str

    @property
    def violent_share(self) -> float:
        """Share of violent frames, which random scores have as AP."""
        return float(self.frame_labels.mean())


class FeatureStore:
    """A converted data set, memory-mapped; open one with `FeatureStore.open`.

    Attributes:
        path: Its folder, absolute.
        visual_dim, audio_dim: Widths of the features.
        crops: Crops of a video.
        snippet_frames: Frames of a snippet.
        dtype: "float32" or "float16".
        content_hash: Identifies names, training labels and features, however they were converted.
        labels_hash: Identifies the test labels as converted.
        label_notes: What the test labels rest on that no file proves, to be reported with every number made with
            them; for a store of version 1, that this is not recorded.
        visual: `(rows, visual_dim)` tensor over the mapped file; it must never be written to.
        audio: `(audio rows, audio_dim)` likewise; (0, 0) of data without audio.
    """

    def __init__(self, path: Path, meta: StoreMeta) -> None:
        self.path = path
        self.meta = meta
        self.visual_dim, self.audio_dim = meta.visual_dim, meta.audio_dim
        self.crops, self.snippet_frames = meta.crops, meta.snippet_frames
        self.reading, self.part = meta.reading, meta.part
        self.dtype: str = meta.dtype
        self.content_hash, self.labels_hash = meta.content_hash, meta.labels_hash
        notes = meta.label_notes
        self.label_notes: tuple[str, ...] = (_NOT_SAID,) if notes is None else tuple(notes)
        self._visual_batch = _map_features(path / VISUAL, meta)
        self.visual = _as_tensor(path / VISUAL, self._visual_batch, self.visual_dim, self.dtype)
        if self.audio_dim:
            audio = _map_features(path / AUDIO, meta)
            self.audio = _as_tensor(path / AUDIO, audio, self.audio_dim, self.dtype)
        else:
            self.audio = self.visual.new_empty(0, 0)
        _require_hash(path / INDEX, meta)
        self._index = _read_index(self)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> FeatureStore:
        """Map a store.

        Raises:
            DataError: It is missing, no store, of another format version, incomplete or truncated.
        """
        path = local_path(path).absolute()
        return cls(path, _read_meta(path))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person who trains on the store should know about its features."""
        silence = silence_note(self.meta.counts or {}, self.reading)
        return () if silence is None else (silence,)

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        # A worker maps the files again; gigabytes never travel.
        return FeatureStore.open, (self.path,)

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.path)!r}, {self.describe()})"

    @cached_property
    def nonzero(self) -> np.ndarray:
        """Whether each visual row was not all zero in the float32 input, bool (rows,)."""
        # Not `to_numpy`, which imports pandas.
        column = self._visual_batch.column(NONZERO)
        packed = np.frombuffer(column.buffers()[1], np.uint8)
        return np.unpackbits(packed, count=len(column), bitorder="little").astype(bool)

    @property
    def nbytes(self) -> int:
        """Bytes of the features on disk."""
        return self.visual.nbytes + self.audio.nbytes

    def describe(self) -> str:
        """Say in one line what the store holds."""
        train, test = (len(self._index[split]) for split in ("train", "test"))
        return (
            f"{train} training and {test} test videos, {self.crops} crops, visual {self.visual_dim} and audio "
            f"{self.audio_dim} wide, {self.dtype}, {self.nbytes / 1e6:.0f} MB, content {self.content_hash[:12]}"
        )

    def videos(self, split: Literal["train", "test"]) -> VideoSet:
        """Return the videos of a split; the labels of test videos are withheld.

        Raises:
            DataError: The store was made of the other split alone.
        """
        if self.part not in (None, split):
            raise DataError(f"{self.path} holds {self.part} videos alone; convert the whole folder")
        return self._index[split]

    def test_labels(self) -> TestLabels:
        """Read the labels of the test videos, now: nothing else does.

        Raises:
            DataError: They are absent, damaged or of other videos.
        """
        path = self.path / LABELS
        if not path.is_file():
            raise DataError(
                f"{path} is missing: this store has no test labels; convert again, or use held-out data"
            )
        _require_hash(path, self.meta)
        batch = map_table(path, columns.labels_schema(self.snippet_frames))
        try:
            names = tuple(batch.column(columns.NAME).to_pylist())
            categories = tuple(batch.column(columns.CATEGORY).to_pylist())
            video_labels = batch.column(columns.LABEL).to_numpy().astype(np.int64)
            column = batch.column(columns.FRAME_LABELS)
            frame_labels = column.flatten().flatten().to_numpy(zero_copy_only=False).astype(np.uint8)
            snippets = column.value_lengths().to_numpy()
            frames = self.snippet_frames * snippets.sum()
            if (
                frame_labels.shape != (frames,)
                or frame_labels.max(initial=0) > 1
                or not set(video_labels) <= {0, 1}
            ):
                raise ValueError("a label is neither 0 nor 1, or missing")
        except (KeyError, AttributeError, TypeError, ValueError, pa.ArrowException) as error:
            raise DataError(f"{path} is damaged ({error}); convert again") from None
        videos = self.videos("test")
        if names != videos.names or not np.array_equal(snippets, videos.lengths):
            raise DataError(f"{path} labels other videos than index.arrow lists; convert again")
        digest = hash_labels(names, video_labels, frame_labels)
        if self.labels_hash and digest != self.labels_hash:
            raise DataError(f"{path} is not what was converted: it is damaged or was changed; convert again")
        return TestLabels(names, categories, video_labels, frame_labels, digest)


def map_index(store: Path) -> pa.RecordBatch:
    """The table of videos of the store in a folder; without hashes of the features in a store of format_version 1.

    Raises:
        DataError: It is missing, damaged or has other columns.
    """
    return map_table(store / INDEX, columns.INDEX_SCHEMA, later=columns.LATER)


def is_store(path: str | os.PathLike[str]) -> bool:
    """Whether a folder says that it is a store, of whatever version."""
    meta = Path(path) / META
    if not meta.is_file():
        return False
    try:
        content = read_json(meta)
    except DataError:
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def looks_like_store(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is meant to be a store, whole or damaged."""
    return any((Path(path) / name).exists() for name in (META, VISUAL))


def hash_content(
    dtype: str,
    crops: int,
    widths: tuple[int, int],
    videos: Iterable[tuple[str, str, int | None, int, int]],
    digests: Iterable[str],
    reading: Reading,
) -> str:
    """Hash names, training labels and features in store order, and how their folder was read, if not as usual.

    Args:
        dtype: Of the features.
        crops: Of a video.
        widths: Of the visual and of the audio features.
        videos: Split, name, label (None for a test video), visual and audio snippets of each.
        digests: The hash of each one's features: all crops, then audio.
        reading: How the folder was read.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{dtype}/{crops}/{widths[0]}/{widths[1]}{reading.key}".encode())
    for video, features in zip(videos, digests, strict=True):
        digest.update(("\0".join(map(str, (*video, features))) + "\n").encode())
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """Hash a small file."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def hash_frame(path: Path, head: int, tail: int) -> str:
    """Hash the first and the last bytes of a feature file, see `arrow_files.measure_frame`."""
    with path.open("rb") as file:
        digest = hashlib.blake2b(file.read(head), digest_size=16)
        file.seek(-tail, os.SEEK_END)
        digest.update(file.read())
    return digest.hexdigest()


def hash_labels(names: Iterable[str], video_labels: np.ndarray, frame_labels: np.ndarray) -> str:
    """Hash test labels in store order."""
    digest = hashlib.blake2b(digest_size=16)
    for name, label in zip(names, video_labels, strict=True):
        digest.update(f"{name}\0{int(label)}\0".encode())
    digest.update(np.ascontiguousarray(frame_labels, np.uint8).tobytes())
    return digest.hexdigest()


def _read_meta(path: Path) -> StoreMeta:
    advice = f"make one with `{command_line('macil', 'convert', 'DIR', 'OUT')}`"
    if not path.exists():
        raise DataError(f"{path} does not exist; expected a converted store, {advice}")
    if not path.is_dir():
        raise DataError(f"{path} is a file; expected the folder of a converted store, {advice}")
    if not (path / META).is_file():
        unfinished = (
            " (an unfinished conversion; run it again to finish it)" if path.suffix == ".partial" else ""
        )
        raise DataError(f"{path} holds no {META}{unfinished}; expected a converted store, {advice}")
    return StoreMeta.read(path / META)


def _map_features(path: Path, meta: StoreMeta) -> pa.RecordBatch:
    # A truncated file may still map, and reading its lost pages would kill the process.
    expected = meta.files.get(path.name)
    size = path.stat().st_size if path.is_file() else None
    if size is not None and size != expected:
        raise DataError(f"{path} has {size} bytes, expected {expected}; it is truncated, convert again")
    _require_hash(path, meta)
    return map_batch(path)


def _require_hash(path: Path, meta: StoreMeta) -> None:
    """Refuse a file that is not what was written; a store of an earlier version does not say what that was.

    Of the feature files only what is not features is read: `macil.data.store.verification` reads all.
    """
    expected = meta.hashes.get(path.name)
    if expected is None or not path.is_file():
        return
    try:
        found = hash_file(path) if isinstance(expected, str) else hash_frame(path, *expected[:-1])
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); convert again") from None
    if found != (expected if isinstance(expected, str) else expected[-1]):
        raise DataError(f"{path} is not what was converted: it is damaged or was changed; convert again")


def _as_tensor(path: Path, batch: pa.RecordBatch, width: int, dtype: str) -> torch.Tensor:
    """The features of a mapped file, without a copy.

    Raises:
        DataError: The file says of itself that it holds something else than meta.json does.
    """
    expected = pa.list_(pa.field("item", pa.from_numpy_dtype(np.dtype(dtype)), nullable=False), width)
    found = batch.schema.field(FEATURES).type if FEATURES in batch.schema.names else None
    if found != expected:
        raise DataError(f"{path} holds {found}, expected {expected}; it is damaged, convert again")
    import torch

    # DLPack wraps the mapped pages without a copy and without torch's warning about read-only arrays.
    tensor: torch.Tensor = torch.utils.dlpack.from_dlpack(batch.column(FEATURES).values)
    return tensor.view(-1, width)


def _read_index(store: FeatureStore) -> dict[str, VideoSet]:
    path, batch = store.path / INDEX, map_index(store.path)
    try:
        arrays = {name: batch.column(name) for name in batch.schema.names}
        splits = np.array(arrays[columns.SPLIT].to_pylist())
        sets = {
            split: _select(arrays, np.flatnonzero(splits == split), split, store.crops)
            for split in ("train", "test")
        }
    except (KeyError, TypeError, ValueError, OverflowError, pa.ArrowException) as error:
        raise DataError(f"{path} is damaged ({error}); convert again") from None
    audio_rows = len(store.audio) if store.audio_dim else None
    if faults := index_faults(sets, batch.num_rows, len(store.visual), audio_rows, store.part):
        raise DataError(f"{path} is damaged, convert again:", faults)
    return sets


def _select(arrays: dict[str, pa.Array], rows: np.ndarray, split: str, crops: int) -> VideoSet:
    # Through lists: Arrow's `take` and `to_numpy` import pandas, half a second and 30 MB in every process.
    def texts(name: str) -> tuple[str, ...]:
        values = arrays[name].to_pylist()
        return tuple(values[row] or "" for row in rows)

    def numbers(name: str) -> np.ndarray:
        values = arrays[name].to_pylist()
        picked = np.array([values[row] for row in rows], np.int64)
        picked.flags.writeable = False
        return picked

    return VideoSet(
        names=texts(columns.NAME),
        sources=texts(columns.SOURCE),
        categories=texts(columns.CATEGORY),
        lengths=numbers(columns.LENGTH),
        visual_offsets=numbers(columns.VISUAL_OFFSET),
        audio_offsets=numbers(columns.AUDIO_OFFSET),
        audio_lengths=numbers(columns.AUDIO_LENGTH),
        labels=numbers(columns.LABEL) if split == "train" else None,
        crops=crops,
    )
