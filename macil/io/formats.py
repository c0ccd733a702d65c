"""JSON files of a format of our own: one pydantic model each, and every fault of a file in words."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from macil.errors import DataError
from macil.io.files import read_json, write_json_atomic
from macil.io.text import brief


class FileFormat(BaseModel):
    """Base of the models of our file formats: the fields of a model are those of the file, in their order.

    The description of a field is what a message says was expected there. A model with a field `format_version` refuses
    files of other versions than `READABLE`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    WHAT: ClassVar[str]
    """The kind of file, with its article: "a split"."""
    MARK: ClassVar[str | None] = None
    """The field that holds one fixed text in every such file and in no other."""
    READABLE: ClassVar[tuple[int, ...]] = (1,)
    """Values of `format_version` that this version of the package reads."""
    ADVICE: ClassVar[str] = ""
    """Advice for a file that is damaged or of another version, as the end of a sentence."""

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file; errors as `parse` and `macil.io.files.read_json`."""
        return cls.parse(read_json(path), os.fspath(path))

    @classmethod
    def parse(cls, content: Any, where: str) -> Self:
        """The model of what a file holds.

        Args:
            content: As decoded from JSON.
            where: The file, for messages.

        Raises:
            DataError: It is another kind of file, of a version that is not read, or damaged; names every fault.
        """
        if unlike := cls._unlike(content):
            raise DataError(f"{where} is not {cls.WHAT}: {unlike}{cls.ADVICE}")
        if "format_version" in cls.model_fields and content["format_version"] not in cls.READABLE:
            readable = " and ".join(map(str, cls.READABLE))
            raise DataError(
                f"{where}: format_version is {brief(content['format_version'])}, this version of macil reads "
                f"{readable}{cls.ADVICE}"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise DataError(f"{where} is damaged{cls.ADVICE}:", faults_of(error, cls, content)) from None

    def write(self, path: str | os.PathLike[str]) -> None:
        """Replace `path` by this content in one step."""
        write_json_atomic(path, self.model_dump(mode="json"))

    @classmethod
    def _unlike(cls, content: Any) -> str | None:
        """Why the content is of another kind of file; None when it is of this kind."""
        if not isinstance(content, dict):
            return f"it holds {brief(content)}, expected a table"
        if cls.MARK is not None:
            expected, found = cls.model_fields[cls.MARK].default, content.get(cls.MARK)
            if found != expected:
                return f"{cls.MARK} is {brief(found)}, expected {expected!r}"
        if "format_version" in cls.model_fields and "format_version" not in content:
            return "it lacks format_version"
        return None


def faults_of(error: ValidationError, model: type[BaseModel], content: Mapping[str, Any]) -> list[str]:
    """The faults of the fields of `content`, one text a field."""
    faults: dict[str, str] = {}
    for fault in error.errors(include_url=False):
        name = str(fault["loc"][0]) if fault["loc"] else ""
        field = model.model_fields.get(name)
        if fault["type"] == "missing" and len(fault["loc"]) == 1:
            text = f"it lacks {name}"
        elif fault["type"] == "extra_forbidden" and len(fault["loc"]) == 1:
            text = f"it has the field {brief(name)}, which this version of macil does not know"
        elif field is not None and field.description:
            text = f"{name} = {brief(content[name])}, expected {field.description}"
        else:
            location = ".".join(map(str, fault["loc"]))
            text = f"{location} = {brief(fault['input'])}: {fault['msg'].removeprefix('Value error, ')}"
        faults.setdefault(name, text)
    return list(faults.values())
