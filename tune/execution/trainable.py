"""One Tune trial: one macil training, an epoch a step, on a worker that is reused from trial to trial."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from ray.tune.result import SHOULD_CHECKPOINT

from macil.data.opening import open_here
from macil.data.split import Split, make_split
from macil.data.store.feature_store import FeatureStore
from macil.errors import DataError, DivergedError, MacilError
from macil.io.notes import note
from macil.io.remote import Remote
from macil.training.checkpoint import save_checkpoint, write_state
from macil.training.member import Member
from macil.training.trainer import Trainer
from tune.cluster.host_check import check_host, data_error_of_host
from tune.execution.ray_internals import OwnCheckpoints
from tune.execution.save_policy import SavePolicy
from tune.execution.tune_scheduler import for_tune
from tune.execution.worker_messages import post
from tune.planning.run_spec import HostRequirements, RunSpec, compose_config
from tune.storage.history import mean_score
from tune.storage.names import (
    CHECKPOINT_PREFIX,
    RECORD_FILE,
    SAVED_FILE,
    SCORES_FILE,
    SPLIT_FILE,
    TRAINER_FILE,
)
from tune.storage.retry import with_retry
from tune.storage.saved_epochs import SavedEpochs
from tune.storage.trial_log import TIME
from tune.storage.trial_names import LOGGED, MEMBERS, SEEDS, SPEC, member_folders
from tune.storage.trial_storage import BucketStorage, FolderStorage, TrialStorage

_T = TypeVar("_T")

# In a result: what went wrong on the way to it, for people.
NOTE = "note"
# Of a seed in a group: replaced by each later one.
_MEMBER_CHECKPOINT = f"{CHECKPOINT_PREFIX}000000"


class MacilTrainable(OwnCheckpoints):
    """Trains the configuration that Tune hands over.

    A training goes on from the last good checkpoint in its folder, on a new worker after a failure as in a resumed
    search. Its first result is that of the epoch after the checkpoint, or of the first one that is not in the log;
    what the checkpoint is ahead is reported from its history. A diverged training ends with `diverged` and its reason
    instead of a score; retrying it would give the same. The result asks for a checkpoint when one is due
    (`tune.execution.save_policy`); Tune saves at the end of a trial in any case, and `cleanup` when the search is
    stopped.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Build the trainer on a new worker."""
        self._saves = SavePolicy()
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial on this worker; the store and the bags stay."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._saves.begun()
        self._bucket: str | None = config[SPEC]["bucket"]
        self._trainer: Trainer | None = None
        self._refusal: MacilError | None = None
        self._whole = True  # not in the middle of an epoch
        self._unsaved = 0
        self._notes: list[str] = []
        # Epochs that were reported before: Tune begins to count anew on a new worker.
        self._reported: int | None = int(config.get(LOGGED, 0))
        try:
            self._trainer = self._build(config)
        except MacilError as error:
            # Raised in the first step: an exception here would look like a worker that cannot start.
            self._refusal = error
            return
        for storage, member in self._members(self._trainer):
            self._retry(partial(storage.write_json, RECORD_FILE, self._trainer.record(member)), storage)

    def _build(self, config: dict[str, Any], most: int | None = None) -> Trainer:
        """The trainer, in the state of the last good checkpoint, or of the first epoch if that is beyond `most`."""
        storage = self._storage_of_trial()
        content = config[SPEC]
        # A host of another version may not even know the fields of the specification: versions are checked first.
        check_host(content["hosts"] and HostRequirements.parse(content["hosts"], "the requirements of hosts"))
        trainer = build_trainer(RunSpec.parse(content, "the run specification"), config, self._log)
        state = self._retry(partial(storage.last_good, self._notes.append), storage)
        if state is not None and (most is None or state["epoch"] <= most):
            trainer.load_state_dict(state)
        if self.stored:
            self.number_checkpoints_from(self._retry(storage.newest_number, storage))
        return trainer

    def step(self) -> dict[str, Any]:
        """The next epoch's metrics.

        Raises:
            MacilError: The configuration or the data were refused.
        """
        trainer = self._ready()
        if self._reported is not None:
            self.count_on(min(self._reported, trainer.epoch))
            self._reported = None
        epoch, before = self.iteration + 1, trainer.epoch
        started = time.monotonic()
        self._whole = False
        _train_until(trainer, epoch)
        results = _results(trainer, epoch)
        if SEEDS in self.config:
            result = _result_of_group(results, epoch, done=trainer.finished)
        else:
            (result,) = results.values()
        self._whole = not result["diverged"]
        self._unsaved += trainer.epoch - before
        if not result["diverged"]:
            self._saves.trained(time.monotonic() - started)
            result[SHOULD_CHECKPOINT] = self._saves.due
        if self._notes:
            result[NOTE] = "; ".join(self._notes)
            self._notes = []
        return result

    def log_result(self, result: dict[str, Any]) -> None:
        """Leave out the configuration, which Ray puts into every result: Tune has it with the trial."""
        result.pop("config", None)
        super().log_result(result)

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Write a checkpoint to the run's storage, and note what that cost."""
        started = time.monotonic()
        saved = super().save(checkpoint_dir)
        self._saves.saved(time.monotonic() - started)
        self._unsaved = 0
        saved.metrics = for_tune(saved.metrics)
        return saved

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the trainer's state and the test scores it keeps; of several seeds also each into its own folder.

        The state is that of the last epoch reported: a trainer that is ahead of it is trained again up to there.
        """
        trainer = self._ready()
        if trainer.epoch > self.iteration:
            self._trainer = trainer = self._build(self.config, self.iteration)
            _train_until(trainer, self.iteration)
        if SEEDS not in self.config:
            _write_member(trainer, trainer.members[0], Path(checkpoint_dir))
            return
        save_checkpoint(trainer, Path(checkpoint_dir) / TRAINER_FILE)
        SavedEpochs(last=trainer.epoch, chosen=None).write(Path(checkpoint_dir) / SAVED_FILE)
        for storage, member in self._members(trainer):
            with tempfile.TemporaryDirectory(prefix="macil-") as scratch:
                _write_member(trainer, member, Path(scratch))
                self._retry(partial(storage.put_over, Path(scratch), _MEMBER_CHECKPOINT), storage)

    def put_checkpoint(self, folder: Path, name: str) -> str:
        """Put a checkpoint into the trial's folder; waits for storage that is full."""
        storage = self._storage_of_trial()
        return self._retry(partial(storage.put, folder, name), f"{storage}/{name}")

    def restore(self, checkpoint_path: Any) -> None:
        """Go on after a worker failure, from the last good checkpoint, which `setup` has loaded."""
        if self._reported is not None:
            self._reported = max(self._reported, int(checkpoint_path.metrics.get(TIME, 0)))
        self.count_as_restored()

    def cleanup(self) -> None:
        """Save what is not saved yet, when the search is stopped before the trial has ended."""
        if self._trainer is not None and self._whole and self._unsaved and self.stored:
            self.save()

    def _retry(self, do: Callable[[], _T], where: object) -> _T:
        return with_retry(do, str(where), log=self._log)

    def _log(self, text: str) -> None:
        """Send a worker message to the search."""
        post(self._storage_of_trial().name, text)

    def _members(self, trainer: Trainer) -> list[tuple[TrialStorage, Member]]:
        """Storage and seed of every row of the tables."""
        storage, folders = self._storage_of_trial(), member_folders(self.config)
        return [
            (storage.sibling(folders[str(member.seed)]) if folders else storage, member)
            for member in trainer.members
        ]

    def _ready(self) -> Trainer:
        if self._trainer is None:
            raise self._refusal or DataError("the trial has no training")
        return self._trainer

    def _storage_of_trial(self) -> TrialStorage:
        """The trial's folder in the run: `logdir` is a scratch folder on this worker."""
        storage = self.stored
        if storage is None:
            return FolderStorage(Path(self.logdir))
        if self._bucket is None:
            return FolderStorage(Path(storage.trial_fs_path))
        # The folder that Tune knows is the driver's working copy.
        return BucketStorage(
            Remote(self._bucket).child(storage.experiment_dir_name, str(storage.trial_dir_name))
        )


