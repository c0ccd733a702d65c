"""Scores as tables on disk, for snippets and for frames, written in blocks of videos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from macil.inference.scored_videos import ScoredVideos
from macil.io.text import cell_text

TableFormat = Literal["parquet", "csv"]

# Rows of a block: enough for a well-sized Parquet row group, few enough for memory.
_ROWS_AT_ONCE = 1_000_000

SNIPPETS = pa.schema(
    [
        ("video", pa.string()),
        ("snippet", pa.int64()),
        ("first_frame", pa.int64()),
        ("end_frame", pa.int64()),
        ("score", pa.float32()),
    ]
)
FRAMES = pa.schema([("video", pa.string()), ("frame", pa.int64()), ("score", pa.float32())])


def write_snippets(scored: ScoredVideos, path: Path, kind: TableFormat) -> int:
    """Write one row a snippet, frames `first_frame` to `end_frame` (half open); the number of rows."""
    return _write(scored, 1, path, kind)


def write_frames(scored: ScoredVideos, path: Path, kind: TableFormat) -> int:
    """Write one row a frame, with the score of its snippet; the number of rows."""
    return _write(scored, scored.snippet_frames, path, kind)


def _write(scored: ScoredVideos, repeats: int, path: Path, kind: TableFormat) -> int:
    schema = SNIPPETS if repeats == 1 else FRAMES
    writer = pa.csv.CSVWriter if kind == "csv" else pa.parquet.ParquetWriter
    if kind == "csv":
        scored = replace(scored, names=tuple(map(cell_text, scored.names)))
    rows = 0
    with writer(path, schema) as file:
        for block in _blocks(scored, repeats):
            file.write(block)
            rows += block.num_rows
    return rows


def _blocks(scored: ScoredVideos, repeats: int) -> Iterator[pa.Table]:
    ends = np.cumsum(scored.lengths)
    first = 0
    while first < len(scored.names):
        begin = ends[first] - scored.lengths[first]
        last = max(first + 1, int(np.searchsorted(ends, begin + _ROWS_AT_ONCE // repeats, "right")))
        lengths = scored.lengths[first:last]
        yield _table(
            scored, repeats, scored.names[first:last], lengths, scored.scores[begin : ends[last - 1]]
        )
        first = last


def _table(
    scored: ScoredVideos, repeats: int, names: tuple[str, ...], lengths: np.ndarray, scores: np.ndarray
) -> pa.Table:
    counts = lengths * repeats
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    number = np.arange(counts.sum()) - starts  # of the snippet or frame in its video
    # A dictionary spares a Python string for every row.
    video = pa.DictionaryArray.from_arrays(
        pa.array(np.repeat(np.arange(len(names), dtype=np.int32), counts)), pa.array(names, pa.string())
    ).cast(pa.string())
    if repeats > 1:
        return pa.table([video, pa.array(number), pa.array(np.repeat(scores, repeats))], schema=FRAMES)
    frames = number * scored.snippet_frames
    return pa.table(
        [video, *map(pa.array, (number, frames, frames + scored.snippet_frames, scores))], schema=SNIPPETS
    )
