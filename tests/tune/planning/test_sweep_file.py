"""Sweeps of one's own: TOML files, and everything that can be wrong in one, reported at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from macil.errors import UsageError
from tune.planning.options import Options
from tune.planning.paper_sweeps import SWEEPS, Row
from tune.planning.plan import read_plan, write_plan
from tune.planning.resolve import resolve_plan
from tune.planning.resources import Machine
from tune.planning.sweep_file import find_sweep

GOOD = """
name = "batches"
title = "batches of three sizes"
source = "our lab"
reference = "b128"

[[rows]]
name = "b64"
changes = { batch_size = 64 }

[[rows]]
name = "b128"
changes = { batch_size = 128, lambda_v2b = 1 }
published_ap = 83.4
source = "Table 4, row 10"

[[rows]]
name = "as-it-is"
changes = {}
"""


def write(folder: Path, text: str, name: str = "mine.toml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_a_file_is_a_sweep(tmp_path: Path) -> None:
    sweep = find_sweep(write(tmp_path, GOOD))
    assert (sweep.name, sweep.title, sweep.source, sweep.reference) == (
        "batches",
        "batches of three sizes",
        "our lab",
        "b128",
    )
    assert [(row.name, dict(row.changes), row.published_ap, row.source) for row in sweep.rows] == [
        ("b64", {"batch_size": 64}, None, None),
        ("b128", {"batch_size": 128, "lambda_v2b": 1}, 83.4, "Table 4, row 10"),
        ("as-it-is", {}, None, None),
    ]


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    sweep = find_sweep(write(tmp_path, '[[rows]]\nname = "a"\nchanges = { ramp = 0.2 }\n'))
    assert (sweep.name, sweep.title, sweep.source, sweep.reference) == (
        "mine",
        "sweep mine",
        "file mine.toml",
        "a",
    )


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_survives_its_record(name: str, tmp_path: Path) -> None:
    planned = resolve_plan(Options(sweep=name), Machine(2, 0))
    write_plan(tmp_path, planned)
    assert read_plan(tmp_path) == planned
    own, sweep = planned, SWEEPS[name]
    assert (own.sweep, own.title, own.source, own.reference) == (
        sweep.name, sweep.title, sweep.source, sweep.reference
    )  # fmt: skip
    assert tuple(Row(**row.model_dump(exclude={"trained_as"})) for row in own.rows) == sweep.rows


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("", ["rows: expected at least one [[rows]]"]),
        ("rows = 3", ["rows: 3; expected [[rows]]"]),
        ('rows = ["x"]', ["row 1: 'x' is no table"]),
        ('[[rows]]\nname = "a"', ["row 1 (a): changes is missing"]),
        ("[[rows]]\nchanges = {}", ["row 1: name is missing"]),
        ('[[rows]]\nname = "a/b"\nchanges = {}', ["row 1 (a/b): name: 'a/b'; expected letters"]),
        (
            '[[rows]]\nname = "a"\nchanges = { lambda = 1.0 }',
            ["row 1 (a)", "unknown hyperparameter 'lambda'"],
        ),
        ('[[rows]]\nname = "a"\nchanges = { ramp = "fast" }', ["ramp = 'fast' is not allowed"]),
        ('[[rows]]\nname = "a"\nchanges = { seed = 3 }', ["seed: every row is trained with the same seeds"]),
        ('[[rows]]\nname = "a"\nchanges = { epochs = 3 }', ["epochs: all rows are trained equally long"]),
        ('[[rows]]\nname = "a"\nchanges = {}\npublished_ap = 834', ["published_ap: 834; expected percent"]),
        (
            '[[rows]]\nname = "a"\nchanges = {}\npublished_ap = true',
            ["published_ap: True; expected a number"],
        ),
        ('[[rows]]\nname = "a"\nchanges = {}\nap = 1', ["row 1 (a): ap: unknown; expected name"]),
        (
            '[[rows]]\nname = "a"\nchanges = {}\n[[rows]]\nname = "A"\nchanges = {}',
            ["'A' is given more than once"],
        ),
        ('reference = "z"\n[[rows]]\nname = "a"\nchanges = {}', ["reference: 'z' is none of the rows: a"]),
        ('name = "table4"\n[[rows]]\nname = "a"\nchanges = {}', ["name: 'table4' is a sweep of the paper"]),
        ('titel = "x"\n[[rows]]\nname = "a"\nchanges = {}', ["titel: unknown; expected name, title"]),
        ("rows = [", ["is not valid TOML"]),
        # Several faults at once, each with its row.
        (
            'x = 1\n[[rows]]\nname = "a"\nchanges = { ramp = -1.0 }\n[[rows]]\nname = "b"\nchanges = 2',
            ["x: unknown", "row 1 (a): changes: ramp = -1.0", "row 2 (b): changes: 2; expected a table"],
        ),
    ],
)
def test_faults_are_told_with_file_row_and_field(text: str, messages: list[str], tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as error:
        find_sweep(path)
    for part in [path, *messages]:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("table5", "expected table3, table4, figure3, tau, hidden"), ("nowhere.toml", "does not exist")],
)
def test_what_is_no_sweep_is_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_sweep(name)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        find_sweep(str(tmp_path / "binary.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        find_sweep(str(tmp_path / "folder.toml"))


def test_a_run_keeps_its_sweep_when_the_file_goes(tmp_path: Path) -> None:
    """And a row may set what the demo has a default of its own for."""
    path = write(tmp_path, GOOD)
    first = resolve_plan(Options(sweep=path, seeds=2), Machine(2, 0))
    write_plan(tmp_path, first)
    Path(path).unlink()
    assert read_plan(tmp_path) == first
    assert first.trials == 6
    assert first.base.batch_size == 32, "as-it-is is the demo's own configuration"


def test_a_row_that_does_not_fit_the_command_line_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, '[[rows]]\nname = "wide"\nchanges = { hidden_dim = 100 }\n')
    with pytest.raises(UsageError, match="row wide: hidden_dim = 100 is not divisible by num_heads = 8"):
        resolve_plan(Options(sweep=path, hyperparameters={"num_heads": 8}), Machine(2, 0))
    resolve_plan(Options(sweep=path, hyperparameters={"num_heads": 2}), Machine(2, 0))
