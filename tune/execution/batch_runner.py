"""Running a batch of trials under Tune, from the beginning or from the state of its folders."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search.searcher import Searcher

from macil.io.files import write_text_atomic
from tune.algorithms.journal import repair_journal
from tune.algorithms.study import SearchStudy
from tune.execution.deadline import Deadline
from tune.execution.epoch_log import RunRecorder
from tune.execution.failure_policy import MAX_WORKER_FAILURES, FailurePolicy
from tune.execution.interrupts import Interrupts
from tune.execution.progress import Display, SilentReporter
from tune.execution.ray_internals import without_experiment_state
from tune.execution.trainable import MacilTrainable
from tune.execution.tune_search import ListSearch, StudySearch
from tune.execution.worker_failures import tolerating_worker_failures
from tune.planning.run_spec import RunSpec
from tune.storage.history import TrialHistory, read_listed, read_numbered
from tune.storage.names import ERROR_FILE, TUNE_FILES
from tune.storage.retry import StorageError
from tune.storage.run_folder import Workspace
from tune.storage.trial_names import SPEC, folder_name

_LABELS = {"trials": "trials", "confirm": "confirmations", "refit": "refits"}


@dataclass(frozen=True)
class Batch:
    """A set of trials in one of Tune's experiments.

    Attributes:
        kind: Folder below the run: `trials`, `confirm` or `refit`.
        spec: What all of its trials share.
        total: Trials altogether.
        points: Their configurations, for a fixed list; failed ones are tried again when the run is resumed.
        study: Maker of what suggests them else, from the pasts by number; there, failed ones have failed for good.
        scheduler: Maker of what stops them early, from the pasts by folder.
        timeout: Seconds without a report after which a trial is ended.
    """

    kind: str
    spec: RunSpec
    total: int
    concurrent: int
    cpus: float
    gpus: float
    timeout: float
    points: Sequence[Mapping[str, Any]] = ()
    study: Callable[..., SearchStudy] | None = None
    scheduler: Callable[[Mapping[str, TrialHistory]], TrialScheduler] | None = None


def run_batch(
    run: Workspace,
    batch: Batch,
    display: Display,
    interrupts: Interrupts,
    deadline: Deadline | None = None,
    *,
    debug: bool,
) -> None:
    """Run what is left of a batch to its end; returns early when `interrupts` or `deadline` says so.

    Raises:
        StorageError: The storage stayed full or out of reach.
        SearchStoppedError: Trial after trial failed in the same way.
    """
    _hush(debug)

    def stop() -> bool:
        return interrupts.exit_code is not None

    experiment = run.experiment(batch.kind)
    histories: dict[str, TrialHistory]
    if batch.study is not None:
        message = repair_journal(run.journal)
        if message:
            display.log(message)
        numbered = read_numbered(experiment)
        study = batch.study(histories=numbered, log=display.log, stop=stop)
        search: Searcher = StudySearch(study)
        failed = study.failed
        histories = {
            history.name: replace(history, failed=number in failed) for number, history in numbered.items()
        }
        _write_reasons(experiment, [history for history in histories.values() if history.failed], failed)
        left = study.open_rows + batch.total - study.rows
    else:
        listed = read_listed(experiment, batch.points)
        histories = {history.name: history for history in listed}
        open_points = [
            (point, history.epochs)
            for point, history in zip(batch.points, listed, strict=True)
            if not history.ended
        ]
        search, left = ListSearch(open_points), len(open_points)
    _log_what_is_there(batch, histories, display)
    if left <= 0:
        return
    experiment.mkdir(parents=True, exist_ok=True)
    run.sync.report_to(display.log, stop)
    recorder = RunRecorder(display.log, stop, run.sync)
    policy = FailurePolicy(recorder, interrupts, display.log, batch.timeout)
    interrupts.tuning = True
    try:
        interrupts.check()
        with display.shown(batch.kind), tolerating_worker_failures(policy.recovers), _tidied(experiment):
            display.recall(_ended(histories))
            tune.run(
                MacilTrainable,
                name=batch.kind,
                storage_path=str(run.path),
                config={SPEC: batch.spec.model_dump(mode="json")},
                num_samples=left,
                search_alg=search,
                scheduler=batch.scheduler(histories) if batch.scheduler else None,
                max_concurrent_trials=batch.concurrent,
                resources_per_trial={"cpu": batch.cpus, "gpu": batch.gpus},
                reuse_actors=True,
                max_failures=MAX_WORKER_FAILURES,
                raise_on_failed_trial=False,
                # In between, a trial's worker says when one is due (tune.execution.save_policy), and removes old ones
                # itself.
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=True),
                callbacks=[policy, display.callback(policy), recorder, *([deadline] if deadline else [])],
                trial_dirname_creator=trial_folder_name,
                verbose=2 if debug else 0,
                progress_reporter=None if debug else SilentReporter(),
            )
    except Exception as error:
        interrupts.check()
        # Tune wraps what a callback raises into an error of its own, as text.
        raise recorder.gave_up or error from None
    finally:
        interrupts.tuning = False
    if interrupts.exit_code is None and (recorder.gave_up or policy.stopped):
        raise recorder.gave_up or policy.stopped or StorageError("")


def trial_folder_name(trial: Trial) -> str:
    """The trial's folder, see `tune.storage.trial_names.folder_name`."""
    return folder_name(trial.config)


def _ended(histories: Mapping[str, TrialHistory]) -> list[TrialHistory]:
    """The trials that have ended and are not run again."""
    return [history for history in histories.values() if history.ended or history.failed]


def _log_what_is_there(batch: Batch, histories: Mapping[str, TrialHistory], display: Display) -> None:
    """Log how many trials a resumed run finds, by state."""
    begun = [history for history in histories.values() if history.begun]
    if not begun:
        return
    failed = sum(history.diverged or history.failed for history in begun)
    finished = sum(history.ended and not history.diverged for history in begun)
    going = [history for history in begun if not history.ended and not history.failed]
    parts = [f"{finished} finished", *([f"{failed} failed"] if failed else [])]
    if going:
        parts.append(
            f"{len(going)} to go on with ({sum(history.epochs for history in going)} epochs in their logs)"
        )
    parts.append(f"{batch.total - len(begun)} not begun")
    display.log(f"resuming {batch.total} {_LABELS[batch.kind]}: {', '.join(parts)}")


def _write_reasons(experiment: Path, histories: Sequence[TrialHistory], reasons: Mapping[int, str]) -> None:
    """A kill between the study and the folder: the study alone says that the trial failed."""
    for history in histories:
        if history.error is None:
            write_text_atomic(experiment / history.name / ERROR_FILE, f"{reasons[int(history.name)]}\n")


@contextlib.contextmanager
def _tidied(experiment: Path) -> Iterator[None]:
    """Keep Tune's own state out of the run folder: a resume reads the trials' folders and nothing else."""
    try:
        with without_experiment_state():
            yield
    finally:
        for pattern in TUNE_FILES:
            for file in experiment.glob(pattern):
                file.unlink(missing_ok=True)


def _hush(debug: bool) -> None:
    """Tune logs what this project says in its own words; only `--debug` shows both."""
    if not debug:
        for name in ("ray", "ray.tune", "ray.train"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
