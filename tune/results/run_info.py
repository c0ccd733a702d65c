"""run.json and plan.json as a report reads them: each field has its type, or is absent and named.

A run folder may come from another lab or version, or have been edited by hand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, cast

from macil.config import TrialConfig
from macil.data.origin import is_demo_data
from macil.errors import ConfigError
from macil.io.text import brief
from tune.planning.equal_rows import planned_rows
from tune.planning.plan import Plan, upgraded
from tune.storage.names import PLAN_FILE, RUN_FILE
from tune.storage.run_file import RunInfo
from tune.storage.usable_fields import usable

# The values of what a report reads where plan.json does not have it: nothing is planned.
_UNPLANNED: dict[str, Any] = {
    "protocol": "",
    "base": TrialConfig(),
    "fixed": {},
    "space": {},
    "first": {},
    "sweep": None,
    "title": None,
    "source": None,
    "reference": None,
    "rows": (),
    "trials": 0,
    "seeds": (),
    "enqueued": (),
    "sampler": None,
    "startup": 0,
    "stopping": None,
    "confirm": None,
    "notes": (),
}


def usable_info(content: Mapping[str, Any], problems: list[str]) -> RunInfo:
    """The usable fields of run.json; one of another type, or of another version, is a problem and left out."""
    if unknown := [name for name in content if name not in RunInfo.model_fields]:
        problems.append(f"{RUN_FILE}: {brief(unknown)} are no fields of this version; left out")
    return usable(RunInfo, content, RUN_FILE, problems)


def usable_plan(content: Mapping[str, Any], problems: list[str]) -> Plan:
    """The usable fields of plan.json, likewise; `planned_base` gives its base, and what no report reads is unset."""
    content = dict(cast(Mapping[str, Any], upgraded(content)))
    for field in ("first", "base", "fixed"):
        values = content.get(field)
        if isinstance(values, dict):
            content[field] = _hyperparameters(values)
            if wrong := [name for name in values if name not in content[field]]:
                problems.append(
                    f"{PLAN_FILE}: {field} holds {brief(wrong)}, which are no hyperparameters; left out"
                )
    if isinstance(content.get("rows"), list):
        content["rows"] = [
            {**row, "changes": _hyperparameters(row["changes"])}
            if isinstance(row, dict) and isinstance(row.get("changes"), dict)
            else row
            for row in content["rows"]
        ]
    plan = usable(Plan, content, PLAN_FILE, problems, _UNPLANNED)
    if planned_base(plan) and not any("trained_as" in row.model_fields_set for row in plan.rows):
        # An earlier version did not record it.
        with contextlib.suppress(ConfigError):
            return plan.model_copy(update={"rows": planned_rows(plan.base, plan.rows)})
    return plan


def planned_base(plan: Plan) -> dict[str, Any]:
    """The hyperparameters of the run's configuration; none where plan.json does not have them."""
    return plan.base.to_dict() if "base" in plan.model_fields_set else {}


def is_demo(info: RunInfo) -> bool:
    """Whether the run of this run.json was made on a demo.

    Its field `demo` says so; without the field: no --data was given, or the data are a demo's folder or were converted
    from one, as far as they can be reached.
    """
    if info.demo is not None:
        return info.demo
    known, given = given_data(info)
    if known and given is None:
        return True
    return any(is_demo_data(location) for location in (given, info.data) if location)


def given_data(info: RunInfo) -> tuple[bool, str | None]:
    """Whether run.json says what --data was, and that; the version before recorded all options."""
    if info.options is not None and "data" in info.options.model_fields_set:
        return True, info.options.data
    given = None if info.given is None else info.given.get("--data")
    return info.given is not None, None if given is None else str(given)


def _hyperparameters(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in values.items()
        if name in TrialConfig.model_fields and not isinstance(value, dict | list)
    }
