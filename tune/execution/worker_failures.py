"""Worker failures from which Tune does not recover by itself.

Tune recovers a trial when Ray says that its actor died. Two kinds of worker failure escape it. When Ray's memory
monitor ends a worker, or a new one cannot start, Ray raises another error, upon which Tune gives up the whole run. And
a worker that is lost between two trials, or while it takes up the next one, counts twice, and that trial is given up.
Within `tolerating_worker_failures` each of these is one worker failure of one trial.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ray.exceptions import RayActorError, RayError, RayTaskError

from tune.execution.ray_internals import Recovers, changed_failures

# Characters of the line that says in short what was lost.
_SHORT = 300


class WorkerLostError(RayActorError):
    """A trial's worker was lost. The text is Ray's; its last line is the reason in short."""


@contextlib.contextmanager
def tolerating_worker_failures(recovers: Recovers | None = None) -> Iterator[None]:
    """Let Tune recover trials from every worker failure.

    Args:
        recovers: Whether a trial is tried again after this failure; asked once for each. None: Tune's `max_failures`
            decides, which does not distinguish the trial's own exceptions from worker failures.
    """
    with changed_failures(as_worker_failure, recovers):
        yield


def as_worker_failure(error: Exception) -> Exception:
    """The error passed to Tune: a trial's own exception and a dead actor unchanged, other errors as a worker failure.

    That includes errors that another worker does not cure, such as a full object store: the trial is tried again as
    often, and then fails with this reason. An error that is not Ray's is one of this process.
    """
    if isinstance(error, RayActorError | RayTaskError) or not isinstance(error, RayError):
        return error
    lines = str(error).strip().splitlines() or ["Ray gives no reason"]
    short = f"{type(error).__name__}: {lines[0].strip()}"
    return WorkerLostError(error_msg="\n".join([*lines, short[:_SHORT]]))
