"""The treatment of trials that fail, hang, or all fail in the same way; and of a request to stop.

Tune replaces lost workers and hosts, up to `MAX_WORKER_FAILURES` times a trial. A trial's own exception is
tried once more, from its last checkpoint. Equal exceptions of several trials in a row are not the trials' fault.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import RayActorError, RayTaskError
from ray.tune import Callback
from ray.tune.experiment import Trial

from macil.errors import MacilError
from tune.cluster.host_check import HostError
from tune.execution.epoch_log import RunRecorder
from tune.execution.interrupts import Interrupts
from tune.execution.worker_messages import collect
from tune.storage.retry import REMIND, StorageError, trouble

MAX_WORKER_FAILURES = 3
# A trial's own exceptions after which it is tried again.
OWN_RETRIES = 1
# Equal final failures in a row that stop the run.
EQUAL_FAILURES = 3
# Seconds between two looks for messages of workers.
_LOOK = 1.0
# Seconds; a step of Tune waits for an event for a tenth of one.
_LONG_STEP = 5.0


class SearchStoppedError(MacilError):
    """The run was stopped because going on would only cost: its trials fail in the same way."""


class FailurePolicy(Callback):
    """Ends what hangs, decides what is tried again, and stops the run when that is asked for or called for.

    Args:
        recorder: Records why a trial was ended.
        interrupts: A wish to stop.
        log: Called with each message of a worker.
        timeout: Seconds without a report after which a trial is ended.

    Attributes:
        stopped: Why the run stops, once it does.
    """

    def __init__(
        self, recorder: RunRecorder, interrupts: Interrupts, log: Callable[[str], None], timeout: float
    ) -> None:
        self.stopped: MacilError | None = None
        self._recorder = recorder
        self._interrupts = interrupts
        self._log = log
        self._timeout = timeout
        self._last_report: dict[str, tuple[Trial, float]] = {}
        self._hung: dict[str, str] = {}
        self._worker_failures: Counter[str] = Counter()
        self._raised: Counter[str] = Counter()
        self._equal: tuple[str, int] = ("", 0)
        self._last_step = self._last_look = time.monotonic()

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Look for trials that hang; pass on a wish to stop, when Tune is certain to listen."""
        if self._interrupts.exit_code is not None or self.stopped is not None:
            os.kill(os.getpid(), signal.SIGUSR1)
            return
        now = time.monotonic()
        if now - self._last_look > _LOOK:
            self._last_look = now
            self._read_messages(now)
        took, self._last_step = now - self._last_step, now
        # Time in which this process itself was held up, by a full disk or the machine's sleep, does not count.
        held = took if took > _LONG_STEP else 0.0
        for trial, reported in list(self._last_report.values()):
            self._last_report[trial.trial_id] = trial, reported + held
            if now - reported - held > self._timeout:
                self._end(trial)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """The clock of a trial begins."""
        self._last_report[trial.trial_id] = trial, time.monotonic()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """The clock of a trial begins anew: it has reported."""
        self._last_report[trial.trial_id] = trial, time.monotonic()

    def on_trial_save(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A save is a sign of life."""
        if trial.trial_id in self._last_report:
            self._last_report[trial.trial_id] = trial, time.monotonic()

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Stop the run where its storage or a host is at fault: it is resumed when that is put right."""
        self._last_report.pop(trial.trial_id, None)
        error = failure(trial)
        if isinstance(error, RayTaskError):
            self.stopped = self.stopped or _outside(error)

    def recovers(self, trial: Trial, error: Exception) -> bool:
        """Whether a trial goes on after a failure: its own exceptions and its worker failures are counted apart.

        Args:
            trial: Which.
            error: A `RayActorError` is a worker failure; one of a node that was preempted with a warning does not
                count.
        """
        if trial.trial_id in self._hung:
            return False
        if isinstance(error, RayActorError):
            self._worker_failures[trial.trial_id] += not error.preempted
            return self._worker_failures[trial.trial_id] <= MAX_WORKER_FAILURES
        if _outside(error) is None:
            self._raised[trial.trial_id] += 1
        return self._raised[trial.trial_id] <= OWN_RETRIES

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial that ends by itself is a reason to go on."""
        self._last_report.pop(trial.trial_id, None)
        self._equal = ("", 0)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Count failures that are the same as the one before."""
        self._last_report.pop(trial.trial_id, None)
        reason = self.reason_of(trial)
        kind, (last, count) = _kind(trial, reason), self._equal
        self._equal = kind, count + 1 if kind == last else 1
        if self._equal[1] >= EQUAL_FAILURES and self.stopped is None:
            self.stopped = SearchStoppedError(
                f"{EQUAL_FAILURES} trials in a row failed in the same way, so the run was stopped: {reason}; "
                "put that right, then go on with --resume, or begin a new run"
            )

    def reason_of(self, trial: Trial) -> str:
        """Why a trial failed, in one line."""
        hung = self._hung.get(trial.trial_id)
        return f"Timeout: {hung}" if hung else reason_of(trial)

    def _read_messages(self, now: float) -> None:
        """Whoever says that it waits does not hang."""
        for sender, text in collect():
            self._log(f"{sender}: {text}")
            for trial, _ in list(self._last_report.values()):
                if str(trial.relative_logdir) == sender:
                    self._last_report[trial.trial_id] = trial, now + REMIND

    def _end(self, trial: Trial) -> None:
        actor: Any = trial.temporary_state.ray_actor
        del self._last_report[trial.trial_id]
        if actor is None:
            return
        reason = f"no report for {self._timeout:g} s (--trial-timeout); it was ended"
        self._hung[trial.trial_id] = reason
        self._recorder.reasons[trial.trial_id] = f"TimeoutError: {reason}"
        ray.kill(actor)


def failure(trial: Trial) -> BaseException | None:
    """The exception that ended a trial, None when it has none or it cannot be read.

    Tune has pickled it on this machine, into its own session's folder.
    """
    if not trial.pickled_error_file:
        return None
    try:
        error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    except Exception:
        # The exception's class may not exist here; its text is in error.txt all the same.
        return None
    return error if isinstance(error, BaseException) else None


def reason_of(trial: Trial) -> str:
    """Why a trial failed, in one line."""
    error = failure(trial)
    cause = getattr(error, "cause", None) or error
    if cause is None:
        return "failed"
    lines = str(cause).strip().splitlines() or [""]
    return f"{type(cause).__name__.removesuffix('Error') or 'Error'}: {lines[-1].strip()[:300]}"


def _kind(trial: Trial, reason: str) -> str:
    """The key by which failures are equal: the type for lost workers, whose text names processes and hosts."""
    error = failure(trial)
    return type(error).__name__ if isinstance(error, RayActorError) and "Timeout" not in reason else reason


def _outside(error: BaseException) -> MacilError | None:
    """The fault of storage or host behind a trial's exception; None when it is the trial's own."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, StorageError | HostError):
        return type(cause)(str(cause))
    refusal = trouble(cause)
    return None if refusal is None else StorageError(f"a trial could not write: {refusal}")
