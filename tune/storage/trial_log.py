"""A trial's log, `result.json`: a line an epoch, appended before anything that follows from the epoch is done.

What was logged stays as it is: of an epoch that was reported twice, because a worker was lost or an earlier version
logged it again, the first report counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, create_model

from macil.config import hyperparameters
from macil.io.files import write_text_atomic
from macil.io.reading import open_file, parse_json, read_text
from macil.training.metrics import EpochMetrics

# Names in a report that deciding is done upon: what is to be large, and the epoch as Ray Tune counts it.
METRIC = "selection_score"
TIME = "training_iteration"

_MOST_EPOCHS = next(each.high for each in hyperparameters() if each.name == "epochs") or 2**31
# Bytes at the end of a log, in which its last line is.
_TAIL = 16384

_Number = Annotated[float, Field(allow_inf_nan=False)]
_Whole = Annotated[int, Field(gt=-(2**63), lt=2**63)]


class EpochReport(BaseModel):
    """What is read of a line, beside the metrics. A value that is absent, or of no use, is None.

    Ray Tune adds as much again, which is not read.

    Attributes:
        epoch: From 1.
        diverged: The epoch gave no result, for `reason`, and ended the trial.
        done: The trial ended with it, by itself or by early stopping.
        hostname, timestamp: Where and when it was reported, in seconds since 1970.
        config: The trial's configuration, in logs of an earlier version.
    """

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    epoch: int = Field(validation_alias=AliasChoices("epoch", TIME), ge=1, le=_MOST_EPOCHS)
    selection_score: _Number | None = None
    diverged: bool = False
    done: bool = False
    reason: str | None = None
    trial_id: str | None = None
    hostname: str | None = None
    timestamp: _Number | None = None
    config: dict[str, Any] | None = None

    def metrics(self) -> dict[str, Any]:
        """The measurements of the epoch: fields of `EpochMetrics`, and whether it diverged."""
        return {name: getattr(self, name) for name in (*_METRICS, "diverged")}


# Metric to its type: a log may lack any of them, as that of an epoch that diverged does.
_METRICS = {
    name: (_Whole if kind is int else _Number) | None for name, kind in get_type_hints(EpochMetrics).items()
}
_OWN = EpochReport.model_fields
# A report with every metric.
_Report = create_model(
    "_Report",
    __base__=EpochReport,
    **{name: (kind, None) for name, kind in _METRICS.items() if name not in _OWN},  # type: ignore[call-overload]
)


@dataclass(frozen=True)
class TrialLog:
    """The reports of a trial.

    Attributes:
        reports: Epoch to its report, in order.
        damaged: Numbers of lines that are no reports; the last one may be being written.
        lines: Number of lines.
        wrong: Field to the first value of it that is of another type, and was left out.
    """

    reports: Mapping[int, EpochReport] = field(default_factory=dict)
    damaged: tuple[int, ...] = ()
    lines: int = 0
    wrong: Mapping[str, Any] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Epochs without a gap, from the first."""
        epochs = 0
        while epochs + 1 in self.reports:
            epochs += 1
        return epochs

    @property
    def last(self) -> EpochReport | None:
        """The report of the latest epoch."""
        return self.reports[max(self.reports)] if self.reports else None

    @property
    def scores(self) -> dict[int, float]:
        """Epoch to selection score, of those that have one."""
        found = ((epoch, report.selection_score) for epoch, report in self.reports.items())
        return {epoch: score for epoch, score in found if score is not None}


def read_log(path: Path) -> TrialLog:
    """The log at `path`; an empty one where there is none.

    Raises:
        OSError: It is there and cannot be read.
    """
    try:
        text = read_text(path, errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return TrialLog()
    reports: dict[int, EpochReport] = {}
    damaged = []
    wrong: dict[str, Any] = {}
    number = 0
    for number, _, report in _read_lines(text, wrong):
        if report is None:
            damaged.append(number)
        else:
            reports.setdefault(report.epoch, report)
    return TrialLog({epoch: reports[epoch] for epoch in sorted(reports)}, tuple(damaged), number, wrong)


def trim_log(path: Path, epochs: int) -> None:
    """Leave whole lines only, of epochs 1 to `epochs`: what is appended must not join a torn line."""
    if not path.exists():
        return
    text = read_text(path, errors="replace")
    lines: dict[int, str] = {}
    for _, line, report in _read_lines(text, {}):
        if report is not None and report.epoch <= epochs:
            lines.setdefault(report.epoch, line)
    kept = "".join(f"{lines[epoch]}\n" for epoch in sorted(lines))
    if kept != text:
        write_text_atomic(path, kept)


def read_last_report(path: Path) -> EpochReport | None:
    """The last whole line of a log that says when it was written, read from its end; None without any."""
    try:
        with open_file(path) as log:
            log.seek(0, 2)
            log.seek(max(0, log.tell() - _TAIL))
            text = log.read().decode(errors="replace")
    except OSError:
        return None
    reports = [report for _, _, report in _read_lines(text, {}) if report and report.timestamp is not None]
    return reports[-1] if reports else None


def report_line(report: Mapping[str, Any], trial_id: str | None) -> str:
    """The line of an epoch: `report` as it was made, with what JSON has no number for as null."""
    line = {name: _json_value(value) for name, value in report.items()}
    if trial_id is not None:
        line["trial_id"] = trial_id
    return json.dumps(line, allow_nan=False) + "\n"


def _read_lines(text: str, wrong: dict[str, Any]) -> Iterator[tuple[int, str, EpochReport | None]]:
    """Number, text and report of each line that is not empty; None for one that is no report."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line, _parse(line, wrong)


def _parse(line: str, wrong: dict[str, Any]) -> EpochReport | None:
    try:
        return _Report.model_validate_json(line)
    except ValidationError:
        pass  # found out below; nearly all lines are whole, and this is the fast way
    try:
        values = parse_json(line)
        return _fitting_part(values, wrong) if isinstance(values, dict) else None
    except (ValueError, RecursionError):
        return None


def _fitting_part(values: dict[str, Any], wrong: dict[str, Any]) -> EpochReport:
    """A report without the values that are of another type.

    Raises:
        ValidationError: It has no epoch.
    """
    try:
        return _Report.model_validate(values)
    except ValidationError as error:
        for name in {str(each["loc"][0]) for each in error.errors()}:
            if _says_something(value := values.pop(name, None)):
                wrong.setdefault(name, value)
    return _Report.model_validate(values)


def _says_something(value: Any) -> bool:
    """Whether it is more than null and what JSON has no numbers for, which are how "not measured" is written."""
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict | list | str | int | float | bool) or value is None:
        return value
    return str(value)
