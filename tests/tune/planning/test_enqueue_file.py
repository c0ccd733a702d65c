"""Known points from a file: TOML or a table of trials, and everything that can be wrong in one, told at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from macil.config import TrialConfig
from macil.errors import UsageError
from tests.support.made_runs import search_results, spread
from tune.algorithms.space import Dimension
from tune.planning.enqueue_file import read_points
from tune.planning.options import Options
from tune.planning.plan import Plan, read_plan, write_plan
from tune.planning.resolve import resolve_plan
from tune.planning.resources import Machine
from tune.planning.space import published_point, search_space
from tune.results.tables import TRIALS_SCHEMA, build_table, write_table

BASE = TrialConfig()
SPACE = search_space(BASE)


def plan(path: Path, **options: Any) -> Plan:
    return resolve_plan(Options(enqueue=str(path), **options), Machine(2, 0))


def write(folder: Path, text: str) -> Path:
    path = folder / "known.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_points_have_the_types_of_the_space_and_are_kept_in_the_plan(tmp_path: Path) -> None:
    path = write(
        tmp_path, "[[points]]\nramp = 1\nlambda_v2b = 0.5\nnum_heads = 4\n\n[[points]]\nhidden_dim = 64\n"
    )
    points: tuple[dict[str, Any], ...] = ({"lambda_v2b": 0.5, "ramp": 1.0}, {"hidden_dim": 64})
    found = plan(path)
    assert found.enqueued == points
    assert [list(point) for point in found.enqueued] == [list(point) for point in points], (
        "in the space's order"
    )
    assert isinstance(found.enqueued[0]["ramp"], float)
    assert "2 known points first; 5 random ones, then TPE" in found.suggestions
    write_plan(tmp_path, found)
    path.unlink()
    assert read_plan(tmp_path) == found


def test_every_fault_is_told_with_its_point_and_field(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "name = 1\n[[points]]\nramp = 9\nlambda_v2b = 'x'\nhidden_dim = 65\n"
        "[[points]]\nbatch_size = 7\nlearning = 1\n[[points]]\n",
    )
    with pytest.raises(UsageError) as fault:
        read_points(str(path), BASE, SPACE)
    lines = str(fault.value).splitlines()
    expected = [
        "name: unknown",
        "point 1: ramp: 9 is outside the space; expected 0.02",
        "point 1: lambda_v2b: 'x' is outside",
        "point 1: hidden_dim: 65 is outside",
        "point 2: batch_size: 7, but it is not searched and has the value 128",
        "point 2: learning: no hyperparameter; expected lambda_v2b",
        "point 3: {} holds no values",
    ]
    assert len(lines) == 1 + len(expected)
    for line, start in zip(lines[1:], expected, strict=True):
        assert line.strip().startswith(start)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected at least one"),
        ("points = 3", "expected at least one"),
        ("[[points", "is not valid TOML"),
    ],
)
def test_a_file_without_points_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read_points(str(write(tmp_path, text)), BASE, SPACE)
    with pytest.raises(UsageError, match="does not exist"):
        read_points(str(tmp_path / "absent.toml"), BASE, SPACE)


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e300", str(2**63), "9" * 400, "-" + "9" * 400])
def test_numbers_beyond_every_range_are_outside_the_space(value: str, tmp_path: Path) -> None:
    points = write(tmp_path, f"[[points]]\nramp = {value}\nhidden_dim = {value}\nbatch_size = {value}\n")
    with pytest.raises(UsageError) as fault:
        read_points(str(points), BASE, SPACE)
    assert str(fault.value).count("is outside the space") + str(fault.value).count("it is not searched") == 3


def test_what_is_not_searched_beside_another_value_is_told(tmp_path: Path) -> None:
    space = {
        "distill": Dimension(choices=(True, False)),
        "momentum": Dimension(low=0.8, high=1.0, when={"distill": (True,)}),
    }
    path = write(tmp_path, "[[points]]\ndistill = false\nmomentum = 0.9\n[[points]]\nmomentum = 0.9\n")
    with pytest.raises(
        UsageError, match="point 1: momentum: it is not searched where distill is False"
    ) as fault:
        read_points(str(path), BASE, space)
    assert "point 2" not in str(fault.value), "what its condition becomes is suggested"


@pytest.mark.parametrize("name", ["trials.csv", "trials.parquet"])
def test_the_trials_of_a_report_are_points(name: str, tmp_path: Path) -> None:
    results = search_results(spread(5))
    write_table(build_table(results.trial_rows, TRIALS_SCHEMA), tmp_path / name)
    points = read_points(str(tmp_path / name), BASE, SPACE)
    assert points == [{key: row.config[key] for key in SPACE} for row in results.trial_rows]
    with pytest.raises(UsageError, match="no column of what is searched"):
        read_points(str(tmp_path / name), BASE, {"nothing": SPACE["ramp"]})
    (tmp_path / name).write_bytes(b"\x00\x01")
    with pytest.raises(UsageError, match=r"no (table that can be read|column)"):
        read_points(str(tmp_path / name), BASE, SPACE)


def test_a_point_is_tried_once_and_more_than_trials_are_refused(tmp_path: Path) -> None:
    paper = "[[points]]\n" + "".join(f"{name} = {value}\n" for name, value in published_point(SPACE).items())
    path = write(tmp_path, paper + "[[points]]\nramp = 0.5\n[[points]]\nramp = 0.5\n" + paper)
    found = plan(path, trials=3)
    assert found.enqueued == ({"ramp": 0.5}, {"ramp": 0.5}), "each is completed by itself"
    assert any("2 points that the paper's setting or an earlier point is too" in note for note in found.notes)
    with pytest.raises(UsageError, match=r"2 points and the paper's .* the 2 trials; give --trials 3"):
        plan(path, trials=2)
    with pytest.raises(UsageError, match="--enqueue belongs to a search"):
        plan(path, sweep="table4")
