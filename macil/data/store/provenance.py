"""The folder that a store was made from, and whether that folder is still the same.

A store keeps a small file for every layout folder that it is known to hold, with what the file system reported of
its files: size, time of change, inode, and time of change of the inode. While it reports the same, nothing is read.
When it reports anything else, the content of the files in question is compared with the store's hashes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from macil.data.manifest import is_manifest, read_manifest
from macil.data.origin import DEMO_FILE
from macil.data.reading import AS_USUAL, Reading
from macil.data.store import columns
from macil.data.store.feature_store import FeatureStore, hash_content, map_index
from macil.data.store.meta import FORMAT_VERSION as STORE_VERSION
from macil.data.store.meta import META, Dtype, StoreDescription, StoreMeta
from macil.data.store.writer import Plan, VideoError, hash_video
from macil.data.xd.audit import AuditReport
from macil.data.xd.folders import Part
from macil.data.xd.layout import VideoFiles, layout_files
from macil.errors import DataError
from macil.io.formats import FileFormat
from macil.io.progress import show_progress
from macil.io.text import printable

NOTES = "provenance-*.json"
"""The files of a store that say what it was made from, one a folder."""


@dataclass(frozen=True)
class FolderState:
    """Stamps of the files of a layout folder, from the file system, by name relative to the folder; "" for no file."""

    root: Path
    stamps: Mapping[str, str]
    source: Path
    """What was given: the folder, or a manifest in it"""

    @cached_property
    def digest(self) -> str:
        """Changes with the name or the stamp of any file, and with the format of a store, which is made anew then."""
        digest = hashlib.blake2b(f"{STORE_VERSION}\n".encode(), digest_size=8)
        for name in sorted(self.stamps):
            digest.update(os.fsencode(f"{name}\0{self.stamps[name]}\n"))
        return digest.hexdigest()

    @property
    def where(self) -> str:
        """Identifies the folder's path."""
        return hashlib.blake2b(os.fsencode(self.source.resolve()), digest_size=4).hexdigest()

    def sign(self, files: VideoFiles) -> str:
        """Changes with the name or the stamp of any file of a video."""
        digest = hashlib.blake2b(digest_size=8)
        for path in (*files.visual, *filter(None, [files.audio])):
            name = os.path.relpath(path, self.root)
            digest.update(os.fsencode(f"{name}\0{self.stamps.get(name, '')}\n"))
        return digest.hexdigest()


class Options(NamedTuple):
    """Options of a conversion beside the source folder; the defaults are those of the cache."""

    dtype: Dtype = "float32"
    reading: Reading = AS_USUAL
    part: Part | None = None
    """The only split to read; None: both"""

    @property
    def noted(self) -> dict[str, str | int | bool | None]:
        """As a `Provenance` has them."""
        return {"dtype": self.dtype, **self.reading.model_dump(), "part": self.part}


class SourceFolder(NamedTuple):
    """A faultless layout folder, and what is known of the store that it gives before any features are read."""

    state: FolderState
    """Before anything in it was read"""
    options: Options
    report: AuditReport
    plan: Plan
    description: StoreDescription
    """The part of meta.json known before features are read"""
    index_columns: Mapping[str, list[Any]]
    """Columns of index.arrow by name, without the hashes of the features"""


class Provenance(FileFormat):
    """A store's record of one folder that it was made from."""

    WHAT: ClassVar[str] = "a note on what a store was made from"
    MARK: ClassVar[str | None] = "kind"

    kind: Literal["macil provenance"] = "macil provenance"
    format_version: int = 1
    path: str
    """Path of the folder"""
    content_hash: str
    """Content hash of the store, which differs for another store under the same path"""
    labels_hash: str | None
    plan: str
    """Key of the plan of the store"""
    options: dict[str, str | int | bool | None]
    """The options of the conversion"""
    state: str
    """Digest of the folder's state"""
    videos: dict[str, str]
    """Split and name to the signature of the files"""


def look_at(source: Path) -> FolderState:
    """Ask the file system about every file that can change what a layout folder means; none is opened.

    Of a manifest these are the manifest, which is read, and the files that it names.

    Raises:
        DataError: The folder, or the manifest, cannot be read.
    """
    if is_manifest(source):
        layout = read_manifest(source, audio_may_lack=True, outside=True)
        files = [path for video in layout.videos for path in (*video.visual, *filter(None, [video.audio]))]
        try:
            stamps = {os.path.relpath(path, source.parent): _stamp(path) for path in (source, *files)}
        except OSError as error:
            raise DataError(f"{source}: {error.filename} cannot be read: {error.strerror or error}") from None
        return FolderState(source.parent, stamps, source)
    root = source
    try:
        with contextlib.closing(layout_files(root)) as entries:
            stamps = {os.path.relpath(entry.path, root): _stamp(entry) for entry in entries}
        stamps[DEMO_FILE] = _stamp(root / DEMO_FILE)
    except OSError as error:
        raise DataError(f"{error.filename or root} cannot be read: {error.strerror or error}") from None
    return FolderState(root, stamps, source)


