"""The base of the models of our own JSON files, and the two ways to read one: as a whole, or what is usable of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from macil.errors import DataError
from macil.io.files import read_json
from macil.io.text import brief

M = TypeVar("M", bound="FileModel")


class FileModel(BaseModel):
    """A file or a part of one: no value is converted from another type, no unknown field is ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def parse(model: type[M], content: object, where: object) -> M:
    """The content of a JSON file as its model; fields that the model computes are not read.

    Args:
        model: Of the file.
        content: What the file holds.
        where: What the message calls it.

    Raises:
        DataError: Every fault, with its field.
    """
    if isinstance(content, dict):
        content = {name: each for name, each in content.items() if name not in model.model_computed_fields}
    try:
        # As JSON, in which a list may be read as a tuple.
        return model.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise DataError(
            f"{where} cannot be read by this version of macil-tune:", fault_lines(error)
        ) from None


def fault_lines(error: ValidationError) -> list[str]:
    """One line a fault: the field, the value received, what was expected."""
    lines = []
    for fault in error.errors(include_url=False):
        name = ".".join(map(str, fault["loc"])) or "content"
        if fault["type"] == "extra_forbidden":
            lines.append(f"{name}: unknown field")
        elif fault["type"] == "missing":
            lines.append(f"{name} is missing")
        else:
            lines.append(f"{name} = {brief(fault['input'])}: {fault['msg']}")
    return lines


def read_table(path: Path, problems: list[str], called: str) -> dict[str, Any]:
    """The names and values that a JSON file holds; none where it cannot be read, which is a problem.

    Args:
        path: The file.
        problems: Appended to.
        called: What problems call it.
    """
    try:
        content = read_json(path)
    except DataError as error:
        problems.append(str(error).replace(f"{path}", called))
        return {}
    if isinstance(content, dict):
        return content
    problems.append(f"{called} holds no table of names and values")
    return {}


def usable(
    model: type[M],
    content: Mapping[str, Any],
    where: str,
    problems: list[str],
    absent: Mapping[str, Any] = MappingProxyType({}),
) -> M:
    """The usable fields of a JSON file as its model, for a report; a file that a run goes on by is parsed as a whole.

    A value that the model does not allow is a problem, and taken to be absent, as null is where it may not be.

    Args:
        model: Of the file.
        content: What the file holds.
        where: What problems call it.
        problems: Appended to.
        absent: Values of fields without a default where they are absent; any other such field is not set.
    """
    kept = {}
    for name, adapter in _adapters(model).items():
        if name not in content:
            continue
        try:
            kept[name] = adapter.validate_json(json.dumps(content[name]), strict=True)
        except ValidationError as error:
            if content[name] is not None:
                reason = error.errors(include_url=False)[0]["msg"]
                problems.append(f"{where}: {name} = {brief(content[name])} is of no use ({reason}); left out")
    return model.model_construct(_fields_set=set(kept), **{**absent, **kept})


@cache
def _adapters(model: type[FileModel]) -> dict[str, TypeAdapter[Any]]:
    return {name: TypeAdapter(field.rebuild_annotation()) for name, field in model.model_fields.items()}
