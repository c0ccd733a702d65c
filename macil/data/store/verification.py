"""Whether a store still holds what was converted, to the last byte."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np

from macil.data.store import columns
from macil.data.store.arrow_files import locate_buffers, read_blocks
from macil.data.store.feature_store import AUDIO, VISUAL, FeatureStore, hash_content, map_index
from macil.errors import DataError
from macil.io.progress import show_progress


def verify_store(path: str | os.PathLike[str], *, deep: bool = True, progress: bool = False) -> list[str]:
    """Compare a store with the hashes that its conversion left in it.

    Args:
        path: The store.
        deep: Read every feature, a block in memory at a time; else only the layout and the small files.
        progress: Show progress on stderr.

    Returns:
        What is damaged, one line each with the file's name; nothing for a whole store.

    Raises:
        DataError: It cannot be opened at all; names the file.
    """
    store = FeatureStore.open(path)
    problems = []
    if store.labels_hash:
        try:
            store.test_labels()
        except DataError as error:
            problems.append(error.message)
    return problems + (_verify_features(store, progress) if deep else [])


def _verify_features(store: FeatureStore, progress: bool) -> list[str]:
    videos = map_index(store.path).to_pylist()
    problems, digests = [], []
    with show_progress("reading the features", len(videos), "videos", enabled=progress) as advance:
        for video in videos:
            name = video[columns.NAME]
            try:
                digest, nonzero = _read(store, video)
            except OSError as error:
                problems.append(f"{error.filename} cannot be read at {name}: {error.strerror}")
                continue
            # A store of an earlier version has one hash of all videos, and none of each.
            if digest != video.get(columns.DIGEST, digest):
                problems.append(
                    f"{store.path / VISUAL} or {AUDIO}: the features of {name} are not what was converted"
                )
            elif not _marked(store, video, nonzero):
                problems.append(
                    f"{store.path / VISUAL}: the marks of the rows of {name} that are all zero are damaged"
                )
            digests.append(digest)
            advance(1)
    if not problems and _content_hash(store, videos, digests) != store.content_hash:
        problems.append(
            f"{store.path}: its files give another content hash than meta.json says; one of them is damaged"
        )
    return problems


def _read(store: FeatureStore, video: dict[str, Any]) -> tuple[str, np.ndarray]:
    """The hash of a video's features, and which visual rows (crops x snippets,) are not all zero.

    With plain reads: in a mapping, a page that the disk has lost would end the process.
    """
    digest, nonzero = hashlib.blake2b(digest_size=16), []
    dtype = np.dtype(store.dtype)
    for name, first, count, width in (
        (VISUAL, video[columns.VISUAL_OFFSET], video[columns.LENGTH] * store.crops, store.visual_dim),
        (AUDIO, video[columns.AUDIO_OFFSET], video[columns.AUDIO_LENGTH], store.audio_dim),
    ):
        if not count:
            continue
        path, size = store.path / name, width * dtype.itemsize
        start = locate_buffers(path).values + first * size
        with path.open("rb", buffering=0) as file:
            try:
                for block in read_blocks(file.fileno(), start, count * size, unit=size):
                    digest.update(block)
                    if name == VISUAL:
                        nonzero.append(np.frombuffer(block, dtype).reshape(-1, width).any(axis=1))
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from None
    return digest.hexdigest(), np.concatenate(nonzero)


def _marked(store: FeatureStore, video: dict[str, Any], nonzero: np.ndarray) -> bool:
    """Whether the marks are those of the rows; a tiny value of the input may have become zero in half precision."""
    marked = store.nonzero[video[columns.VISUAL_OFFSET] :][: len(nonzero)]
    return bool((marked == nonzero).all() if store.dtype == "float32" else (marked >= nonzero).all())


def _content_hash(store: FeatureStore, videos: list[dict[str, Any]], digests: list[str]) -> str:
    names = (columns.SPLIT, columns.NAME, columns.LABEL, columns.LENGTH, columns.AUDIO_LENGTH)
    rows = (tuple(video[name] for name in names) for video in videos)
    return hash_content(
        store.dtype, store.crops, (store.visual_dim, store.audio_dim), rows, digests, store.meta.reading
    )
