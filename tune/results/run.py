"""A run folder as one Arrow table of trials and one of epochs, whatever state the run is in."""

from __future__ import annotations

import os
import re
import socket
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from macil.data.store.feature_store import TestLabels
from macil.errors import DataError
from macil.evaluation.protocols import CLOSED_PROTOCOLS, epoch_rule
from macil.io.reading import read_text
from tune.algorithms.space import active_values
from tune.planning.plan import Plan
from tune.results.measured import measured_chance, read_measured, stamp_of
from tune.results.ranking import Winner, recorded_winner, winner_of
from tune.results.rows import EpochRow, TrialRow, trial_columns
from tune.results.run_info import is_demo, usable_info, usable_plan
from tune.results.tables import EPOCHS_SCHEMA, TRIALS_SCHEMA, build_table
from tune.results.trainings import standing_for
from tune.results.trial_folder import TrialFolder, read_trial
from tune.storage.decisions import Decision, read_decisions, trials_ended
from tune.storage.location import RunLocation, locate_run
from tune.storage.names import (
    CONFIG_FILE,
    CONFIRM_FOLDER,
    ERROR_FILE,
    GROUP_PREFIX,
    LEASE_FILE,
    LOCK_FILE,
    LOG_FILE,
    PARAMS_FILE,
    PLAN_FILE,
    RECORD_FILE,
    REFIT_FOLDER,
    RUN_FILE,
    TRIALS_FOLDER,
)
from tune.storage.run_file import FORMAT_VERSION, RunInfo
from tune.storage.sync import EXPIRED
from tune.storage.trial_names import refit_row
from tune.storage.usable_fields import read_table

if TYPE_CHECKING:
    from tune.results.label_access import LabelAccess

# Folder of the run -> kind of its trials: what was searched, its best again on fresh seeds, the winner on all videos.
KINDS = {TRIALS_FOLDER: "search", CONFIRM_FOLDER: "confirm", REFIT_FOLDER: "refit"}


@dataclass(frozen=True)
class RunResults:
    """All that a run has measured so far.

    `info` is run.json and `plan` plan.json, as far as they can be read (see `tune.results.run_info`); `trial_rows` are
    the trainings and `epoch_rows` their epochs; `problems` lists what is missing or damaged, one line each;
    `label_accesses` says when the test labels were read (see `tune.results.label_access`), `decisions` what was decided
    on the way; `labels` are those that this process has read at a logged access; `chance` is the share of violent
    frames among the test frames, which guessing has as AP, where it is known.
    """

    path: Path
    info: RunInfo
    trial_rows: Sequence[TrialRow]
    epoch_rows: Sequence[EpochRow]
    problems: list[str]
    plan: Plan
    label_accesses: list[LabelAccess] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    found_at: RunLocation | None = None
    chance: float | None = None
    labels: TestLabels | None = None

    @cached_property
    def trials(self) -> pa.Table:
        """The trainings as an Arrow table, a row each (docs/report.md); `.to_pandas()` where pandas is installed."""
        return build_table(self.trial_rows, TRIALS_SCHEMA)

    @cached_property
    def epochs(self) -> pa.Table:
        """The epochs of the trainings likewise; `trial_id` names the training."""
        return build_table(self.epoch_rows, EPOCHS_SCHEMA)

    @cached_property
    def winner(self) -> Winner | None:
        """What won the search; None before one is named, and for a sweep, which has rows instead."""
        return recorded_winner(self)

    @property
    def location(self) -> RunLocation:
        """Where the run lies."""
        return self.found_at or RunLocation(self.path, str(self.path))

    @property
    def name(self) -> str:
        """The run's name."""
        return self.info.name or self.path.name

    @property
    def status(self) -> str:
        """running, interrupted, failed, finished, as run.json has it; "unknown" without it."""
        return self.info.status or "unknown"

    @property
    def protocol(self) -> str:
        """The protocol of the run's trials, "unknown" when nothing says it."""
        return str(
            self.info.protocol
            or next((row.protocol for row in self.trial_rows if row.protocol is not None), "unknown")
        )

    def active_row(self, trial: TrialRow) -> TrialRow:
        """A trial without the values of those dimensions of the space whose condition it does not meet."""
        active = active_values(self.plan.space, trial.config)
        left_out = self.plan.space.keys() - active.keys()
        if not left_out:
            return trial
        config = {name: value for name, value in trial.config.items() if name not in left_out}
        return replace(trial, config=config)


