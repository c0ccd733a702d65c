"""JSON files of our own: one pydantic model each, its reader and its writer, and every fault of a file in words."""

from __future__ import annotations

import json
import os
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from macil.errors import DataError
from macil.io.files import read_json, write_json_atomic
from macil.io.text import brief


class FileModel(BaseModel):
    """A JSON file or a part of one: no value is converted from another type, no unknown field is ignored.

    The description of a field is what a message says was expected there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def parse(cls, content: Any, where: str) -> Self:
        """The model of decoded JSON; fields that the model computes are not read.

        Args:
            content: As decoded.
            where: What the message calls it.

        Raises:
            DataError: It has faults; names every one, with its field.
        """
        return cls._validated(content, f"{where} cannot be read by this version of macil")

    @classmethod
    def _validated(cls, content: Any, refusal: str) -> Self:
        if isinstance(content, dict):
            content = {name: each for name, each in content.items() if name not in cls.model_computed_fields}
        try:
            text = json.dumps(content)
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"{refusal}: it holds what JSON cannot ({error})") from None
        try:
            # As JSON, in which a list may be read as a tuple.
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise DataError(f"{refusal}:", _faults_of(error, cls, content)) from None


class FileFormat(FileModel):
    """Base of the models of whole files: the fields of a model are those of the file, in their order.

    A model with a field `format_version` refuses files of other versions than `READABLE`.
    """

    model_config = ConfigDict(allow_inf_nan=False)

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
        return cls._validated(content, f"{where} is damaged{cls.ADVICE}")

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


def _faults_of(error: ValidationError, model: type[BaseModel], content: Any) -> list[str]:
    """The faults of the fields of `content`, one text a field, or a field of a part."""
    faults: dict[str, str] = {}
    for fault in error.errors(include_url=False):
        location = ".".join(map(str, fault["loc"])) or "content"
        field = model.model_fields.get(location.partition(".")[0])
        if fault["type"] == "missing":
            text = f"it lacks {location}"
        elif fault["type"] == "extra_forbidden":
            text = f"it has the field {brief(location)}, which this version of macil does not know"
        elif field is not None and field.description:
            name = str(fault["loc"][0])
            text = f"{name} = {brief(content[name])}, expected {field.description}"
        else:
            text = f"{location} = {brief(fault['input'])}: {fault['msg'].removeprefix('Value error, ')}"
        # Of the items of a list one is enough.
        faults.setdefault(".".join(str(part) for part in fault["loc"] if isinstance(part, str)), text)
    return list(faults.values())
