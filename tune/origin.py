"""Whether a run was trained on the generated data set, whose numbers say nothing about any other."""

from __future__ import annotations

from typing import Any

from macil.data.origin import is_demo_data


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
