"""Score tables against rows written out one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

import macil.inference.score_tables
from macil.inference.score_tables import FRAMES, SNIPPETS, write_frames, write_snippets
from macil.inference.scored_videos import ScoredVideos

NAMES = ("v=a,b__#1_label_A", 'a "quoted" film', "日本", "d")
LENGTHS = np.array([3, 1, 5, 2])
SCORED = ScoredVideos(NAMES, LENGTHS, np.random.default_rng(0).random(11).astype(np.float32), 4)


Rows = list[tuple[object, ...]]


def plain_rows() -> tuple[Rows, Rows]:
    snippets: Rows = []
    frames: Rows = []
    index = 0
    for name, length in zip(NAMES, LENGTHS.tolist(), strict=True):
        for t in range(length):
            score = float(SCORED.scores[index])
            snippets.append((name, t, 4 * t, 4 * t + 4, score))
            frames += [(name, f, score) for f in range(4 * t, 4 * t + 4)]
            index += 1
    return snippets, frames


@pytest.mark.parametrize("rows_at_once", [1, 6, 24, 10**6])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_rows_are_those_written_one_by_one(
    kind: str, rows_at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(macil.inference.score_tables, "_ROWS_AT_ONCE", rows_at_once)
    assert write_snippets(SCORED, tmp_path / "s", kind) == 11  # type: ignore[arg-type]
    assert write_frames(SCORED, tmp_path / "f", kind) == 44  # type: ignore[arg-type]
    for name, schema, expected in zip("sf", (SNIPPETS, FRAMES), plain_rows(), strict=True):
        if kind == "parquet":
            table = pq.read_table(tmp_path / name)
            assert table.schema == schema
        else:
            table = pa_csv.read_csv(tmp_path / name).cast(schema)
        assert [tuple(row.values()) for row in table.to_pylist()] == expected
