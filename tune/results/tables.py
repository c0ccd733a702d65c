"""The schema of the two tables of a run, and the files that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from macil.io.files import atomic_path
from macil.io.text import cell_text
from tune.results.rows import Column, EpochRow, TrialRow, epoch_columns, trial_columns

FORMAT_VERSION = 1


def _schema(table: str, columns: Iterable[Column]) -> pa.Schema:
    # Two separate keys, so that the number can be read without parsing.
    return pa.schema(
        [(column.name, column.arrow) for column in columns],
        metadata={"format_version": str(FORMAT_VERSION), "table": f"macil-tune {table}"},
    )


TRIALS_SCHEMA: pa.Schema = _schema("trials", trial_columns())
EPOCHS_SCHEMA: pa.Schema = _schema("epochs", epoch_columns())


def build_table(rows: Sequence[TrialRow] | Sequence[EpochRow], schema: pa.Schema) -> pa.Table:
    """Rows as a table of `schema`."""
    columns = zip(*(row.values() for row in rows), strict=True) if rows else [()] * len(schema)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def write_table(table: pa.Table, path: Path) -> None:
    """Write as Parquet or CSV, by the ending of `path`, in one step; null is an empty field in CSV."""
    with atomic_path(path) as temporary:
        if path.suffix == ".csv":
            pa.csv.write_csv(_for_spreadsheets(table), str(temporary))
        else:
            pa.parquet.write_table(table, str(temporary), compression="zstd")


def _for_spreadsheets(table: pa.Table) -> pa.Table:
    """Texts from data, such as an error, that begin as a formula would are marked as text."""
    for index, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            texts = [text and cell_text(text) for text in table.column(index).to_pylist()]
            table = table.set_column(index, field, pa.array(texts, field.type))
    return table
