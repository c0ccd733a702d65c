"""One trial's folder, as Tune writes it, read with whatever is missing or damaged listed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from macil.config import TrialConfig
from macil.errors import ConfigError
from macil.io.reading import read_text
from macil.io.text import brief
from macil.training.files import newest_checkpoint
from tune.results.rows import EpochRow, epoch_columns
from tune.storage.checkpoints import WENT_ON
from tune.storage.names import ERROR_FILE, LOG_FILE, NOTES_FILE, PARAMS_FILE, RECORD_FILE, SCORES_FILE
from tune.storage.trial_log import TrialLog, read_log
from tune.storage.trial_names import trial_name
from tune.storage.trial_params import TrialParams, read_params
from tune.storage.usable_fields import read_table

# What is expected of a value, for messages.
_TYPES = {column.name: column.arrow for column in epoch_columns()} | {
    "done": pa.bool_(),
    "timestamp": pa.float64(),
}

_ANSI = re.compile(r"\x1b?\[[0-9;]*m")
_EXCEPTION = re.compile(r"^([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Warning))(?::\s*(.*))?$")


@dataclass(frozen=True)
class TrialFolder:
    """The files of one trial, read from its folder.

    `recorded_id` is what its own files call it: in a folder that was copied, the other one's. `epochs` holds one row
    per epoch, in order. `done` says that the trial ended with the last of them, by itself or stopped; `diverged` that
    this one gave no result.
    """

    path: Path
    trial_id: str
    recorded_id: str | None
    kind: str
    row: str | None
    config: dict[str, Any]
    record: dict[str, Any]
    epochs: list[EpochRow]
    done: bool
    diverged: bool
    error: str | None
    failures: int
    problems: list[str] = field(default_factory=list)

    @property
    def measured(self) -> list[EpochRow]:
        """The epochs that gave a result."""
        return [epoch for epoch in self.epochs if not epoch.diverged]


def newest_scores(folder: Path) -> Path | None:
    """The test scores in the newest checkpoint of a trial's folder, None when no checkpoint has any."""
    newest = newest_checkpoint(folder, SCORES_FILE)
    return newest and newest / SCORES_FILE


def read_trial(path: Path, base: dict[str, Any], kind: str = "search") -> TrialFolder:
    """Read the trial in `path`.

    Args:
        path: A folder with any of record.json, params.json, result.json, error.txt.
        base: The run's resolved configuration, for a trial that left none itself.
        kind: "search", or "refit" for the winner's training on all training videos.
    """
    problems: list[str] = []
    recorded = path / RECORD_FILE
    record = read_table(recorded, problems, RECORD_FILE) if recorded.is_file() else {}
    params = read_params(path / PARAMS_FILE, problems)
    log = _read_log(path / LOG_FILE, problems)
    last = log.last
    error, failures = _read_error(path / ERROR_FILE, problems)
    problems += _read_notes(path / NOTES_FILE)
    diverged = last is not None and last.diverged
    if last is not None and diverged and error is None:
        error = last.reason or "diverged"
    own = params.hyperparameters or TrialParams(config=last.config if last else None).hyperparameters
    trial_id = trial_name(path)
    return TrialFolder(
        path=path,
        trial_id=trial_id,
        recorded_id=(last.trial_id if last else None) or params.trial_id,
        kind=kind,
        row=_row_name(record.get("row", params.row)),
        config=_configuration(record, own, base, problems),
        record=record,
        epochs=[
            EpochRow(trial_id=trial_id, kind=kind, **report.metrics()) for report in log.reports.values()
        ],
        done=last is not None and last.done,
        diverged=diverged or "DivergedError" in (error or ""),
        error=error,
        failures=failures,
        problems=[f"{path.name}: {problem}" for problem in problems],
    )


def _read_log(path: Path, problems: list[str]) -> TrialLog:
    try:
        log = read_log(path)
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error.strerror}")
        return TrialLog()
    problems += [
        f"{path.name} line {number} "
        + (
            "is cut short; it was being written or the process was killed"
            if number == log.lines
            else "is damaged"
        )
        + "; ignored"
        for number in log.damaged
    ]
    problems += [
        f"{path.name}: {name}: {brief(value)} is not a value of type {_TYPES.get(name, pa.string())}; "
        "treated as absent"
        for name, value in log.wrong.items()
    ]
    missing = sorted(set(range(1, max(log.reports, default=0) + 1)) - set(log.reports))
    if missing:
        shown = ", ".join(map(str, missing[:10])) + (" …" if len(missing) > 10 else "")
        problems.append(f"{path.name} has no report of epoch {shown}")
    return log


def _read_error(path: Path, problems: list[str]) -> tuple[str | None, int]:
    """The reason of the last failure in one line, and the number of failures."""
    try:
        lines = _ANSI.sub("", read_text(path, errors="replace")).splitlines()
    except FileNotFoundError:
        return None, 0
    except OSError as error:
        problems.append(f"error.txt cannot be read: {error.strerror}")
        return "unknown: error.txt cannot be read", 1
    failures = max(1, sum(line.startswith("Failure # ") for line in lines))
    for index in range(len(lines) - 1, -1, -1):
        if _EXCEPTION.match(lines[index]):
            reason = " ".join(line.strip() for line in lines[index : index + 6] if line.strip())
            return reason[:400], failures
    messages = [line.strip() for line in lines if line.strip()]
    return (messages[-1][:400] if messages else "unknown: error.txt is empty"), failures


def _read_notes(path: Path) -> list[str]:
    """Events of a trial's course; going on from a checkpoint is normal for a resume and is left out."""
    try:
        lines = read_text(path, errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line and not line.startswith(WENT_ON)]


def _configuration(
    record: dict[str, Any], own: dict[str, Any], base: dict[str, Any], problems: list[str]
) -> dict[str, Any]:
    """The trial's resolved configuration: its record's, else the run's with the trial's own values over it."""
    recorded = _as_mapping(record.get("config"))
    values = recorded or ({**base, **own} if own or base else {})
    try:
        return TrialConfig.from_dict(values).to_dict() if values else {}
    except ConfigError as error:
        problems.append(f"its configuration is not valid: {'; '.join(str(error).splitlines())}")
        return {key: value for key, value in values.items() if _is_valid(key, value)}


def _is_valid(name: str, value: Any) -> bool:
    if name not in TrialConfig.model_fields:
        return False
    try:
        TrialConfig.from_dict({name: value})
    except ConfigError as error:
        return "is not divisible by" in str(error)  # which is for two of them to agree on
    return True


def _as_mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _row_name(row: Any) -> str | None:
    if isinstance(row, dict):
        row = row.get("name")
    return None if row is None else str(row)
