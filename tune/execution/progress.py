"""Progress of the trials: a table redrawn in place on a terminal and in a notebook, plain lines in a log."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from ray.tune import Callback, ProgressReporter
from ray.tune.experiment import Trial
from rich.console import Console
from rich.live import Live
from rich.table import Table

from macil.io.wording import clock, duration, plural
from macil.training.silent_terms import is_silent, silence_text
from tune.execution.failure_policy import FailurePolicy
from tune.execution.pace import Pace
from tune.storage.history import TrialHistory
from tune.storage.trial_log import METRIC, TIME
from tune.storage.trial_names import trial_name

if TYPE_CHECKING:
    from tune.cluster.workers import Cluster

_ROWS = 12
_HEARTBEAT = 30.0  # seconds between lines in a log when nothing ends
_HOSTS = 8  # named in a line, at most
_REDRAW = 0.1  # seconds between two drawings of the table, at least
_REDRAW_IN_NOTEBOOK = 1.0  # each goes through the notebook's kernel to its browser


@dataclass
class _Line:
    name: str
    state: str
    epoch: int = 0
    score: float | None = None
    note: str = ""
    host: str = ""
    # Of the epochs of this process that have contrastive terms, by number, whether these were exactly 0.
    silent: dict[int, bool] = field(default_factory=dict)


class Display:
    """Shows batches of trials one after the other.

    Args:
        console: Where to.
        total: Trials of each kind of batch.
        epochs: Epochs of a whole training, by kind.
        score: What the selection score is called.

    Attributes:
        cluster: The cluster that runs the trials, which knows their hosts; None is this machine.
    """

    def __init__(
        self, console: Console, total: dict[str, int], epochs: dict[str, int], score: str = METRIC
    ) -> None:
        self._console = console
        self._score = score
        self.total = total
        self.epochs = epochs
        self.cluster: Cluster | None = None
        self._show: Callable[[Table], object] | None = None
        self._kind = ""
        self._forget()

    def _forget(self) -> None:
        # A search may have thousands of trials of milliseconds: nothing here grows with their number.
        self._running: dict[str, _Line] = {}
        self._ended: deque[_Line] = deque(maxlen=_ROWS)
        self._pace = Pace()
        self._done = 0
        self._best: _Line | None = None
        self._began = self._last_logged = self._drawn = time.monotonic()

    def log(self, text: str) -> None:
        """One line of plain text, above the table if there is one."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def shown(self, kind: str) -> Iterator[None]:
        """Show progress within the block."""
        self._kind = kind
        self._forget()
        with contextlib.ExitStack() as stack:
            if self._console.is_jupyter and not self._console.quiet:
                self._show = _cell(self._table())
            elif self._console.is_terminal:
                live = Live(self._table(), console=self._console, auto_refresh=False, transient=True)
                self._show = partial(stack.enter_context(live).update, refresh=True)
            try:
                yield
                if self._console.is_jupyter and self._show:
                    self._show(self._table())  # which stays there
            finally:
                self._show = None

    def callback(self, policy: FailurePolicy) -> Callback:
        """The callback by which this display follows Tune's trials."""
        return _TrialReporter(self, policy)

    def recall(self, histories: Iterable[TrialHistory]) -> None:
        """Take in trials that ended before this run was resumed, without a message."""
        for history in histories:
            name = trial_name(PurePath(self._kind, history.name))
            line = _Line(name, "failed" if history.diverged or history.failed else "finished")
            line.epoch, line.score = history.epochs, history.scores.get(history.epochs)
            self._end(line)

    def update(self, trial: Trial, state: str, result: dict[str, Any] | None = None, note: str = "") -> None:
        """Take in what a trial did."""
        line = self._running.setdefault(trial.trial_id, _Line(self.name_of(trial), state))
        line.state, line.note = state, note or line.note
        if self.cluster:
            line.host = self.cluster.host_of(trial) or line.host
        if result and result.get(TIME):
            self._pace.take_in(result)
            line.epoch, line.score = int(result[TIME]), result.get(METRIC)
            if result.get("loss_v2b") is not None:
                line.silent[line.epoch] = is_silent(result)
        if state != "running":
            self._end(self._running.pop(trial.trial_id))
        if self._show:
            self._draw(self._show)
        elif state != "running":
            self.log(f"[{self._clock()}] {self._describe(line)}  |  {self.summary}")
            self._last_logged = time.monotonic()

    def tick(self) -> None:
        """Show that time passes."""
        if self.cluster:
            self.cluster.tick(self.total[self._kind] - self._done)
        if self._show:
            self._draw(self._show)
        elif time.monotonic() - self._last_logged > _HEARTBEAT:
            self._last_logged = time.monotonic()
            self.log(f"[{self._clock()}] {self.summary}")

    @property
    def summary(self) -> str:
        """Done, running, best, in one line."""
        text = f"{self._done}/{self.total[self._kind]} done, {len(self._running)} running{self._where()}"
        best = _better(self._best, *self._running.values())
        text += "" if best is None else f", best {best.score:.4f} ({best.name})"
        total, running = self.total[self._kind], [line.epoch for line in self._running.values()]
        left = self._pace.left(total - self._done - len(running), running, self.epochs[self._kind])
        return text if left is None else f"{text}, about {duration(left)} left"

    def _where(self) -> str:
        """The number of hosts of a cluster in use, and of trials on each, as text."""
        if self.cluster is None:
            return ""
        if not self._running and self.cluster.short:
            return ", waiting for workers"
        hosts = Counter(line.host for line in self._running.values() if line.host)
        if not hosts:
            return ""
        shown = [f"{name} {count}" for name, count in sorted(hosts.items())]
        if len(shown) > _HOSTS:
            shown = [*shown[: _HOSTS - 1], f"{len(shown) - _HOSTS + 1} more"]
        return f" on {plural(len(hosts), 'host')} ({', '.join(shown)})"

    def name_of(self, trial: Trial) -> str:
        """What a trial is called."""
        return trial_name(PurePath(self._kind, trial.relative_logdir or trial.trial_id))

    def _end(self, line: _Line) -> None:
        self._done += 1
        self._pace.end(line.epoch)
        self._ended.append(line)
        if line.state != "failed":
            self._best = _better(self._best, line)

    def _draw(self, show: Callable[[Table], object]) -> None:
        if time.monotonic() - self._drawn >= (_REDRAW_IN_NOTEBOOK if self._console.is_jupyter else _REDRAW):
            show(self._table())
            self._drawn = time.monotonic()

    def _describe(self, line: _Line) -> str:
        score = "" if line.score is None else f", {self._score} {line.score:.4f}"
        note = f": {line.note}" if line.note else ""
        host = f" on {line.host}" if line.host else ""
        epochs = f"{line.epoch}/{self.epochs[self._kind]} epochs"
        silent = sum(line.silent.values())
        # Epochs from before a resume are not known here, and a part of them is not reported.
        whole = silent and len(line.silent) == line.epoch
        terms = f", contrastive terms {silence_text(silent, line.epoch)}" if whole else ""
        return f"trial {line.name} {line.state} after {epochs}{host}{score}{terms}{note}"

    def _clock(self) -> str:
        return f"{clock(time.monotonic() - self._began):>6}"

    def _table(self) -> Table:
        table = Table(
            title=f"{self._kind}  {self._clock()}  {self.summary if self._kind else ''}", title_justify="left"
        )
        for column, justify in (
            ("trial", "left"),
            ("state", "left"),
            ("epoch", "right"),
            (self._score, "right"),
        ):
            table.add_column(column, justify=justify)  # type: ignore[arg-type]
        if self.cluster:
            table.add_column("host")
        running = list(self._running.values())[:_ROWS]
        ended = list(self._ended)
        shown = [*ended[max(0, len(ended) - _ROWS + len(running)) :], *running]
        hidden = self._done + len(self._running) - len(shown)
        if hidden:
            table.add_row("…", f"{hidden} more", "", "")
        for line in shown:
            score = "" if line.score is None else f"{line.score:.4f}"
            host = [line.host] if self.cluster else []
            table.add_row(line.name, line.state, f"{line.epoch}/{self.epochs[self._kind]}", score, *host)
        return table


