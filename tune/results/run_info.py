"""The fields of run.json and plan.json that a report reads: each has its type, or is absent and named.

A run folder may come from another lab or version, or have been edited by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from macil.config import TrialConfig
from macil.data.origin import is_demo_data
from macil.io.text import brief
from tune.planning.plan import Plan, SearchedDistribution
from tune.planning.space import describe
from tune.storage.file_model import usable
from tune.storage.names import PLAN_FILE, RUN_FILE
from tune.storage.run_file import RunInfo

_DISTRIBUTION: TypeAdapter[Any] = TypeAdapter(SearchedDistribution)


def usable_info(content: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """The fields of run.json without those of another type than they should have, each of which is a problem."""
    return usable(RunInfo, content, RUN_FILE, problems)


def usable_plan(content: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """Like `usable_info`, for plan.json; the space is in words."""
    plan = dict(content)
    for field in ("first", "base", "fixed"):
        values = plan.get(field)
        if isinstance(values, dict):
            plan[field] = _hyperparameters(values)
            if wrong := [name for name in values if name not in plan[field]]:
                problems.append(
                    f"{PLAN_FILE}: {field} holds {brief(wrong)}, which are no hyperparameters; left out"
                )
    if isinstance(plan.get("rows"), list):
        plan["rows"] = [
            {**row, "changes": _hyperparameters(row["changes"])}
            if isinstance(row, dict) and isinstance(row.get("changes"), dict)
            else row
            for row in plan["rows"]
        ]
    plan = usable(Plan, plan, PLAN_FILE, problems, unchecked=("space",))
    if plan.get("space") is not None:
        try:
            plan["space"] = {name: _in_words(each) for name, each in plan["space"].items()}
        except (AttributeError, ValidationError):
            problems.append(f"{PLAN_FILE}: space = {brief(plan.pop('space'))} is of no use; left out")
    return plan


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


def _hyperparameters(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in values.items()
        if name in TrialConfig.model_fields and not isinstance(value, dict | list)
    }


def _in_words(distribution: Any) -> str:
    """A distribution of the space; the version before recorded its words alone."""
    if isinstance(distribution, str):
        return distribution
    return describe({"": _DISTRIBUTION.validate_python(distribution)})[""]