def note_path(store: Path, state: FolderState) -> Path:
    """Where a store keeps what is known of a folder."""
    return store / f"provenance-{state.where}.json"


def remember(store: Path, source: SourceFolder, meta: StoreMeta) -> None:
    """Note in a store, described by `meta`, that it holds what lies in a folder in this state.

    Raises:
        WriteError: The store cannot be written to.
    """
    noted = Provenance(
        path=printable(str(source.state.source)),
        content_hash=meta.content_hash,
        labels_hash=meta.labels_hash,
        plan=source.plan.key,
        options=source.options.noted,
        state=source.state.digest,
        videos=dict(zip(_keys(source.plan), (v.signature for v in source.plan.videos), strict=True)),
    )
    noted.write(note_path(store, source.state))


def forget(store: Path) -> None:
    """Remove what a store, which is about to hold something else, says of any folder."""
    for path in store.glob(NOTES):
        path.unlink()


def is_known(store: Path, state: FolderState, options: Options, plan: Plan | None = None) -> bool:
    """Whether a store, damaged or not, was made from a folder that has not changed since, by its files' stamps.

    Args:
        store: Its folder.
        state: Of the layout folder.
        options: What is asked of the store.
        plan: What that came to, where it is known.
    """
    noted = _recall(store, state)
    return (
        noted is not None
        and noted.state == state.digest
        and _given(noted.options) == _given(options.noted)
        and (plan is None or noted.plan == plan.key)
    )


class Comparison:
    """Compares a folder with stores, and reads no video twice.

    Args:
        source: The folder.
        progress: Show progress on stderr.
    """

    def __init__(self, source: SourceFolder, *, progress: bool = False) -> None:
        self._source = source
        self._progress = progress
        self._read: dict[int, tuple[str, np.ndarray] | None] = {}

    def suspects(self, store: FeatureStore) -> list[int] | None:
        """Videos that would have to be read, as indices of the plan; None where the store is of other data anyway."""
        plan = self._source.plan
        if store.meta.description != self._source.description:
            return None
        index = map_index(store.path).to_pydict()
        if any(index[name] != values for name, values in self._source.index_columns.items()):
            return None
        noted = _recall(store.path, self._source.state)
        unchanged = {} if noted is None else noted.videos
        # A store of an earlier version has one hash of all videos, and none of each.
        return [
            i
            for i, (key, video) in enumerate(zip(_keys(plan), plan.videos, strict=True))
            if unchanged.get(key) != video.signature or columns.DIGEST not in index
        ]

    def difference(self, store: FeatureStore, suspects: Iterable[int]) -> str | None:
        """The difference between the folder and the store, in words; None when they are equal.

        Args:
            store: One that has suspects.
            suspects: They; the others are taken as unchanged.
        """
        plan, suspects = self._source.plan, list(suspects)
        index = map_index(store.path).to_pydict()
        digests: list[str] = list(index.get(columns.DIGEST, [""] * len(plan.videos)))
        with show_progress("comparing", len(suspects), "videos", enabled=self._progress) as advance:
            for i in suspects:
                video, hashed = plan.videos[i], self._hash(i)
                marks = store.nonzero[video.visual_offset :][: video.length * plan.crops]
                if (
                    hashed is None
                    or (columns.DIGEST in index and hashed[0] != digests[i])
                    or not np.array_equal(hashed[1], marks)
                ):
                    return f"the features of {video.files.name}"
                digests[i] = hashed[0]
                advance(1)
        reading = self._source.description.reading
        found = hash_content(plan.dtype, plan.crops, plan.widths, plan.hashed, digests, reading)
        if found != store.content_hash:
            return "the features"
        return None

    def _hash(self, index: int) -> tuple[str, np.ndarray] | None:
        """A video's hash, and its rows that are not all zero; None for one that cannot be read."""
        if index not in self._read:
            try:
                self._read[index] = hash_video(self._source.plan, index)
            except VideoError:
                self._read[index] = None
        return self._read[index]


def _recall(store: Path, state: FolderState) -> Provenance | None:
    """A store's record of a folder; None without a usable one."""
    path = note_path(store, state)
    try:
        if not path.is_file():
            return None
        noted, meta = Provenance.read(path), StoreMeta.read(store / META)
    except DataError:
        return None
    same = (noted.content_hash, noted.labels_hash) == (meta.content_hash, meta.labels_hash)
    return noted if same else None


def _given(options: Mapping[str, str | int | bool | None]) -> dict[str, str | int | bool]:
    """The options that were given: an earlier version knew fewer."""
    return {name: each for name, each in options.items() if each is not None}


def _keys(plan: Plan) -> list[str]:
    return [f"{video.files.split}/{video.files.name}" for video in plan.videos]


def _stamp(file: os.DirEntry[str] | Path) -> str:
    try:
        stat = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        # Also a link to nowhere: the audit will say so.
        return ""
    return f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ino}:{stat.st_ctime_ns}"