def load_run(run: str | Path, storage: str | Path = "./runs") -> RunResults:
    """Read a run that is running, interrupted, failed or finished.

    Under `heldout` and `refit` the test metrics are null until `tune.results.label_access.open_labels` has computed
    them.

    Args:
        run: A name in `storage`, a path or a URI.
        storage: Folder or URI of runs.

    Raises:
        UsageError: There is no such run.
        DataError: The folder is no run, or was written by a newer version.
    """
    location = locate_run(run, storage)
    path = location.path
    problems: list[str] = []
    content = _read_mapping(path / RUN_FILE, problems, needed=True)
    version = content.get("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path / RUN_FILE} has format_version {version!r}; this version of macil-tune reads {FORMAT_VERSION}"
        )
    info = usable_info(content, problems)
    if info.status == "running" and _driver_is_gone(path):
        info = info.model_copy(update={"status": "interrupted"})
        problems.append("run.json says running, but the process that ran it is gone: it was killed")
    plan = usable_plan(_read_mapping(path / PLAN_FILE, problems), problems)
    base = _read_base(path / CONFIG_FILE, problems)
    folders: list[TrialFolder] = []
    for folder, kind in KINDS.items():
        folders += [read_trial(each, base, kind) for each in _trial_folders(path / folder)]
    problems += [problem for folder in folders for problem in folder.problems]
    wrong: dict[str, Any] = {}
    demo, named = is_demo(info), winner_of(info)
    decisions = read_decisions(path, problems)
    ended = trials_ended(decisions) is not None
    folders = [folder for folder in folders if not _is_of_earlier_end(folder, info, plan)]
    rows = [_trial_row(folder, info, path, demo=demo, ended=ended, wrong=wrong) for folder in folders]
    standing = standing_for(rows, plan)
    rows = [
        replace(row, rows=", ".join(standing.get(row.trial_dir, ())) or None, winner=_is_winners(row, named))
        for row in rows
    ]
    rows = _with_measured(rows, path, problems)
    _check_run(info, rows, [each.recorded_id for each in folders if each.kind == "search"], problems, ended)
    problems += [
        f"{column.name}: {wrong[column.name]!r} is not a value of type {column.arrow}; treated as absent"
        for column in trial_columns()
        if column.name in wrong
    ]
    return RunResults(
        path=path,
        info=info,
        trial_rows=rows,
        epoch_rows=[epoch for folder in folders for epoch in folder.epochs],
        problems=problems,
        plan=plan,
        decisions=decisions,
        found_at=location,
        chance=_chance(path, info),
    )


def _is_of_earlier_end(trial: TrialFolder, info: RunInfo, plan: Plan) -> bool:
    """Whether a training confirmed or refitted what was the winner before the search was extended."""
    if info.acted_upon is None or trial.kind == "search":
        return False
    if trial.kind == "refit":
        return trial.row != refit_row(plan.trials, info.acted_upon)
    return trial.config.get("seed") not in plan.confirm_seeds


def _chance(run: Path, info: RunInfo) -> float | None:
    """The AP of guessing: from run.json under `published`, which reads the test labels; else from a label access."""
    return info.chance if info.protocol == "published" else measured_chance(run)


def planned_confirmation(info: RunInfo) -> list[tuple[str, int]]:
    """(trial, seed) of each training that `run.json` says will confirm the search's best; empty without any."""
    confirm = info.confirm
    if confirm is None:
        return []
    names = dict.fromkeys([*confirm.rows, *([] if confirm.reference is None else [confirm.reference])])
    return [(name, seed) for name in names for seed in confirm.seeds]


def _is_winners(row: TrialRow, named: str | None) -> bool | None:
    """Whether a training is of the winning configuration: its trial, a confirmation of it, or its refit."""
    if named is None:
        return None
    return named == {"search": row.name, "confirm": row.row}.get(row.kind, named)


def read_record(results: RunResults, trial: TrialRow) -> dict[str, Any]:
    """The record.json of a training; empty when it is missing or damaged."""
    return _read_mapping(results.path / trial.trial_dir / RECORD_FILE, [])


def _trial_row(
    trial: TrialFolder, info: RunInfo, run: Path, *, demo: bool, ended: bool, wrong: dict[str, Any]
) -> TrialRow:
    """The row of a training; the first value of a column that is none of its type is kept in `wrong`."""
    columns = {column.name: column for column in trial_columns()}

    def fitting(name: str, value: Any) -> Any:
        fitted = columns[name].fitting(value)
        if fitted is None and value is not None:
            wrong.setdefault(name, value)
        return fitted

    record = trial.record
    protocol = str(record.get("protocol") or ("refit" if trial.kind == "refit" else info.protocol or ""))
    rule = epoch_rule(protocol, info.epoch_rule)
    measured = trial.measured
    last = measured[-1] if measured else None
    chosen = next((epoch for epoch in measured if last and epoch.epoch == last.chosen_epoch), None)
    headline = last if rule == "last" else chosen
    config = {name: fitting(name, value) for name, value in trial.config.items()}
    row = TrialRow(
        trial_id=trial.trial_id,
        kind=trial.kind,
        row=trial.row,
        config={name: value for name, value in config.items() if value is not None},
        protocol=protocol or None,
        status=_status(trial, info, ended=ended),
        epoch_rule=rule,
        error=trial.error,
        failures=trial.failures,
        store_hash=fitting("store_hash", record.get("store_hash")),
        demo=demo,
        threads=fitting("threads", record.get("threads")),
        device=fitting("device", record.get("device")),
        trial_dir=trial.path.relative_to(run).as_posix(),
    )
    if last is not None:
        row = replace(
            row,
            epochs_run=last.epoch,
            chosen_epoch=last.chosen_epoch,
            ap_last=last.ap,
            ap_trapezoid_last=last.ap_trapezoid,
            selection_score=last.selection_score,
            parameters=last.parameters,
            parameters_published=last.parameters_published,
            seconds=sum(epoch.seconds or 0.0 for epoch in measured),
        )
    if headline is not None:
        row = replace(
            row,
            ap=headline.ap,
            ap_trapezoid=headline.ap_trapezoid,
            visual_ap=headline.visual_ap,
            heldout_ap=headline.heldout_ap,
            video_accuracy=headline.video_accuracy,
        )
    return _with_best_test_epoch(row, measured) if protocol == "published" else row


