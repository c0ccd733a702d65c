"""Whether a run was trained on the generated data set, whose numbers say nothing about any other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from macil.data.demo import DEMO_FILE
from macil.data.store import META
from macil.errors import DataError
from macil.files import read_json

# The layout folder that the embedded demo is converted from; it is removed afterwards.
_EMBEDDED = re.compile(r"demo-[\d.]+\.layout")


def is_demo(info: dict[str, Any]) -> bool:
    """Whether the run of this run.json was made on generated data.

    Its field `demo` says so; without the field: no --data was given, or the data are a demo's folder or were converted
    from one, as far as they can be reached.
    """
    if isinstance(info.get("demo"), bool):
        return bool(info["demo"])
    options = info.get("options")
    given = options.get("data") if isinstance(options, dict) else None
    if isinstance(options, dict) and "data" in options and given is None:
        return True
    return any(is_demo_data(str(place)) for place in (given, info.get("data")) if place)


def is_demo_data(place: str | Path) -> bool:
    """Whether a folder is a generated layout, or a store converted from one; False for what is out of reach."""
    folder = Path(place)
    if (folder / DEMO_FILE).is_file():
        return True
    try:
        meta = read_json(folder / META)
        source = meta["source"]["path"]
    except (DataError, KeyError, TypeError):
        return False
    if isinstance(meta.get("made_up"), bool):
        return bool(meta["made_up"])
    return bool(_EMBEDDED.fullmatch(Path(source).name)) or (Path(source) / DEMO_FILE).is_file()
