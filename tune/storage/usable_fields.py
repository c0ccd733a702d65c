"""JSON files as a report reads them: what is usable of a file, and what is not as a problem in words.

A file that a run goes on by is read as a whole (`macil.io.formats`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from macil.errors import DataError
from macil.io.files import read_json
from macil.io.formats import FileModel
from macil.io.text import brief

M = TypeVar("M", bound="FileModel")


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
