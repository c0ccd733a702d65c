"""The tables beside a report: documented column by column, and read alike by pandas, polars and DuckDB."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from macil.config import TrialConfig, hyperparameters
from macil.errors import ConfigError
from tests.support.made_runs import made_results, trial_rows
from tests.support.repository import ROOT
from tune.results.rows import Column, TrialRow, epoch_columns, trial_columns
from tune.results.tables import EPOCHS_SCHEMA, TRIALS_SCHEMA, write_table

PAGE = ROOT / "docs" / "report.md"
TYPES = {str: "string", float: "float64", int: "int64", bool: "bool"}
ROWS: list[dict[str, Any]] = [
    {"trial_dir": "trials/00000", "ap": 0.8340123456789012, "error": None, "failures": 0, "demo": True},
    {"trial_dir": "trials/00001", "ap": None, "error": 'Error: "a", b\nλ', "failures": 2, "demo": False},
]


def documented(heading: str) -> list[tuple[str, ...]]:
    section = PAGE.read_text(encoding="utf-8").split(f"### {heading}\n")[1].split("\n### ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]


@pytest.mark.parametrize(
    ("heading", "columns", "schema"),
    [
        ("Columns of the trials", trial_columns(), TRIALS_SCHEMA),
        ("Columns of the epochs", epoch_columns(), EPOCHS_SCHEMA),
    ],
)
def test_the_page_says_of_every_column_what_the_row_says(
    heading: str, columns: Sequence[Column], schema: pa.Schema
) -> None:
    rows = documented(heading)
    assert rows == [
        (f"`{each.name}`", TYPES[each.type], each.unit, each.meaning, each.null) for each in columns
    ]
    assert [row[0].strip("`") for row in rows] == schema.names
    assert all(all(row) for row in rows)
    assert [str(each.arrow) for each in columns] == [str(each.type) for each in schema]


def test_a_hyperparameter_is_a_column_as_the_configuration_describes_it() -> None:
    columns = {each.name: each for each in trial_columns()}
    described = [(p.name, p.type, p.help, p.symbol) for p in hyperparameters()]
    assert described
    for name, kind, text, symbol in described:
        assert columns[name].type is kind
        assert columns[name].meaning == (f"{text} ({symbol})" if symbol else text)


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("ap", 1, 1.0),
        ("ap", float("nan"), None),
        ("ap", True, None),
        ("ap", 2**53 + 1, None),
        ("epochs_run", 1.0, None),
        ("epochs_run", 2**63, None),
        ("demo", 1, None),
        ("device", 3, None),
        ("device", "cpu", "cpu"),
    ],
)
def test_a_value_of_another_type_does_not_fit_a_column(column: str, value: Any, expected: Any) -> None:
    (found,) = [each for each in trial_columns() if each.name == column]
    fitted = found.fitting(value)
    assert (fitted, type(fitted)) == (expected, type(expected))


def test_a_row_has_a_value_for_each_column_and_knows_its_configuration_whole_or_not_at_all() -> None:
    config = TrialConfig(seed=3).to_dict()
    row = TrialRow(
        trial_id="a", kind="search", status="finished", epoch_rule="last", trial_dir="trials/7", config=config
    )
    values = dict(zip([each.name for each in trial_columns()], row.values(), strict=True))
    assert {name: values[name] for name in config} == config
    assert trial_rows([values]) == [row]
    assert (row.name, row.seed, row.epochs) == ("7", 3, 50)
    assert row.configuration() == TrialConfig(seed=3)
    with pytest.raises(ConfigError):
        dataclasses.replace(row, config={"seed": 3}).configuration()


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both tables, written."""
    folder = tmp_path_factory.mktemp("tables")
    line = {"trial_id": "trials/00000", "kind": "search", "epoch": 1, "loss_mil": 0.5, "diverged": False}
    results = made_results(ROWS, [line])
    write_table(results.trials, folder / "trials.parquet")
    write_table(results.trials, folder / "trials.csv")
    write_table(results.epochs, folder / "epochs.parquet")
    return folder


def read_all(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(query.replace("FOLDER", str(folder))).fetchall()


def test_pandas_polars_and_duckdb_read_the_same_values(tables: Path) -> None:
    columns = ["trial_dir", "ap", "error", "failures", "demo"]
    expected = [tuple(row[name] for name in columns) for row in ROWS]
    frame = pl.read_parquet(tables / "trials.parquet")
    assert frame.select(columns).rows() == expected
    assert read_all(tables, f"select {', '.join(columns)} from 'FOLDER/trials.parquet'") == expected
    table = pd.read_parquet(tables / "trials.parquet")
    assert table.loc[0, "ap"] == ROWS[0]["ap"]
    assert table["ap"].isna().tolist() == [False, True]
    assert table["error"][1] == ROWS[1]["error"]
    assert list(table.columns) == frame.columns == TRIALS_SCHEMA.names


def test_the_csv_gives_every_digit_and_null_as_an_empty_field(tables: Path) -> None:
    (first, second) = read_all(tables, "select ap, error from read_csv('FOLDER/trials.csv', header=true)")
    assert first == (ROWS[0]["ap"], None)
    assert second[0] is None
    assert pd.read_csv(tables / "trials.csv").loc[0, "ap"] == pytest.approx(ROWS[0]["ap"], rel=1e-15)
    assert pl.read_csv(tables / "trials.csv")["ap"].to_list() == [ROWS[0]["ap"], None]


def test_epochs_join_trials_by_id_and_kind(tables: Path) -> None:
    query = (
        "select t.trial_dir, e.loss_mil from 'FOLDER/epochs.parquet' e "
        "join 'FOLDER/trials.parquet' t using (trial_id, kind)"
    )
    assert read_all(tables, query) == [("trials/00000", 0.5)]


def test_the_example_of_the_page_runs(tables: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "runs/NAME").mkdir(parents=True)
    (tmp_path / "runs/NAME/report").symlink_to(tables)
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    scope: dict[str, Any] = {}
    exec(compile(example, "report.md", "exec"), scope)
    assert len(scope["finished"]) == 2