def _train_until(trainer: Trainer, epoch: int) -> None:
    """Train up to `epoch`, or until every seed has diverged."""
    while trainer.epoch < epoch and not trainer.finished:
        with contextlib.suppress(DivergedError):  # `Member.error` says so
            trainer.train_epoch()


def _results(trainer: Trainer, epoch: int) -> dict[str, dict[str, Any]]:
    """Seed to what an epoch, from 1, has given; a seed that diverged before is left out."""
    results: dict[str, dict[str, Any]] = {}
    for member in trainer.members:
        if len(member.history) >= epoch:
            ends = {"diverged": False, "done": epoch >= member.config.epochs}
            results[str(member.seed)] = {**member.history[epoch - 1], **ends}
        elif member.error is not None and len(member.history) == epoch - 1:
            results[str(member.seed)] = {
                "epoch": epoch,
                "selection_score": None,
                "diverged": True,
                "reason": str(member.error),
                "done": True,
            }
    return results


def _result_of_group(members: dict[str, dict[str, Any]], epoch: int, *, done: bool) -> dict[str, Any]:
    """The results of several seeds as one, with their mean score."""
    result: dict[str, Any] = {
        "epoch": epoch,
        "selection_score": mean_score(member["selection_score"] for member in members.values()),
        "diverged": all(member["diverged"] for member in members.values()),
        "done": done,
        MEMBERS: members,
    }
    return result | ({"reason": "every seed has diverged"} if result["diverged"] else {})


