"""Running trials under Tune: fresh or resumed, and again when Ray gives up on a shortage of memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search.searcher import Searcher

from macil.errors import MacilError
from tune.display import Display
from tune.groups import folder_name
from tune.interrupts import Interrupts
from tune.snapshots import RunRecorder, roll_back
from tune.trainable import MacilTrainable
from tune.workspace import Workspace

# Ray's memory monitor ends the whole run, whatever a trial may survive; the run is then resumed this often.
_RESTORES = 3
# Lost workers and hosts. A trial's own exception is retried once (tune.snapshots).
_MAX_FAILURES = 3
# A snapshot follows at the latest this many checkpoints after the last one, so they are not removed before it.
_CHECKPOINTS_KEPT = 4


@dataclass(frozen=True)
class Batch:
    """A set of trials in one of Tune's experiments.

    Attributes:
        kind: Folder below the run: `trials` or `refit`.
        config: Configuration of the trials, with Tune's grids in it for a fixed list.
        samples: Suggestions to ask for; 1 for a fixed list.
        searcher, scheduler: Makers of both; a restore needs new ones.
        retry_failed: Whether a resume tries failed trials again; in a search their rows have failed for good.
    """

    kind: str
    config: dict[str, Any]
    samples: int
    concurrent: int
    cpus: float
    gpus: float
    retry_failed: bool
    searcher: Callable[[], Searcher] | None = None
    scheduler: Callable[[], TrialScheduler] | None = None


class WorkersKilledError(MacilError):
    """Ray ended the run again and again; it can be resumed with fewer trials at once."""


def run_batch(
    run: Workspace, batch: Batch, display: Display, interrupts: Interrupts, *, resume: bool, debug: bool
) -> None:
    """Run all trials of a batch to their ends; returns early when `interrupts` says so.

    Raises:
        WorkersKilledError: Ray's memory monitor ended the run several times.
    """
    _hush(debug)
    for attempt in range(_RESTORES + 1):
        try:
            _run_once(run, batch, display, interrupts, resume=resume or attempt > 0, debug=debug)
            return
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            if attempt == _RESTORES or interrupts.exit_code is not None:
                raise WorkersKilledError(
                    f"Ray ended the run {attempt + 1} times: {reason}; go on with --resume {run.name} when there is "
                    "more memory, or start anew with a smaller --concurrent"
                ) from error
            display.say(f"Ray ended the run ({reason}); resuming it from the last snapshot")


def _run_once(
    run: Workspace, batch: Batch, display: Display, interrupts: Interrupts, *, resume: bool, debug: bool
) -> None:
    journal = run.journal if batch.searcher else None
    experiment, snapshots = run.experiment(batch.kind), run.snapshots(batch.kind)
    resumed = roll_back(snapshots, experiment, journal) if resume else False
    recorder = RunRecorder(snapshots, journal, resumed=resumed)
    experiment.mkdir(parents=True, exist_ok=True)
    interrupts.tuning = True
    try:
        interrupts.check()
        with display.shown(batch.kind):
            tune.run(
                MacilTrainable,
                name=batch.kind,
                storage_path=str(run.path),
                config=batch.config,
                num_samples=batch.samples,
                search_alg=batch.searcher() if batch.searcher else None,
                scheduler=batch.scheduler() if batch.scheduler else None,
                max_concurrent_trials=batch.concurrent,
                resources_per_trial={"cpu": batch.cpus, "gpu": batch.gpus},
                reuse_actors=True,
                max_failures=_MAX_FAILURES,
                raise_on_failed_trial=False,
                # In between, a trial's worker says when one is due (tune.saving).
                checkpoint_config=tune.CheckpointConfig(
                    checkpoint_frequency=0, checkpoint_at_end=True, num_to_keep=_CHECKPOINTS_KEPT
                ),
                callbacks=[recorder, display.callback(interrupts)],
                trial_dirname_creator=trial_folder_name,
                resume_config=_resume_config(batch) if resumed else None,
                verbose=2 if debug else 0,
            )
    finally:
        interrupts.tuning = False


def trial_folder_name(trial: Trial) -> str:
    """The trial's folder, see `tune.groups.folder_name`; the same again after a restore."""
    return folder_name(trial.config)


def _resume_config(batch: Batch) -> tune.ResumeConfig:
    kinds: Any = tune.ResumeConfig.ResumeType  # Ray declares the fields as str and takes members of this
    return tune.ResumeConfig(
        unfinished=kinds.RESUME,
        finished=kinds.SKIP,
        errored=kinds.RESUME if batch.retry_failed else kinds.SKIP,
    )


def _hush(debug: bool) -> None:
    """Tune logs what this project says in its own words; only `--debug` shows both."""
    if not debug:
        for name in ("ray", "ray.tune", "ray.train"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
