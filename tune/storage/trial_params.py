"""A trial's `params.json`: its configuration, and what it is called; written at its start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from macil.config import TrialConfig
from macil.io.files import write_json_atomic
from macil.io.text import brief
from tune.storage.usable_fields import read_table


class TrialParams(BaseModel):
    """The file: a table of the hyperparameters, and these fields beside them.

    Attributes:
        number: Its number in the study of a search.
        row: The row of a sweep; of a confirmation, the trial that is confirmed.
        trial_id: What the tables call it.
        config: The hyperparameters, in a file of an earlier version.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    number: int | None = None
    row: str | None = None
    trial_id: str | None = None
    config: dict[str, Any] | None = None

    @field_validator("row", mode="before")
    @classmethod
    def _name_of(cls, row: Any) -> Any:
        """An earlier version kept the whole row."""
        return row.get("name") if isinstance(row, dict) else row

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The hyperparameters by name, as they are in the file."""
        values = {**(self.model_extra or {}), **(self.config or {})}
        return {name: value for name, value in values.items() if name in TrialConfig.model_fields}


def read_params(path: Path, problems: list[str]) -> TrialParams:
    """The content of a file without unusable values, each of which is a problem; empty without a file."""
    if not path.is_file():
        return TrialParams()
    content = read_table(path, problems, path.name)
    unknown = sorted(set(content) - set(TrialParams.model_fields) - set(TrialConfig.model_fields))
    if unknown:
        problems.append(f"{path.name} has fields that this version does not know: {brief(unknown)}; left out")
    try:
        return TrialParams.model_validate(content)
    except ValidationError as error:
        wrong = {str(each["loc"][0]) for each in error.errors()}
    problems += [
        f"{path.name}: {name} = {brief(content[name])} is of no use; left out" for name in sorted(wrong)
    ]
    return TrialParams.model_validate({name: each for name, each in content.items() if name not in wrong})


def write_params(
    path: Path, config: TrialConfig, *, number: int | None, row: str | None, trial_id: str | None
) -> None:
    """Write down what a trial is, in one step."""
    own: Mapping[str, Any] = {} if number is None else {"number": number}
    write_json_atomic(path, {**config.to_dict(), **own, "row": row, "trial_id": trial_id})
