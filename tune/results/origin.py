"""Whether a run was trained on the generated data set, whose numbers say nothing about any other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from macil.data.origin import is_demo_data


def is_demo(info: Mapping[str, Any]) -> bool:
    """Whether the run of this run.json was made on generated data.

    Its field `demo` says so; without the field: no --data was given, or the data are a demo's folder or were converted
    from one, as far as they can be reached.
    """
    if isinstance(info.get("demo"), bool):
        return bool(info["demo"])
    known, given = given_data(info)
    if known and given is None:
        return True
    return any(is_demo_data(str(location)) for location in (given, info.get("data")) if location)


def given_data(info: Mapping[str, Any]) -> tuple[bool, str | None]:
    """Whether run.json says what --data was, and that; the version before recorded all options."""
    options, given = info.get("options"), info.get("given")
    if isinstance(options, Mapping) and "data" in options:
        return True, options["data"]
    return isinstance(given, Mapping), given.get("--data") if isinstance(given, Mapping) else None
