"""The driver's record of a run: the epoch log of every trial, and snapshots that are whole.

Tune saves its own state every few seconds, file by file and in the background: a kill can leave a torn set, and the
study (written at once) ahead of it. So after each save its files are copied here into one folder, named into place in
one step, with the length of the study's journal and, for each trial, its last epoch and checkpoint. A resume puts this
moment back: Tune's files, the journal cut to its length, epoch logs cut to their lines, later checkpoints removed. What
came later happens again, with the same numbers, since trainings and suggestions are functions of what was put back.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.exceptions import RayTaskError
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.result import SHOULD_CHECKPOINT

from macil.errors import DataError
from macil.files import read_json, write_json_atomic, write_text_atomic
from tune.groups import MEMBERS, SEEDS, member_folders
from tune.scheduler import TIME, for_tune

# 2: trainings of version 0.1.0 of macil come out with other digits; a run must not hold both.
FORMAT_VERSION = 2
_MANIFEST = "snapshot.json"
_STATE_FILES = (
    "experiment_state-*.json",
    "searcher-state-*.pkl",
    "search_gen_state-*.json",
    "basic-variant-state-*.json",
    "callback-states-*.pkl",
)
_KEPT = 2
_CHECKPOINT = "checkpoint_"  # as Tune names the folders
# When checkpoints are written depends on time, and nothing in the log should.
_DROPPED = (SHOULD_CHECKPOINT,)


class RunRecorder(Callback):
    """Writes each trial's `params.json`, `result.json` and `error.txt`, and takes the snapshots.

    Args:
        snapshots: Folder of the snapshots.
        journal: The study's journal, None for a sweep.
        resumed: Whether Tune was asked to restore; if it then starts afresh, `setup` raises.
    """

    def __init__(self, snapshots: Path, journal: Path | None, *, resumed: bool) -> None:
        self._snapshots = snapshots
        self._journal = journal
        self._expected = resumed
        self._restored = False
        self._tune_saved = False
        self._logged: dict[str, int] = {}
        self._diverged: set[Path] = set()

    def setup(self, *_: Any, **__: Any) -> None:
        """Refuse to go on when Tune could not restore what it was asked to."""
        if self._expected and not self._restored:
            raise DataError(
                f"the state in {self._snapshots} could not be restored by this version of Ray; "
                "resume with the versions in run.json, or start anew with --overwrite"
            )

    def get_state(self) -> dict[str, Any]:
        """What Tune saves for this callback; its presence tells `set_state` that a restore took place.

        Tune asks for it each time it saves its state, and only then.
        """
        self._tune_saved = True
        return {"format_version": FORMAT_VERSION}

    def set_state(self, state: dict[str, Any]) -> None:
        """Note that Tune restored."""
        self._restored = bool(state)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Write the trial's configuration."""
        config = {key: value for key, value in trial.config.items() if key not in ("job", SEEDS)}
        row = config.pop("row", None)
        for seed, folder in _folders(trial).items():
            content = {
                **trial.config["job"]["base"],
                **(row or {}).get("changes", {}),
                **config,
                **({} if seed is None else {"seed": int(seed)}),
                "row": row and row["name"],
                "trial_id": _id(trial, seed),
            }
            write_json_atomic(folder / "params.json", content)
            self._logged.setdefault(_id(trial, seed), _last_epoch(folder / "result.json"))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """Append the epoch; a recovered trial's repeated epochs replace those logged before.

        What Tune does not need is then taken out of `result`: Tune would keep it.
        """
        members = result.pop(MEMBERS, None)
        for seed, folder in _folders(trial).items():
            if seed is None:
                self._log(folder, trial.trial_id, result)
            elif seed in (members or {}):
                self._log(folder, _id(trial, seed), {**result, "reason": None, **members[seed]})
        for key in result.keys() - for_tune(result).keys():
            del result[key]

    def _log(self, folder: Path, trial_id: str, result: dict[str, Any]) -> None:
        log, epoch = folder / "result.json", int(result[TIME])
        if epoch <= self._logged.get(trial_id, 0):
            cut_log(log, epoch - 1)
        line = {key: _json_value(value) for key, value in result.items() if key not in _DROPPED}
        line["trial_id"] = trial_id
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        self._logged[trial_id] = epoch
        if result.get("diverged"):
            write_text_atomic(log.with_name("error.txt"), f"{result['reason']}\n")
            self._diverged.add(folder)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Grant the trial's own exceptions one retry; lost workers and nodes keep Tune's `max_failures`."""
        if isinstance(failure(trial), RayTaskError):
            trial.max_failures = min(trial.max_failures, trial.num_failures)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Remove the errors of a trial that recovered: it has a result."""
        for folder in {*_folders(trial).values(), _folder(trial), Path(str(trial.local_path))}:
            if folder not in self._diverged and not trial.last_result.get("diverged"):
                (folder / "error.txt").unlink(missing_ok=True)
                (folder / "error.pkl").unlink(missing_ok=True)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Keep Tune's account of the failure at once, not at its next save."""
        if trial.error_file and Path(trial.error_file).exists():
            text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
            for folder in _folders(trial).values():
                write_text_atomic(folder / "error.txt", text)

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Take a snapshot when Tune has saved its state in this step: same thread, so all files belong together."""
        self._snapshot(trials)

    def on_experiment_end(self, trials: list[Trial], **_: Any) -> None:
        """Take the last snapshot; Tune saves once more on its way out."""
        self._snapshot(trials)

    def _snapshot(self, trials: list[Trial]) -> None:
        if not self._tune_saved or not trials or trials[0].storage is None:
            return
        self._tune_saved = False
        staging = Path(trials[0].storage.experiment_driver_staging_path)
        begun = {str(trial.relative_logdir): trial for trial in trials if trial.relative_logdir}
        write_snapshot(
            self._snapshots,
            [file for pattern in _STATE_FILES if (file := _newest(staging.glob(pattern)))],
            journal_bytes=self._journal.stat().st_size if self._journal and self._journal.exists() else None,
            epochs={
                name: _reported(trial)
                for folder, trial in begun.items()
                for name in (folder, *member_folders(trial.config).values())
            },
            checkpoints={
                folder: trial.storage.current_checkpoint_index
                for folder, trial in begun.items()
                if trial.storage is not None
            }
            # The one checkpoint of a seed in a group is replaced at every save.
            | {name: 0 for trial in begun.values() for name in member_folders(trial.config).values()},
        )


def write_snapshot(
    snapshots: Path,
    files: Iterable[Path],
    *,
    journal_bytes: int | None,
    epochs: dict[str, int],
    checkpoints: dict[str, int],
) -> None:
    """Copy `files` and a manifest into a new numbered folder, in one step; older ones but the last few are removed.

    Args:
        snapshots: Where to.
        files: Tune's state.
        journal_bytes: Length of the study's journal.
        epochs: The last epoch of each trial, by its folder.
        checkpoints: The number of each trial's newest checkpoint, -1 without any.
    """
    numbers = _numbers(snapshots)
    target = snapshots / f"{(numbers[-1] if numbers else 0) + 1:06d}"
    building = snapshots / f".{target.name}.tmp"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    for file in files:
        shutil.copyfile(file, building / file.name)
    manifest = {
        "format_version": FORMAT_VERSION,
        "journal_bytes": journal_bytes,
        "epochs": epochs,
        "checkpoints": checkpoints,
    }
    write_json_atomic(building / _MANIFEST, manifest)
    os.replace(building, target)
    for number in numbers[: max(0, len(numbers) + 1 - _KEPT)]:
        shutil.rmtree(snapshots / f"{number:06d}", ignore_errors=True)


def roll_back(snapshots: Path, experiment: Path, journal: Path | None) -> bool:
    """Put the newest snapshot back: Tune's state files, the study's journal and the epoch logs.

    Returns:
        Whether there was one. If not, the run was stopped before anything was worth keeping and has been cleared.

    Raises:
        DataError: The snapshot has another format version, or the journal is shorter than it was.
    """
    numbers = _numbers(snapshots)
    if journal is not None:
        _remove_stale_locks(journal)
    if not numbers:
        shutil.rmtree(experiment, ignore_errors=True)
        if journal is not None:
            journal.unlink(missing_ok=True)
        return False
    snapshot = snapshots / f"{numbers[-1]:06d}"
    manifest = read_json(snapshot / _MANIFEST)
    if manifest["format_version"] != FORMAT_VERSION:
        raise DataError(
            f"{snapshot} has format_version {manifest['format_version']}; this version reads {FORMAT_VERSION}: "
            "resume with the version the run was begun with (run.json), or begin a new run"
        )
    if journal is not None and manifest["journal_bytes"] is not None:
        _cut_journal(journal, manifest["journal_bytes"])
    experiment.mkdir(parents=True, exist_ok=True)
    _put_back(snapshot, experiment)
    for folder in [path for path in experiment.iterdir() if path.is_dir() and not path.name.startswith(".")]:
        if folder.name in manifest["epochs"]:
            epoch = manifest["epochs"][folder.name]
            cut_log(folder / "result.json", epoch)
            _remove_later_checkpoints(folder, manifest["checkpoints"][folder.name])
        else:
            # Begun after the snapshot: Tune does not know it and will begin it again under the same name.
            shutil.rmtree(folder)
    return True


def cut_log(log: Path, last: int) -> None:
    """Keep the whole lines of an epoch log up to epoch `last`, each epoch once (its last report)."""
    if not log.exists():
        return
    lines: dict[int, str] = {}
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            epoch = int(json.loads(line)[TIME])
        except (ValueError, KeyError, TypeError):
            continue
        if epoch <= last:
            lines[epoch] = line
    write_text_atomic(log, "".join(f"{lines[epoch]}\n" for epoch in sorted(lines)))


def failure(trial: Trial) -> BaseException | None:
    """The exception that ended a trial, None when it has none or it cannot be read."""
    if not trial.pickled_error_file:
        return None
    try:
        error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    except Exception:
        # The exception's class may not exist here; its text is in error.txt all the same.
        return None
    return error if isinstance(error, BaseException) else None


def _folder(trial: Trial) -> Path:
    folder = Path(str(trial.path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _folders(trial: Trial) -> dict[str | None, Path]:
    """Seed to the folder of its row in the tables: the trial's own under None, or those of its group's seeds."""
    own, members = _folder(trial), member_folders(trial.config)
    if not members:
        return {None: own}
    folders: dict[str | None, Path] = {seed: own.parent / name for seed, name in members.items()}
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    return folders


def _id(trial: Trial, seed: str | None) -> str:
    return trial.trial_id if seed is None else f"{trial.trial_id}_seed{seed}"


def _reported(trial: Trial) -> int:
    return int(trial.last_result.get(TIME) or 0) if trial.has_reported_at_least_once else 0


def _last_epoch(log: Path) -> int:
    if not log.exists():
        return 0
    epochs = [0]
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            epochs.append(int(json.loads(line)[TIME]))
        except (ValueError, KeyError, TypeError):
            continue
    return max(epochs)


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict | list | str | int | float | bool) or value is None:
        return value
    return str(value)


def _newest(files: Iterable[Path]) -> Path | None:
    return max(files, key=lambda file: file.stat().st_mtime_ns, default=None)


def _numbers(snapshots: Path) -> list[int]:
    if not snapshots.is_dir():
        return []
    return sorted(int(path.name) for path in snapshots.iterdir() if path.name.isdigit())


def _put_back(snapshot: Path, experiment: Path) -> None:
    for pattern in _STATE_FILES:
        for file in experiment.glob(pattern):
            file.unlink()
    for file in snapshot.iterdir():
        if file.name != _MANIFEST:
            shutil.copyfile(file, experiment / file.name)


def _cut_journal(journal: Path, size: int) -> None:
    if not journal.exists() or journal.stat().st_size < size:
        raise DataError(
            f"{journal} is shorter than when the run was last saved ({size} bytes): it was replaced or damaged; "
            "put it back, or start anew with --overwrite"
        )
    with journal.open("rb+") as file:
        file.truncate(size)


def _remove_later_checkpoints(folder: Path, newest: int) -> None:
    # Written after the snapshot. The trial will save at other epochs than it did, so one of these could keep a higher
    # number, and pass for the newest, than the checkpoint of the trial's end.
    for checkpoint in folder.glob(f"{_CHECKPOINT}*"):
        number = checkpoint.name.removeprefix(_CHECKPOINT)
        if number.isdigit() and int(number) > newest:
            shutil.rmtree(checkpoint)


def _remove_stale_locks(journal: Path) -> None:
    # Optuna's lock is a symbolic link that a killed driver leaves behind; the run's own lock says nobody else writes.
    for lock in journal.parent.glob(f"{journal.name}.lock*"):
        lock.unlink(missing_ok=True)
