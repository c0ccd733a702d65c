"""The schema of the two tables of a run, and the files that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from macil.config import hyperparameters
from macil.files import atomic_path
from macil.text import cell_text

FORMAT_VERSION = 1

HYPERPARAMETERS: tuple[str, ...] = tuple(parameter.name for parameter in hyperparameters())

# What Trainer.train_epoch reports, apart from `epoch` and `diverged`.
METRICS: dict[str, pa.DataType] = {
    "selection_score": pa.float64(),
    "ap": pa.float64(),
    "ap_trapezoid": pa.float64(),
    "visual_ap": pa.float64(),
    "heldout_ap": pa.float64(),
    "heldout_loss": pa.float64(),
    "heldout_score": pa.float64(),
    "video_accuracy": pa.float64(),
    "loss_mil": pa.float64(),
    "loss_v2b": pa.float64(),
    "loss_v2n": pa.float64(),
    "loss_visual": pa.float64(),
    "learning_rate": pa.float64(),
    "parameters": pa.int64(),
    "parameters_published": pa.int64(),
    "seconds": pa.float64(),
    "chosen_epoch": pa.int64(),
}


def _arrow_type(kind: type) -> pa.DataType:
    return {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}[kind]


def _schema(table: str, fields: Mapping[str, pa.DataType]) -> pa.Schema:
    # Two separate keys, so that the number can be read without parsing.
    return pa.schema(
        list(fields.items()), metadata={"format_version": str(FORMAT_VERSION), "table": f"macil-tune {table}"}
    )


# One row per (configuration, seed); `kind` tells the search's trials from its confirmation and the winner's refit.
TRIALS_SCHEMA: pa.Schema = _schema(
    "trials",
    {
        "trial_id": pa.string(),
        "kind": pa.string(),
        "row": pa.string(),
        "rows": pa.string(),
        "winner": pa.bool_(),
        **{parameter.name: _arrow_type(parameter.type) for parameter in hyperparameters()},
        "protocol": pa.string(),
        "status": pa.string(),
        "epochs_run": pa.int64(),
        "epoch_rule": pa.string(),
        "chosen_epoch": pa.int64(),
        "ap": pa.float64(),
        "ap_trapezoid": pa.float64(),
        "ap_last": pa.float64(),
        "ap_trapezoid_last": pa.float64(),
        "best_epoch": pa.int64(),
        "ap_best": pa.float64(),
        "ap_trapezoid_best": pa.float64(),
        "visual_ap": pa.float64(),
        "heldout_ap": pa.float64(),
        "selection_score": pa.float64(),
        "video_accuracy": pa.float64(),
        "parameters": pa.int64(),
        "parameters_published": pa.int64(),
        "seconds": pa.float64(),
        "error": pa.string(),
        "failures": pa.int64(),
        "store_hash": pa.string(),
        "demo": pa.bool_(),
        "threads": pa.int64(),
        "device": pa.string(),
        "trial_dir": pa.string(),
    },
)

EPOCHS_SCHEMA: pa.Schema = _schema(
    "epochs",
    {"trial_id": pa.string(), "kind": pa.string(), "epoch": pa.int64(), **METRICS, "diverged": pa.bool_()},
)


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