def _write_member(trainer: Trainer, member: Member, folder: Path) -> None:
    """The checkpoint of one seed, the test scores it keeps, and which epochs they are of."""
    write_state(trainer.state_of(member), folder / TRAINER_FILE)
    SavedEpochs(last=member.epoch, chosen=member.chosen_epoch).write(folder / SAVED_FILE)
    np.savez(folder / SCORES_FILE, allow_pickle=False, **member.test_scores)


_STORES: dict[str, FeatureStore] = {}


def build_trainer(
    spec: RunSpec, hyperparameters: Mapping[str, Any], log: Callable[[str], None] = note
) -> Trainer:
    """The trainer of a trial, of its `seed` or of all its `seeds`.

    Args:
        spec: What the run's trials share.
        hyperparameters: The trial's own: suggestions and seed by name, or a sweep's `row` with its changes. Keys that
            are no hyperparameters are ignored.
        log: Called with messages while the data are copied to this host, which takes time.

    Raises:
        MacilError: The configuration is refused, or data or split are not those of the run.
        HostError: This host of a cluster does not have the data.
    """
    config = compose_config(spec.base, hyperparameters)
    store = _open_store(spec, log)
    split = _load_split(spec, store) if spec.protocol == "heldout" else None
    return Trainer(config, store, seeds=hyperparameters.get(SEEDS), split=split, **spec.training_settings())


def _open_store(spec: RunSpec, log: Callable[[str], None]) -> FeatureStore:
    key = f"{spec.store} {spec.store_hash}"
    if key not in _STORES:
        hashes = (spec.store_hash, spec.labels_hash)
        if spec.hosts is None:
            # One machine: what the search has opened is here, or is gone.
            _STORES[key] = open_here(spec.store, spec.store, hashes, log, copy=False)
            return _STORES[key]
        try:
            _STORES[key] = open_here(spec.store, spec.data, hashes, log, reading=spec.reading)
        except DataError as error:
            raise data_error_of_host(error) from None
    return _STORES[key]


def _recorded_split(spec: RunSpec) -> Split | None:
    """The split.json of the run, from its folder or its bucket; None where neither has it."""
    path = Path(spec.split or "")
    if path.is_file():
        return Split.load(path)
    if spec.bucket is None:
        return None
    bucket = Remote(spec.bucket)
    try:
        content = bucket.read(SPLIT_FILE)
    except FileNotFoundError:
        return None
    return Split.parse(content.decode("utf-8", "replace"), f"{bucket}/{SPLIT_FILE}")


def _load_split(spec: RunSpec, store: FeatureStore) -> Split:
    split = _recorded_split(spec)
    # On a host that does not see the run folder the split is made again; the hash says whether it is the same one.
    split = split or make_split(store, spec.split_seed, spec.split_by)
    if split.hash != spec.split_hash:
        raise DataError(
            f"the held-out split has the hash {split.hash}, the run was begun with {spec.split_hash}"
        )
    return split
