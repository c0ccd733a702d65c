"""The tables beside a report: documented column by column, and read alike by pandas, polars and DuckDB."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from macil.config import hyperparameters
from tests.runfolders import made_results
from tune.runtables import EPOCHS_SCHEMA, TRIALS_SCHEMA, write_table

PAGE = Path(__file__).parent.parent / "docs" / "report.md"
TYPES = {"string": pa.string(), "float64": pa.float64(), "int64": pa.int64(), "bool": pa.bool_()}
ROWS: list[dict[str, Any]] = [
    {"trial_dir": "trials/00000", "ap": 0.8340123456789012, "error": None, "failures": 0, "demo": True},
    {"trial_dir": "trials/00001", "ap": None, "error": 'Error: "a", b\nλ', "failures": 2, "demo": False},
]


def documented(heading: str) -> list[tuple[str, ...]]:
    section = PAGE.read_text(encoding="utf-8").split(f"### {heading}\n")[1].split("\n### ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]


@pytest.mark.parametrize(
    ("heading", "schema"),
    [("Columns of the trials", TRIALS_SCHEMA), ("Columns of the epochs", EPOCHS_SCHEMA)],
)
def test_the_page_documents_every_column_in_order_with_its_type(heading: str, schema: pa.Schema) -> None:
    rows = documented(heading)
    assert [(row[0].strip("`"), TYPES[row[1]]) for row in rows] == [(each.name, each.type) for each in schema]
    for row in rows:
        assert len(row) == 5, row
        assert all(row), row


def test_the_page_says_of_a_hyperparameter_what_the_configuration_says() -> None:
    rows = {row[0].strip("`"): row for row in documented("Columns of the trials")}
    for parameter in hyperparameters():
        unit, meaning = rows[parameter.name][2:4]
        assert unit == (parameter.unit or "–")
        assert meaning.startswith(parameter.help)
        assert not parameter.symbol or meaning.endswith(f"({parameter.symbol})")


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
