"""The schema of the two tables of a run, and the files that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from macil.files import atomic_path
from macil.text import cell_text
from tune.rows import Column, epoch_columns, trial_columns

FORMAT_VERSION = 1

# What an epoch reports, apart from `epoch` and `diverged`.
METRICS: dict[str, pa.DataType] = {
    column.name: column.arrow
    for column in epoch_columns()
    if column.name not in ("trial_id", "kind", "epoch", "diverged")
}


def _schema(table: str, columns: Iterable[Column]) -> pa.Schema:
    # Two separate keys, so that the number can be read without parsing.
    return pa.schema(
        [(column.name, column.arrow) for column in columns],
        metadata={"format_version": str(FORMAT_VERSION), "table": f"macil-tune {table}"},
    )


TRIALS_SCHEMA: pa.Schema = _schema("trials", trial_columns())
EPOCHS_SCHEMA: pa.Schema = _schema("epochs", epoch_columns())


def build_table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema, problems: list[str]) -> pa.Table:
    """Rows as a table of `schema`; a value of another type becomes null and is listed in `problems`."""
    rows = list(rows)
    columns = [_column(field, [row.get(field.name) for row in rows], problems) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def write_table(table: pa.Table, path: Path) -> None:
    """Write as Parquet or CSV, by the ending of `path`, in one step; null is an empty field in CSV."""
    with atomic_path(path) as temporary:
        if path.suffix == ".csv":
            pa.csv.write_csv(_for_spreadsheets(table), str(temporary))
        else:
            pa.parquet.write_table(table, str(temporary), compression="zstd")


def _for_spreadsheets(table: pa.Table) -> pa.Table:
    """Texts from data, such as an error, that begin as a formula would are marked as text."""
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            texts = [text and cell_text(text) for text in table.column(place).to_pylist()]
            table = table.set_column(place, field, pa.array(texts, field.type))
    return table


def _column(field: pa.Field, values: list[Any], problems: list[str]) -> pa.Array:
    try:
        return pa.array(values, type=field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        kept = [_fitting(value, field.type) for value in values]
        wrong = [
            value for value, fits in zip(values, kept, strict=True) if value is not None and fits is None
        ]
        problems.append(f"{field.name}: {wrong[0]!r} is not a value of type {field.type}; treated as absent")
        return pa.array(kept, type=field.type)


def _fitting(value: Any, kind: pa.DataType) -> Any:
    try:
        return pa.scalar(value, type=kind).as_py()
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return None