def _with_measured(rows: Sequence[TrialRow], run: Path, problems: list[str]) -> list[TrialRow]:
    """The rows with the test metrics that an earlier label access measured, if the scores are unchanged."""
    _, measured = read_measured(run, problems)
    found = []
    for row in rows:
        known = measured.get(row.trial_dir) if row.protocol in CLOSED_PROTOCOLS else None
        if known and known.stamp == stamp_of(run / row.trial_dir, row.epochs_run, row.chosen_epoch):
            found.append(known.filled_into(row))
            problems += known.problems
        else:
            found.append(row)
    return found


def _with_best_test_epoch(row: TrialRow, epochs: Sequence[EpochRow]) -> TrialRow:
    """The row with the epoch that the published convention would report: the first best one by that definition."""
    measured = [(epoch.ap_trapezoid, epoch) for epoch in epochs if epoch.ap_trapezoid is not None]
    if not measured:
        return row
    ap, best = max(measured, key=lambda item: (item[0], -item[1].epoch))
    return replace(row, best_epoch=best.epoch, ap_best=best.ap, ap_trapezoid_best=ap)


def _status(trial: TrialFolder, info: RunInfo, *, ended: bool) -> str:
    asked = trial.config.get("epochs")
    if trial.diverged:
        return "diverged"
    if trial.done:
        complete = asked is None or trial.epochs[-1].epoch >= asked
        return ("refit" if trial.kind == "refit" else "finished") if complete else "stopped"
    if trial.error is not None:
        return "failed"
    if ended and trial.kind == "search" and trial.epochs:
        return "stopped"
    if info.status == "running":
        return "running"
    return "interrupted" if trial.epochs else "pending"


def _driver_is_gone(run: Path) -> bool:
    """Whether the process that holds the run is known to have ended.

    Only this host's processes can be known; of a copy of a bucket, a lease that has not been renewed.
    """
    if not (run / LOCK_FILE).exists():
        return _lease_ran_out(run / LEASE_FILE)
    try:
        holder = re.fullmatch(r"process (\d+) on (.+)", read_text(run / LOCK_FILE).strip())
    except (OSError, UnicodeDecodeError):
        return False
    if holder is None or holder.group(2) != socket.gethostname():
        return False
    try:
        os.kill(int(holder.group(1)), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _lease_ran_out(lease: Path) -> bool:
    try:
        return time.time() - lease.stat().st_mtime > EXPIRED
    except OSError:
        return False


def _trial_folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    marks = (RECORD_FILE, PARAMS_FILE, LOG_FILE, ERROR_FILE)
    own = [parent] if any((parent / mark).is_file() for mark in marks) else []
    inner = [
        path
        for path in parent.iterdir()
        if path.is_dir()
        and not path.name.startswith(GROUP_PREFIX)
        and any((path / mark).is_file() for mark in marks)
    ]
    return own or sorted(inner, key=lambda path: path.name)


def _read_mapping(path: Path, problems: list[str], *, needed: bool = False) -> dict[str, Any]:
    if not path.exists():
        if needed:
            problems.append(f"{path.name} is missing: the run's protocol, data set and status are not known")
        return {}
    return read_table(path, problems, str(path))


def _read_base(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{path.name} cannot be read: {error}")
        return {}


def _check_run(
    info: RunInfo, rows: Sequence[TrialRow], recorded: Sequence[str | None], problems: list[str], ended: bool
) -> None:
    hashes = sorted({row.store_hash for row in rows if row.store_hash})
    if len(hashes) > 1:
        problems.append(f"the trials were trained on {len(hashes)} different stores ({', '.join(hashes)})")
    problems += [
        f"two folders hold trial {name}; both are listed"
        for name, count in Counter(recorded).items()
        if name is not None and count > 1
    ]
    asked = info.trials
    search = [row for row in rows if row.kind == "search"]
    if asked is not None and len(search) < asked and not ended:
        problems.append(f"{asked - len(search)} of {asked} trials have not started")
    planned = planned_confirmation(info)
    begun = sum(row.kind == "confirm" for row in rows)
    if begun < len(planned):
        problems.append(
            f"{len(planned) - begun} of {len(planned)} trainings of the confirmation have not started"
        )
