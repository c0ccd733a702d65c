"""The driver's records of each trial, written as it runs: configuration, epoch log, error, notes.

A run is resumed from these files and the checkpoints (`tune.storage.history`). An epoch is in the log before anything
that follows from it is done; what was logged stays as it is, also where a trial repeats it after a worker failure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.result import SHOULD_CHECKPOINT

from macil.io.files import write_text_atomic
from tune.execution.trainable import NOTE
from tune.execution.tune_scheduler import for_tune
from tune.planning.run_spec import RunSpec, compose_config
from tune.storage.history import read_history
from tune.storage.names import ERROR_FILE, LOG_FILE, NOTES_FILE, PARAMS_FILE
from tune.storage.retry import StorageError, append_whole, with_retry
from tune.storage.sync import RunSync
from tune.storage.trial_log import TIME, report_line, trim_log
from tune.storage.trial_names import MEMBERS, NUMBER, SPEC, member_folders, trial_name
from tune.storage.trial_params import write_params

# When checkpoints are written depends on time, and nothing in the log should.
_DROPPED = (SHOULD_CHECKPOINT, NOTE)


class RunRecorder(Callback):
    """Writes each trial's `params.json`, `result.json`, `error.txt` and `notes.txt`.

    Args:
        log, stop: See `tune.storage.retry.with_retry`.
        sync: Brings what is written to where the run lies.

    Attributes:
        reasons: By trial, why it was ended from here: that is its error then.
        gave_up: Why nothing more could be written, once that is so.
    """

    def __init__(
        self,
        log: Callable[[str], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
        sync: RunSync | None = None,
    ) -> None:
        self._log = log or print
        self._stop = stop
        self._sync = sync or RunSync()
        self._logged: dict[Path, int] = {}
        self._ids: dict[Path, str] = {}
        self._failures: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        self.gave_up: StorageError | None = None

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Write the trial's configuration, and take up its log."""
        base = RunSpec.parse(trial.config[SPEC], "the run specification").base
        row = trial.config.get("row")
        for seed, folder in folders_of(trial).items():
            if folder in self._logged:
                continue  # another worker goes on with it
            history = read_history(folder.parent, folder.name)
            self._ids[folder] = trial_name(folder)
            self._logged[folder] = history.epochs
            config = compose_config(base, trial.config, None if seed is None else int(seed))
            write = partial(
                write_params,
                folder / PARAMS_FILE,
                config,
                number=trial.config.get(NUMBER),
                row=row and row["name"],
                trial_id=self._ids[folder],
            )
            self._write(write, folder / PARAMS_FILE)
            self._write(partial(trim_log, folder / LOG_FILE, self._logged[folder]), folder / LOG_FILE)
            (folder / ERROR_FILE).unlink(missing_ok=True)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """Append the epoch, unless it is in the log already.

        What Tune does not need is then taken out of `result`: Tune would keep it.
        """
        members = result.pop(MEMBERS, None)
        note = result.pop(NOTE, None)
        for seed, folder in folders_of(trial).items():
            if note:
                self._note(folder, str(note))
            if seed is None:
                self._append_epoch(folder, result)
            elif seed in (members or {}):
                self._append_epoch(folder, {**result, "reason": None, **members[seed]})
        for key in result.keys() - for_tune(result).keys():
            del result[key]
        self._kept(self._sync.check)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Keep Tune's account of a failure for later, and take it out of the folder: the trial has not failed."""
        self._failures[trial.trial_id] = self._failures.get(trial.trial_id, "") + _account(trial)
        _remove_account(trial)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Forget the failures of a trial that recovered; it counts as finished when its files are in the storage."""
        self._failures.pop(trial.trial_id, None)
        self._kept(self._sync.flush)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Write down all failures of a trial that failed for good."""
        text = self._failures.pop(trial.trial_id, "") + _account(trial)
        _remove_account(trial)
        reason = self.reasons.pop(trial.trial_id, None)
        text = f"{reason}\n" if reason else text or "failed\n"
        for folder in folders_of(trial).values():
            self._write(partial(write_text_atomic, folder / ERROR_FILE, text), folder / ERROR_FILE)
        self._kept(self._sync.flush)

    def _append_epoch(self, folder: Path, result: Mapping[str, Any]) -> None:
        epoch = int(result[TIME])
        if epoch <= self._logged.get(folder, 0):
            return
        report = {name: value for name, value in result.items() if name not in _DROPPED}
        text = report_line(report, self._ids.get(folder))
        self._write(partial(append_whole, folder / LOG_FILE, text), folder / LOG_FILE)
        self._logged[folder] = epoch
        if result.get("diverged"):
            reason = f"{result['reason']}\n"
            self._write(partial(write_text_atomic, folder / ERROR_FILE, reason), folder / ERROR_FILE)

    def _note(self, folder: Path, note: str) -> None:
        self._log(f"{folder.name}: {note}")
        self._write(partial(append_whole, folder / NOTES_FILE, f"{note}\n"), folder / NOTES_FILE)

    def _write(self, write: Callable[[], object], where: Path) -> None:
        self._kept(partial(with_retry, write, where, log=self._log, stop=self._stop))

    def _kept(self, write: Callable[[], object]) -> None:
        try:
            write()
        except StorageError as error:
            self.gave_up = error
            raise


def folders_of(trial: Trial) -> dict[str | None, Path]:
    """Seed to the folder of its row in the tables: the trial's own under None, or those of its group's seeds."""
    own, members = Path(str(trial.path)), member_folders(trial.config)
    folders: dict[str | None, Path] = {None: own}
    if members:
        folders = {seed: own.parent / name for seed, name in members.items()}
    for folder in (own, *folders.values()):
        folder.mkdir(parents=True, exist_ok=True)
    return folders


def _account(trial: Trial) -> str:
    """Tune's own account of a trial's failure."""
    try:
        return Path(str(trial.error_file)).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _remove_account(trial: Trial) -> None:
    for file in (trial.error_file, trial.pickled_error_file):
        if file:
            Path(file).unlink(missing_ok=True)
