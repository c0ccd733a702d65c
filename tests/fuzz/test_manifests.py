"""Manifests that anything may have happened to."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from macil.__main__ import app
from macil.data.store.feature_store import FeatureStore
from tests.support import fuzzing
from tests.support.faults import half_written
from tests.support.fuzzing import HOSTILE_TEXTS, HOSTILE_VALUES, Damage
from tests.support.layouts import write_layout
from tests.support.manifests import rows_of, write_csv

pytestmark = fuzzing.LONG


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MACIL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


_CELLS = (
    *(text for text in HOSTILE_TEXTS if text != "\ud800"),
    "train",
    "TEST",
    "violent",
    "0",
    "1e3",
    "..",
    "RGB",
    "RGB/../RGB",
    "a.npy;b.npy",
    ";" * 3000,
    "0 10 20",
    "0 " * 5000,
    "9" * 5000,
    "5 5",
    "0 1e400",
    "-1 4",
    "/dev/zero",
    "v=zz__#00-00-00_00-01-00_label_A",
    '"',
    "a,b",
)


def _cells(path: Path, rng: random.Random) -> None:
    rows = rows_of(path.parent)
    for _ in range(rng.choice([1, 1, 2, 5])):
        row = rng.choice(rows)
        row[rng.choice([*row, *row, "seconds", "fps", "x"])] = rng.choice(_CELLS)
    columns = {name: "" for row in rows for name in row}
    write_csv(path, [columns | row for row in rows])


def _columns(path: Path, rng: random.Random) -> None:
    rows = rows_of(path.parent)
    old, new = rng.choice(list(rows[0])), rng.choice(["", "Name", "visuals", *HOSTILE_TEXTS[3:7]])
    write_csv(path, [{(new if name == old else name): each for name, each in row.items()} for row in rows])


def _lines(path: Path, rng: random.Random) -> None:
    lines = path.read_bytes().splitlines()
    for _ in range(rng.choice([1, 3])):
        line = rng.choice([b"", b",", b'"', b"\xff\xfe", b"," * 9, b"x" * 9000, rng.choice(lines or [b""])])
        lines.insert(rng.randrange(len(lines) + 1), line)
    path.write_bytes(rng.choice([b"\n", b"\r\n", b"\r"]).join(lines))


def _file_away(path: Path, rng: random.Random) -> None:
    rng.choice(sorted(path.parent.rglob("*.npy")) or [path]).unlink()


def _link_outside(path: Path, rng: random.Random) -> None:
    folder = path.parent / rng.choice(["RGB", "vggish-features"])
    moved = folder.rename(path.parent.parent / f"moved{rng.randrange(10**6)}")
    folder.symlink_to(moved)


def _to_the_table(damage: Damage) -> Damage:
    """Not to what an earlier damage made of it: writing to a pipe would wait."""

    def careful(path: Path, rng: random.Random) -> None:
        if path.is_file() and not path.is_symlink():
            damage(path, rng)

    return careful


CSV: dict[str, Damage] = {
    **fuzzing.ANY_FILE,
    "cells": _to_the_table(_cells),
    "columns": _to_the_table(_columns),
    "lines": _to_the_table(_lines),
    "file away": _file_away,
    "link": _link_outside,
}


def _table(path: Path, rng: random.Random) -> None:
    """Columns of any type, of one value or of many."""
    rows = rows_of(path.parent)
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    name = rng.choice(list(columns))
    values = [rng.choice(HOSTILE_VALUES) for _ in range(2)]
    others: list[Any] = [
        [value] * len(rows) for value in values if not (isinstance(value, str) and value == "\ud800")
    ] + [[["RGB/a.npy"], None, [], [None], ["", "x"]], [b"\xff"] * 5, [{"a": [1]}] * 5]
    try:
        columns[name] = pa.array(rng.choice(others))
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        columns[name] = pa.nulls(len(rows))
    pa.parquet.write_table(pa.table(columns), path)


PARQUET: dict[str, Damage] = {
    **fuzzing.ANY_FILE,
    "table": _to_the_table(_table),
    "table again": _to_the_table(_table),
    "file away": _file_away,
}


def _converted_or_refused(path: Path, *options: str) -> None:
    out = path.parent.parent / "store"
    checked = fuzzing.call(app, "check", path, "--deep", *options)
    converted = fuzzing.call(app, "convert", path, out, *options)
    if converted.code == 0:
        assert checked.code == 0, checked.output
        assert FeatureStore.open(out).test_labels().names
        assert half_written(out.parent) == []
        assert fuzzing.call(app, "convert", path, out, *options).code == 0, "the same again"
    else:
        assert not out.exists()
        assert str(path) in converted.err
        assert half_written(out.parent) == []
        assert checked.code in (1, 2), converted.err


@fuzzing.examples(120)
@given(fuzzing.damages(CSV), st.sampled_from([(), ("--outside",), ("--silent", "zeros")]))
def test_a_damaged_csv_file_is_converted_whole_or_refused_by_name(
    damage: list[tuple[str, int]], options: tuple[str, ...]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = write_layout(Path(folder, "data"))
        path = write_csv(root / "videos.csv", rows_of(root))
        fuzzing.apply(CSV, damage, path)
        _converted_or_refused(path, *options)


@fuzzing.examples(90)
@given(fuzzing.damages(PARQUET))
def test_a_damaged_parquet_file_is_converted_whole_or_refused_by_name(damage: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = write_layout(Path(folder, "data"))
        path = root / "videos.parquet"
        rows = rows_of(root)
        pa.parquet.write_table(pa.table({name: [row[name] for row in rows] for name in rows[0]}), path)
        fuzzing.apply(PARQUET, damage, path)
        _converted_or_refused(path)