def _better(*lines: _Line | None) -> _Line | None:
    """The line of the best score, the first among equals."""
    scored = [line for line in lines if line is not None and line.score is not None]
    return max(scored, key=lambda line: line.score or 0.0, default=None)


def _cell(table: Table) -> Callable[[Table], object]:
    """Show a table in the output of a notebook's cell; what is returned puts another one in its place."""
    # No dependency: whoever runs a notebook has it.
    handle = importlib.import_module("IPython.display").display(table, display_id=True)
    update: Callable[[Table], object] = handle.update
    return update


class SilentReporter(ProgressReporter):
    """Tune's own progress, which clears the output of a notebook's cell even with `verbose=0`: none of it."""

    def should_report(self, trials: list[Trial], done: bool = False) -> bool:
        """Never."""
        return False

    def report(self, trials: list[Trial], done: bool, *sys_info: str) -> None:
        """Nothing."""


class _TrialReporter(Callback):
    """Passes Tune's events on."""

    def __init__(self, display: Display, policy: FailurePolicy) -> None:
        self._display = display
        self._policy = policy

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        self._display.tick()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._display.update(
            trial, "running", trial.last_result if trial.has_reported_at_least_once else None
        )

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        self._display.update(trial, "running", result)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        reason = self._policy.reason_of(trial)
        self._display.log(f"{self._display.name_of(trial)}: {reason}; trying again from its last checkpoint")

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        result = trial.last_result
        self._display.update(trial, self._state(trial), result, str(result.get("reason") or ""))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._display.update(trial, "failed", None, self._policy.reason_of(trial))

    def _state(self, trial: Trial) -> str:
        if trial.status == Trial.ERROR or trial.last_result.get("diverged"):
            return "failed"
        whole = int(trial.last_result.get(TIME, 0)) >= self._display.epochs[trial.experiment_dir_name]
        return "finished" if whole else "stopped"
