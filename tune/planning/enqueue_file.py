"""Known configurations that a search tries first, from a file: TOML, or the trials table of a report.

[[points]]
lambda_v2b = 1.5
ramp = 0.1

[[points]]
hidden_dim = 64
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from macil.config import TrialConfig
from macil.errors import ConfigError, UsageError
from macil.io.reading import read_text, require_file
from macil.io.remote import local_path
from macil.io.text import brief, printable
from tune.algorithms.space import Dimension, Space
from tune.planning.space_file import describe
from tune.planning.toml_files import read_toml
from tune.storage.run_file import Scalar

_TABLES = (".csv", ".parquet")
# Larger than any hyperparameter, and small enough for every kind of number.
_BEYOND = 1e15


def read_points(name: str, base: TrialConfig, space: Space) -> list[dict[str, Scalar]]:
    """The values of what is searched, of each point of a file; what a point leaves out is suggested.

    Args:
        name: A TOML file; or a table, of which the searched columns of the search's trials are read.
        base: The run's configuration, which has the values of what is not searched.
        space: What is searched.

    Raises:
        UsageError: The file cannot be read; or points do not fit: all faults, each with its point and field.
    """
    path = local_path(name)
    faults: list[str] = []
    if path.suffix.lower() in _TABLES:
        content: object = _trials(path, space)
    else:
        table = read_toml(path, "--enqueue")
        content = table.get("points")
        faults += [f"{printable(key[:60])}: unknown; expected [[points]]" for key in table if key != "points"]
    points = []
    if not isinstance(content, list) or not content:
        faults.append("points: expected at least one [[points]] with values of what is searched")
    else:
        for number, point in enumerate(content, start=1):
            values, own = _point(point, base, space)
            points.append(values)
            faults += [f"point {number}: {fault}" for fault in own]
    if faults:
        raise UsageError(f"--enqueue {path}: " + "\n".join(["", *faults]).replace("\n", "\n  "))
    return points


def _point(point: object, base: TrialConfig, space: Space) -> tuple[dict[str, Scalar], list[str]]:
    """The searched values of a point, in the order of the space, and what is wrong with it."""
    if not isinstance(point, Mapping) or not point:
        return {}, [f"{brief(point)} holds no values of what is searched"]
    given: dict[str, Scalar] = {}
    faults = []
    for name, value in point.items():
        if name in space:
            fitting = _fitting(space[name], value)
            if fitting is None:
                expected = describe(space[name])
                faults.append(f"{name}: {brief(value)} is outside the space; expected {expected}")
            else:
                given[name] = fitting
        elif name not in TrialConfig.model_fields:
            faults.append(f"{printable(name[:60])}: no hyperparameter; expected {', '.join(space)}")
        elif getattr(base, name) != value:
            faults.append(
                f"{name}: {brief(value)}, but it is not searched and has the value {getattr(base, name)}; leave it out"
            )
    values = {name: given[name] for name in space if name in given}
    for name in values:
        for other, allowed in space[name].when.items():
            if other in values and values[other] not in allowed:
                faults.append(f"{name}: it is not searched where {other} is {values[other]}; leave it out")
    if not faults:
        try:
            base.replace(**values)
        except ConfigError as error:
            faults += str(error).splitlines()
    return values, faults


def _fitting(dimension: Dimension, value: Any) -> Scalar | None:
    """`value` as the dimension has it: 1 is 1.0 in a range of any numbers; None if it cannot be suggested."""
    if dimension.choices is not None:
        same = (
            choice
            for choice in dimension.choices
            if choice == value and _is_number(choice) == _is_number(value)
        )
        return next(same, None)
    if _is_number(value):
        if not abs(value) < _BEYOND:  # NaN, too
            return None
        if not dimension.whole:
            value = float(value)
        elif value == int(value):
            value = int(value)
    return value if dimension.holds(value) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _trials(path: Path, space: Space) -> list[dict[str, Any]]:
    """The searched values in the trials table of a report, without those that nothing uses beside the others."""
    try:
        if path.suffix.lower() == ".csv":
            table = pa.csv.read_csv(pa.py_buffer(read_text(path).encode()))
        else:
            table = pa.parquet.read_table(require_file(path))
    except FileNotFoundError:
        raise UsageError(f"--enqueue {path} does not exist") from None
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise UsageError(f"--enqueue {path} is no table that can be read: {error}") from None
    columns = [name for name in space if name in table.column_names]
    if not columns:
        raise UsageError(
            f"--enqueue {path} has no column of what is searched; expected some of {', '.join(space)}"
        )
    rows = table.select([*columns, *(["kind"] if "kind" in table.column_names else [])]).to_pylist()
    points = []
    for row in rows:
        if row.pop("kind", "search") == "search":
            values = {name: value for name, value in row.items() if value is not None}
            points.append(_searched_together(space, values))
    return [point for point in points if point]


def _searched_together(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in values.items()
        if all(values.get(other, allowed[0]) in allowed for other, allowed in space[name].when.items())
    }
