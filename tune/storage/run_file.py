"""`run.json`: what a run is, where it stands and what it has chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from macil.io.files import write_json_atomic
from macil.io.formats import FileFormat, FileModel
from tune.storage.names import RUN_FILE

FORMAT_VERSION: Literal[1] = 1
Status = Literal["running", "interrupted", "failed", "finished"]
Phase = Literal["trials", "confirm", "refit", "report"]
Scalar = bool | int | float | str

Count = Annotated[int, Field(ge=0, le=10**9)]
Positive = Annotated[int, Field(ge=1, le=10**6)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class EarlierAsha(FileModel):
    """ASHA as earlier versions recorded it; the plan has the stopping rule."""

    grace_period: Positive
    reduction_factor: Positive


class RunConfirmation(FileModel):
    """The confirmation: the trials of the best configurations and of the reference, and the fresh seeds."""

    rows: tuple[str, ...] = ()
    reference: str | None = None
    seeds: tuple[Seed, ...] = ()


class ConfirmedScore(FileModel):
    """The winner's mean selection score on fresh seeds, of how many, and its score in the search."""

    mean: float
    n: Count
    searched: float | None = None


class RunWinner(FileModel):
    """The trial that won a search."""

    trial: str | None = None
    selection_score: float | None = None
    chosen_epoch: Count | None = None
    confirmed: ConfirmedScore | None = None


class RunRefit(FileModel):
    """Where the refits of the winner lie, and how long they are trained."""

    trial_dir: str
    trial_dirs: tuple[str, ...]
    epochs: Count


class RunFailure(FileModel):
    """Why a run failed, and whether a resume may come further than it did."""

    reason: str
    resumable: bool


class EarlierOptions(FileModel):
    """The options of a run that was begun by a version whose `plan.json` had no format_version."""

    model_config = ConfigDict(extra="allow")

    data: str | None = None
    hyperparameters: dict[str, Scalar] = Field(default_factory=dict)


class RunInfo(FileFormat):
    """The fields of `run.json`; None before they are known."""

    WHAT: ClassVar[str] = "the description of a run"

    format_version: Literal[1] = FORMAT_VERSION
    name: str | None = None
    status: Status | None = None
    phase: Phase | None = None
    """The phase with which a resume goes on; `report` when everything is trained."""
    created: str | None = None
    updated: str | None = None
    command: tuple[str, ...] | None = None
    """The command line that began the run."""
    given: dict[str, Scalar] | None = None
    """The flags of the command, without any default."""
    protocol: str | None = None
    epoch_rule: str | None = None
    sweep: str | None = None
    metric: str | None = None
    seeds: tuple[Seed, ...] | None = None
    trials: Count | None = None
    asha: EarlierAsha | None = None
    versions: dict[str, str] | None = None
    address: str | None = None
    """Address of the Ray cluster; None for one machine."""
    data: str | None = None
    """The store that is trained on."""
    store_hash: str | None = None
    labels_hash: str | None = None
    data_notes: tuple[str, ...] | None = None
    dataset: dict[str, Count] | None = None
    """Videos by split."""
    chance: Annotated[float, Field(ge=0, le=1)] | None = None
    demo: bool | None = None
    confirm: RunConfirmation | None = None
    winner: RunWinner | None = None
    refit: RunRefit | None = None
    failure: RunFailure | None = None
    """Of a run whose status is failed."""
    acted_upon: Count | None = None
    """Lines of `decisions.jsonl` that were acted upon when the search was extended last."""
    options: EarlierOptions | None = None


def read_run_info(run: Path) -> RunInfo:
    """Read `run.json`.

    Raises:
        DataError: It is missing, damaged or of another version.
    """
    return RunInfo.read(run / RUN_FILE)


def write_run_info(run: Path, info: RunInfo, changes: Mapping[str, Any]) -> None:
    """Write `run.json` with `changes` over `info`, in one step; fields that were never set are not in it."""
    content = {
        "format_version": FORMAT_VERSION,
        **info.model_dump(mode="json", exclude_unset=True),
        **changes,
    }
    changed = RunInfo.model_validate_json(json.dumps(content))
    write_json_atomic(run / RUN_FILE, changed.model_dump(mode="json", exclude_unset=True))
