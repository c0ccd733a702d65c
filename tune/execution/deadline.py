"""`--hours`: the trials end in time for what follows them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from tune.execution.pace import Pace
from tune.planning.plan import Plan
from tune.storage.decisions import decide
from tune.storage.run_folder import Workspace
from tune.storage.trial_log import METRIC

# Seconds for everything else at the end: the report, saving, Ray's own end.
_REPORT = 30.0
# Epochs take longer now and then than they did on average.
_CAREFUL = 1.15


class Deadline(Callback):
    """Ends the trials when the time that is left is needed for confirmation, refit and report.

    What is decided is written down first. Nothing ends before a trial has a score: there would be nothing to name.

    Args:
        run: The run.
        plan: Its plan.
        hours: From now until all is to have ended.
        log: Called when the trials end.

    Attributes:
        passed: Whether it has ended them.
    """

    def __init__(self, run: Workspace, plan: Plan, hours: float, log: Callable[[str], None]) -> None:
        self.passed = False
        self._run, self._plan, self._hours, self._log = run, plan, hours, log
        self._until = time.monotonic() + 3600 * hours
        self._pace = Pace()
        self._scored = False

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """Take in what an epoch took."""
        self._pace.take_in(result)
        self._scored |= result.get(METRIC) is not None

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Ask Tune to stop, when it is certain to listen."""
        if not self.passed and self._scored and time.monotonic() + self.reserve >= self._until:
            self.passed = True
            decision = decide(self._run, "end", f"--hours {self._hours:g}", self._begun())
            self._log(f"{decision.text} What is left of the time is for what follows.")
        if self.passed:
            os.kill(os.getpid(), signal.SIGUSR1)

    @property
    def reserve(self) -> float:
        """Seconds that are kept for what follows the trials."""
        if self._pace.per_epoch is None:
            return _REPORT
        after = self._plan.epochs_by_kind
        # The refit has the cores of all trials, but is one after the other.
        at_once = {"confirm": self._plan.concurrent, "refit": 1}
        epochs = sum(after[kind] / count for kind, count in at_once.items())
        return _REPORT + _CAREFUL * epochs * self._pace.per_epoch

    def _begun(self) -> int:
        return sum(1 for path in self._run.experiment("trials").glob("*") if path.is_dir())
