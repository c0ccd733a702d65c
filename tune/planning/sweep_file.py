"""A sweep of one's own, from a TOML file.

name = "batch"                    # optional, default the file's name
title = "batches of three sizes"  # optional
source = "our lab, spring"        # optional
reference = "128"                 # optional: the row that the others are compared with, default the first

[[rows]]
name = "64"
changes = { batch_size = 64 }

[[rows]]
name = "128"
changes = { batch_size = 128 }
published_ap = 83.40              # optional, in percent: shown beside the measured AP
source = "Table 4, row 10"        # optional
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from macil.errors import UsageError
from macil.io.remote import local_path
from macil.io.text import brief, printable
from tune.planning.paper_sweeps import SWEEPS, Row, Sweep
from tune.planning.toml_files import read_toml

_NAME = "expected letters, digits and . _ + = -, at most 60"
# Of a fault by pydantic's type: what was expected.
_EXPECTED = {
    "string_type": "expected text in quotes",
    "string_pattern_mismatch": _NAME,
    "tuple_type": "expected [[rows]]",
    "dict_type": "expected a table",
    "float_type": "expected a number",
    "greater_than_equal": "expected percent, 0 to 100",
    "less_than_equal": "expected percent, 0 to 100",
}


def find_sweep(name: str) -> Sweep:
    """The sweep of the paper called `name`, or that of the TOML file `name`.

    Raises:
        UsageError: There is none; or the file has faults: all of them, each with its row and field.
    """
    if name in SWEEPS:
        return SWEEPS[name]
    path = local_path(name)
    if path.suffix.lower() != ".toml":
        raise UsageError(
            f"--sweep {name} is not known; expected {', '.join(SWEEPS)}, or a .toml file of your own"
        )
    return _parse(read_toml(path, "--sweep"), path)


def _parse(content: Mapping[str, Any], path: Path) -> Sweep:
    """The sweep that a file holds.

    Raises:
        UsageError: All faults.
    """
    rows = content.get("rows")
    first = rows[0] if isinstance(rows, list) and rows else None
    name = content.get("name", path.stem)
    defaults = {
        "name": name,
        "title": f"sweep {name}",
        "source": f"file {path.name}",
        "reference": first.get("name", "") if isinstance(first, dict) else "",
    }
    faults: list[str] = []
    sweep = None
    try:
        sweep = Sweep.model_validate(defaults | dict(content))
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            faults += _fault_messages(fault["loc"], fault["type"], fault["input"], fault["msg"], content)
    if isinstance(name, str) and name in SWEEPS:
        faults.append(f"name: {name!r} is a sweep of the paper; choose another")
    if faults or sweep is None:
        raise UsageError(f"--sweep {path}: " + "\n".join(["", *faults]).replace("\n", "\n  "))
    return sweep


def _fault_messages(
    loc: tuple[int | str, ...], kind: str, value: object, message: str, content: Mapping[str, Any]
) -> Iterator[str]:
    """A fault in the words of the file: row and field, the value received, what was expected."""
    in_row = loc[0] == "rows" and len(loc) > 1
    where = _row_title(content["rows"], int(loc[1])) if in_row else ""
    names = [printable(str(name)[:60]) for name in (loc[2:] if in_row else loc)]
    field = ": ".join([where] * bool(where) + names[:1])
    if kind == "extra_forbidden":
        yield f"{field}: unknown; expected {', '.join((Row if in_row else Sweep).model_fields)}"
    elif field == "rows" and kind == "missing":
        yield "rows: expected at least one [[rows]] with name and changes"
    elif kind == "missing":
        yield f"{field} is missing"
    elif kind == "model_type":
        yield f"{field}: {brief(value)} is no table; expected name and changes"
    elif kind == "value_error":
        yield from (f"{field}: {line}" for line in message.removeprefix("Value error, ").splitlines())
    else:
        yield f"{field}: {brief(value)}; {_EXPECTED.get(kind, message)}"


def _row_title(rows: list[Any], index: int) -> str:
    name = rows[index].get("name") if isinstance(rows[index], dict) else None
    return f"row {index + 1} ({printable(name[:60])})" if isinstance(name, str) else f"row {index + 1}"
