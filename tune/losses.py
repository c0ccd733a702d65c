"""Losses of infrastructure that Tune does not make good by itself.

Tune recovers a trial when Ray says that its actor died. Two kinds of loss escape it. When Ray's memory monitor ends a
worker, or a new one cannot start, Ray says so with another error, upon which Tune gives up the whole run. And a worker
that is lost between two trials, or while it takes up the next one, counts twice, and that trial is given up. Within
`tolerating_losses` each of these is one loss of one trial's worker.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import ray
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

from macil.errors import MacilError

Recovers = Callable[[Trial, Exception], bool]

# Characters of the line that says in short what was lost.
_SHORT = 300


class WorkerLostError(RayActorError):
    """A trial's worker was lost. The text is Ray's; its last line says in short how."""


@contextlib.contextmanager
def tolerating_losses(recovers: Recovers | None = None) -> Iterator[None]:
    """Let Tune recover trials from every loss of infrastructure.

    Args:
        recovers: Whether a trial is tried again after this failure; asked once for each. None: Tune's `max_failures`
            says it, which cannot tell the trial's own exceptions from losses.

    Raises:
        MacilError: This version of Ray handles failures elsewhere, so that losses would end the run.
    """
    wrappers: dict[tuple[type, str], Callable[[Any], Any]] = {
        (RayActorManager, "_actor_start_failed"): _told_as_loss,
        (RayActorManager, "_actor_task_failed"): _told_as_loss,
        (TuneController, "_trial_task_failure"): partial(_told_once, recovers=recovers),
    }
    _check_ray(*wrappers)
    originals = {(owner, name): getattr(owner, name) for owner, name in wrappers}
    for (owner, name), wrap in wrappers.items():
        setattr(owner, name, wrap(originals[owner, name]))
    try:
        yield
    finally:
        for (owner, name), method in originals.items():
            setattr(owner, name, method)


def as_loss(error: Exception) -> Exception:
    """What Tune is told for an error of Ray: a trial's own exception and a dead actor as they are, all else as a loss.

    That includes what no worker can help, a full object store say: it is tried again as often as a loss, and then the
    trial has failed with this reason. An error that is not Ray's is one of this process.
    """
    if isinstance(error, RayActorError | RayTaskError) or not isinstance(error, RayError):
        return error
    lines = str(error).strip().splitlines() or ["Ray gives no reason"]
    short = f"{type(error).__name__}: {lines[0].strip()}"
    return WorkerLostError(error_msg="\n".join([*lines, short[:_SHORT]]))


def _told_as_loss(method: Any) -> Any:
    signature = inspect.signature(method)

    def failed(*given: Any, **named: Any) -> None:
        call = signature.bind(*given, **named)
        call.arguments["exception"] = as_loss(call.arguments["exception"])
        method(*call.args, **call.kwargs)

    return failed


def _told_once(method: Any, recovers: Recovers | None) -> Any:
    last: BaseException | None = None

    def failed(self: TuneController, trial: Trial, exception: Exception) -> None:
        nonlocal last
        if trial in self._resetting_trials:
            self._resetting_trials.remove(trial)  # or it would be taken to wait for this worker for ever
            if trial.status == Trial.PENDING:
                # It raised, and its worker lives. Tune tries again only what is running.
                self._set_trial_status(trial, Trial.RUNNING)
                self._unstage_trial_with_resources(trial)
        elif exception is last:
            return  # told as the actor's failure before, and now as that of its task
        last = exception
        if recovers is not None:
            trial.max_failures = -1 if recovers(trial, exception) else 0  # always, or never
        method(self, trial, exception)

    return failed


def _check_ray(*wrapped: tuple[type, str]) -> None:
    used = [(TuneController, "_set_trial_status"), (TuneController, "_unstage_trial_with_resources")]
    missing = [f"{owner.__name__}.{name}" for owner, name in [*wrapped, *used] if not hasattr(owner, name)]
    for owner, name in wrapped:
        method = getattr(owner, name, None)
        if method is not None and list(inspect.signature(method).parameters)[2:] != ["exception"]:
            missing.append(f"{owner.__name__}.{name}(…, exception)")
    if "_resetting_trials" not in TuneController.__init__.__code__.co_names:
        missing.append("TuneController._resetting_trials")
    if missing:
        raise MacilError(
            f"Ray {ray.__version__} has no {', '.join(missing)}: a trial's lost worker would end the run; "
            "install the version of Ray that constraints.txt names"
        )
