"""What run.json and plan.json say that a report builds on: each field of the type it has, or absent and named.

A run folder may come from another lab, or have been edited by hand. What nothing is computed from may be anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from macil.config import TrialConfig
from macil.text import brief
from tune.storage.names import PLAN_FILE, RUN_FILE

_Count = Annotated[int, Field(ge=0, le=10**9)]
_Seed = Annotated[int, Field(ge=0, lt=2**31)]
_Percent = Annotated[float, Field(ge=0, le=100)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Positive = Annotated[int, Field(ge=1, le=10**6)]
# Fields that the writers leave empty are null.
_Text = str | None


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Confirm(_Part):
    rows: list[str] = []
    reference: _Text = None
    seeds: list[_Seed] = []


class _Winner(_Part):
    trial: _Text = None


class _Asha(_Part):
    grace_period: _Positive | None = None
    reduction_factor: _Positive | None = None


class _Options(_Part):
    data: _Text = None


class _Row(_Part):
    name: str
    changes: dict[str, Any] = {}
    published_ap: _Percent | int | None = None
    source: _Text = None
    trained_as: _Text = None


_SHARED: dict[str, Any] = {
    "trials": _Count,
    "seeds": list[_Seed],
    "sweep": str,
    "protocol": str,
    "epoch_rule": str,
    "asha": _Asha,
}
_INFO: dict[str, Any] = _SHARED | {
    "name": str,
    "status": str,
    "phase": str,
    "data": str,
    "demo": bool,
    "store_hash": str,
    "labels_hash": str,
    "data_notes": list[str],
    "dataset": dict[str, int],
    "chance": _Share,
    "created": str,
    "updated": str,
    "confirm": _Confirm,
    "winner": _Winner,
    "options": _Options,
    "given": dict[str, Any],
    "address": str,
}
_PLAN: dict[str, Any] = _SHARED | {
    "space": dict[str, str],
    "first": dict[str, Any],
    "base": dict[str, Any],
    "fixed": dict[str, Any],
    "rows": list[_Row],
    "notes": list[str],
    "title": str,
    "source": str,
    "reference": str,
    "split_seed": _Seed,
}


def usable_info(content: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """The fields of run.json without those of another type than they should have, each of which is a problem."""
    return _usable(content, _INFO, RUN_FILE, problems)


def usable_plan(content: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """As `usable_info`, of plan.json."""
    plan = _usable(content, _PLAN, PLAN_FILE, problems)
    for field in ("first", "base", "fixed"):
        values = plan.get(field) or {}
        if wrong := [
            name for name in values if name not in TrialConfig.model_fields or _is_nested(values[name])
        ]:
            problems.append(
                f"plan.json: {field} holds {brief(wrong)}, which are no hyperparameters; left out"
            )
            plan[field] = {name: values[name] for name in values if name not in wrong}
    for row in plan.get("rows") or []:
        row["changes"] = {
            name: value
            for name, value in (row.get("changes") or {}).items()
            if name in TrialConfig.model_fields and not _is_nested(value)
        }
    return plan


def _usable(
    content: Mapping[str, Any], types: Mapping[str, Any], where: str, problems: list[str]
) -> dict[str, Any]:
    kept = dict(content)
    for name, kind in types.items():
        if content.get(name) is None:
            continue
        try:
            TypeAdapter(kind).validate_python(content[name], strict=True)
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            problems.append(f"{where}: {name} = {brief(content[name])} is of no use ({reason}); left out")
            del kept[name]
    return kept


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list)
