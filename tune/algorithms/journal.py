"""The study's file: Optuna's journal, one JSON operation a line, written whole and repaired after a kill.

The run's own lock (`tune.storage.run_folder.locked`) says that nobody else writes, so that no lock file is needed
that a killed process would leave behind.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from macil.errors import DataError
from macil.io.files import atomic_path
from macil.io.text import brief
from tune.algorithms.optuna_internals import JournalOperation
from tune.storage.retry import append_whole, with_retry

# What a line that is no operation raises, in our reading of it or in Optuna's.
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, AssertionError)
# Attribute of a row, written last of all that a suggestion writes.
TRIAL_ID = "tune_trial_id"


class Journal(JournalFileBackend):
    """The file of one writer.

    Args:
        path: The file; made if absent.
        log, stop: See `tune.storage.retry.with_retry`.
    """

    def __init__(
        self, path: Path, log: Callable[[str], None] | None = None, stop: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__(str(path))
        self._path = path
        self._log = log
        self._stop = stop

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append operations, all of them or none."""
        text = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in logs)
        with_retry(lambda: append_whole(self._path, text), self._path, log=self._log, stop=self._stop)


def open_journal(
    path: Path, log: Callable[[str], None] | None = None, stop: Callable[[], bool] = lambda: False
) -> JournalStorage:
    """The journal file as an Optuna storage.

    Raises:
        DataError: Optuna cannot read an operation in it.
    """
    try:
        return JournalStorage(Journal(path, log, stop))
    except _DAMAGE as error:
        raise DataError(
            f"{path} is damaged: an operation in it cannot be read ({type(error).__name__}: {brief(str(error))}); "
            "put it back from a copy, or begin a new run with --overwrite"
        ) from None


def repair_journal(path: Path) -> str | None:
    """Cut what a kill tore: a line without its end, and a suggestion that was being written.

    A suggestion is a function of the rows before it, so the same one is made again. A line that is damaged otherwise
    ends the file as well: the rows behind it are in the trials' folders.

    Returns:
        A message about what was cut; None where only a torn end was, which a kill leaves.
    """
    if not path.exists():
        return None
    content = path.read_bytes()
    begun: dict[int, int] = {}  # rows without their TRIAL_ID -> the first byte of their suggestion
    message, offset, rows = None, 0, 0
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        try:
            rows = _follow(_parse(line), offset, begun, rows)
        except _DAMAGE:
            if line.endswith(b"\n"):
                message = (
                    f"{path} is damaged from line {number} on: the rows behind it are made again from the "
                    "trials' folders"
                )
            break
        offset += len(line)
    clean = min(begun.values(), default=offset)
    if clean < len(content):
        with atomic_path(path) as temporary:
            temporary.write_bytes(content[:clean])
    return message


def _parse(line: bytes) -> dict[str, Any]:
    """One operation; one of `_DAMAGE` is raised if the line is torn or damaged."""
    operation = json.loads(line)
    if not isinstance(operation, dict) or not line.endswith(b"\n"):
        raise ValueError("no operation")
    return {**operation, "op_code": JournalOperation(operation["op_code"])}


def _follow(operation: dict[str, Any], offset: int, begun: dict[int, int], rows: int) -> int:
    """Note in `begun` which rows are being suggested; returns the number of rows."""
    code, row = operation["op_code"], int(operation.get("trial_id", -1))
    if code == JournalOperation.CREATE_TRIAL:
        state = operation.get("state", TrialState.RUNNING)  # only a row made as a whole says its state
        if state == TrialState.RUNNING and TRIAL_ID not in (operation.get("user_attrs") or {}):
            begun[rows] = offset
        return rows + 1
    if code == JournalOperation.SET_TRIAL_STATE_VALUES and operation["state"] == TrialState.RUNNING:
        begun.setdefault(row, offset)  # an enqueued row is taken
    elif code == JournalOperation.SET_TRIAL_STATE_VALUES or (
        code == JournalOperation.SET_TRIAL_USER_ATTR and TRIAL_ID in operation["user_attr"]
    ):
        begun.pop(row, None)
    return rows
