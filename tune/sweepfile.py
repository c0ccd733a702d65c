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

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from macil.config import TrialConfig
from macil.errors import ConfigError, UsageError
from macil.reading import read_text
from macil.text import brief, printable
from tune.sweeps import SWEEPS, Row, Sweep

# Part of folder names.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,59}")
_MOST_ROWS = 1000
_KEYS = {"name": str, "title": str, "source": str, "reference": str, "rows": list}
_ROW_KEYS = {"name": str, "changes": dict, "published_ap": (int, float), "source": str}
# What a row may not set, and what to do instead.
_NOT_HERE = {
    "seed": "every row is trained with the same seeds; give --seed and --seeds",
    "epochs": "all rows are trained equally long; give --epochs",
}


def find_sweep(name: str) -> Sweep:
    """The sweep of the paper called `name`, or that of the TOML file `name`.

    Raises:
        UsageError: There is none; or the file has faults: all of them, each with its row and field.
    """
    if name in SWEEPS:
        return SWEEPS[name]
    path = Path(name).expanduser()
    if path.suffix.lower() != ".toml":
        raise UsageError(
            f"--sweep {name} is not known; expected {', '.join(SWEEPS)}, or a .toml file of your own"
        )
    try:
        content = tomllib.loads(read_text(path))
    except FileNotFoundError:
        raise UsageError(f"--sweep {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--sweep {path} cannot be read: {error}") from None
    except (ValueError, RecursionError) as error:  # also of a number too long, or of tables too deep
        raise UsageError(f"--sweep {path} is not valid TOML: {error}") from None
    return parse_sweep(content, str(path), path.stem)


def parse_sweep(content: Mapping[str, Any], where: str, default_name: str) -> Sweep:
    """A sweep from what its file holds.

    Args:
        content: The file's table, or what `sweep_content` gave.
        where: What messages call it.
        default_name: The sweep's name if it has none.

    Raises:
        UsageError: All faults.
    """
    faults = _check_keys(content, _KEYS, "")
    listed = content.get("rows")
    entries = listed if isinstance(listed, list) else []
    if not entries:
        faults.append("rows: expected at least one [[rows]] with name and changes")
    if len(entries) > _MOST_ROWS:
        faults.append(f"rows: {len(entries)} of them; expected at most {_MOST_ROWS}")
    rows = [_parse_row(entry, number, faults) for number, entry in enumerate(entries[:_MOST_ROWS], start=1)]
    names = [row.name for row in rows if row is not None]
    # A folder's name may not tell upper from lower case.
    folded = [name.casefold() for name in names]
    faults += [
        f"rows: the name {brief(name)} is given more than once"
        for place, name in enumerate(names)
        if folded.index(name.casefold()) < place
    ]
    name = _text(content.get("name", default_name))
    if not _NAME.fullmatch(name):
        faults.append(f"name: {brief(name)}; {_allowed()}")
    if name in SWEEPS and where != name:
        faults.append(f"name: {name!r} is a sweep of the paper; choose another")
    reference = _text(content.get("reference", names[0] if names else ""))
    if names and reference not in names:
        faults.append(
            f"reference: {brief(reference)} is none of the rows: {printable(', '.join(names))[:500]}"
        )
    if faults:
        raise UsageError(f"--sweep {where}: " + "\n".join(["", *faults]).replace("\n", "\n  "))
    return Sweep(
        name,
        str(content.get("title", f"sweep {name}")),
        str(content.get("source", f"file {Path(where).name}")),
        tuple(row for row in rows if row is not None),
        reference,
    )


def sweep_content(sweep: Sweep) -> dict[str, Any]:
    """The sweep as JSON-able values, for a run's record: its file may change or go."""
    return {
        "name": sweep.name,
        "title": sweep.title,
        "source": sweep.source,
        "reference": sweep.reference,
        "rows": [
            {
                "name": row.name,
                "changes": dict(row.changes),
                **({} if row.published_ap is None else {"published_ap": row.published_ap}),
                **({} if row.source is None else {"source": row.source}),
            }
            for row in sweep.rows
        ],
    }


def _parse_row(entry: Any, number: int, faults: list[str]) -> Row | None:
    if not isinstance(entry, dict):
        faults.append(f"row {number}: {brief(entry)} is no table; expected name and changes")
        return None
    name, changes, published = entry.get("name"), entry.get("changes"), entry.get("published_ap")
    where = f"row {number} ({printable(name[:60])})" if isinstance(name, str) else f"row {number}"
    faults += _check_keys(entry, _ROW_KEYS, f"{where}: ")
    faults += [f"{where}: {needed} is missing" for needed in ("name", "changes") if needed not in entry]
    if isinstance(name, str) and not _NAME.fullmatch(name):
        faults.append(f"{where}: name: {brief(name)}; {_allowed()}")
    if isinstance(changes, dict):
        faults += [f"{where}: changes: {key}: {why}" for key, why in _NOT_HERE.items() if key in changes]
        faults += _check_changes(changes, where)
    ap = None
    if isinstance(published, int | float) and not isinstance(published, bool):
        if not 0 <= published <= 100:
            faults.append(f"{where}: published_ap: {brief(published)}; expected percent, 0 to 100")
            return None  # it may not even fit a float
        ap = float(published)
    if not isinstance(name, str) or not isinstance(changes, dict):
        return None
    return Row(name, MappingProxyType(dict(changes)), ap, entry.get("source"))


def _check_changes(changes: Mapping[str, Any], where: str) -> list[str]:
    if not changes:
        return []  # a row that is the run's own configuration
    try:
        TrialConfig.from_dict(dict(changes))
    except ConfigError as error:
        # Whether width and heads fit is for the plan to say, which knows both.
        lines = [line for line in str(error).splitlines() if "is not divisible by" not in line]
        return [f"{where}: changes: {line}" for line in lines]
    return []


def _check_keys(content: Mapping[str, Any], known: Mapping[str, Any], where: str) -> list[str]:
    faults = [
        f"{where}{printable(key[:60])}: unknown; expected {', '.join(known)}"
        for key in content
        if key not in known
    ]
    for key, kind in known.items():
        value = content.get(key)
        if key in content and (not isinstance(value, kind) or isinstance(value, bool)):
            expected = {str: "text in quotes", list: "[[rows]]", dict: "a table"}.get(kind, "a number")
            faults.append(f"{where}{key}: {brief(value)}; expected {expected}")
    return faults


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""  # any other type is a fault that was told already


def _allowed() -> str:
    return "expected letters, digits and . _ + = -, at most 60"
