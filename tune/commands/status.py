"""`python tune/search.py --status [NAME]`: which runs there are, and where one stands, from any shell or machine."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from macil.errors import MacilError
from macil.io.remote import is_uri, local_path
from macil.io.wording import duration, plural, seconds_since
from tune.planning.counts import epochs_text
from tune.results.next_commands import report_command, resume_command
from tune.results.ranking import ranked_trials, winner_of, winning_trial
from tune.results.rows import TrialRow
from tune.results.run import RunResults, load_run, planned_confirmation
from tune.results.run_info import planned_base
from tune.results.trainings import trained_epochs
from tune.storage.listing import runs_in
from tune.storage.names import LOG_FILE, REPORT_FOLDER, REPORT_PAGE
from tune.storage.run_file import RunInfo
from tune.storage.run_folder import Workspace, never_begun
from tune.storage.trial_log import read_last_report

# Kind of a trial -> what it is called here, in the order of the phases.
_PHASES = {"search": "trials", "confirm": "confirmation", "refit": "refit"}
_ENDED = ("finished", "stopped", "refit")
_FAILED = ("failed", "diverged")
_ROWS = 20
_REASONS = 3
_NUMBERS = ("best selection_score",)
# Seconds without a new epoch after which a run that says that it runs may be dead: at least this, and so many epochs.
_SILENT, _SILENT_EPOCHS = 600.0, 10


@dataclass(frozen=True)
class Last:
    """A trial's last sign of life.

    Attributes:
        host: Where its last epoch was trained, "" where its log does not record it.
        age: Seconds since then, None before its first epoch.
    """

    host: str = ""
    age: float | None = None


def show_status(run: str, storage: str, console: Console) -> int:
    """One screen about a run, whatever state it is in.

    Args:
        run: A name in `storage`, a path or a URI.
        storage: Folder or URI of runs.
        console: Where to.

    Returns:
        Exit status.

    Raises:
        UsageError: There is no such run.
        DataError: The folder is no run.
    """
    local = not (is_uri(run) or is_uri(storage))
    for folder in (local_path(storage) / run, local_path(run)) if local else ():
        if never_begun(Workspace(folder)):
            console.print(
                f"run {folder.name}: not begun; it is being started, or was stopped before it began"
            )
            console.print(f"folder  {folder.absolute()}", soft_wrap=True, highlight=False)
            return 0
    results = load_run(run, storage)
    rows = results.trial_rows
    now = time.time()
    lasts = {row.trial_dir: read_last(results.path / row.trial_dir, now) for row in rows}
    _print_summary(console, results, rows, lasts)
    running = [row for row in rows if row.status == "running"]
    if running and results.status == "running":
        console.print(_running_table(running, lasts))
    return 0


def show_runs(storage: str, console: Console) -> int:
    """A line about each run of a storage, those changed last first.

    Args:
        storage: Folder or URI of runs.
        console: Where to.

    Returns:
        Exit status.

    Raises:
        UsageError: The storage cannot be read.
    """
    names = runs_in(storage)
    if not names:
        console.print(f"there is no run in {storage}", markup=False, highlight=False, soft_wrap=True)
        return 0
    table = Table(title=f"runs in {storage}: {len(names)}", title_justify="left")
    for column in ("run", "status", "best selection_score", "trials", "begun"):
        table.add_column(column, overflow="fold", justify="right" if column in _NUMBERS else "left")
    for name in names[:_ROWS]:
        try:
            table.add_row(name, *_in_short(load_run(name, storage)))
        except MacilError as error:
            table.add_row(name, f"cannot be read: {' '.join(str(error).split())}", "", "", "")
    if len(names) > _ROWS:
        table.add_row("…", f"{len(names) - _ROWS} more", "", "", "")
    console.print(table, markup=False)
    return 0


def _in_short(results: RunResults) -> tuple[str, str, str, str]:
    """Status, best score, trials and age of a run."""
    status, ranked, since = _status(results), ranked_trials(results), seconds_since(results.info.created)
    if status == "unknown":
        status = f"damaged: {'; '.join(results.problems[:1]) or 'run.json says no status'}"
    search = [row for row in results.trial_rows if row.kind == "search"]
    return (
        status,
        "–" if not ranked else f"{ranked[0].selection_score:.4f}",
        _counts(results, search, "search").partition(", ")[0] or "–",
        "–" if since is None else f"{duration(since)} ago",
    )


def read_last(folder: Path, now: float) -> Last:
    """A trial's last sign of life, from the end of its log."""
    report = read_last_report(folder / LOG_FILE)
    if report is None or report.timestamp is None:
        return Last()
    return Last(report.hostname or "", max(0.0, now - report.timestamp))


def _print_summary(
    console: Console, results: RunResults, rows: Sequence[TrialRow], lasts: Mapping[str, Last]
) -> None:
    running, done = results.status == "running", results.status == "finished"
    table = Table(title=f"run {results.name}", title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _summary(results, rows, lasts):
        table.add_row(name, text)
    console.print(table, markup=False)
    messages = []
    if running and (silent := _silence(results, rows, lasts)) is not None:
        messages.append(
            f"note: nothing was written for {duration(silent)}; the search may have been killed on another host, or "
            f"its network may be cut. If it is gone, go on: {_resume(results)}"
        )
    if not running and not done:
        messages.append(_way_on(results))
    if done:
        messages.append(_look(results))
    for line in messages:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _summary(
    results: RunResults, rows: Sequence[TrialRow], lasts: Mapping[str, Last]
) -> Iterator[tuple[str, str]]:
    info, running = results.info, results.status == "running"
    yield "status", _status(results)
    if reason := _failure(results):
        yield "reason", reason
    if results.status != "finished":
        phase = str(info.phase)
        yield "phase", {"confirm": "confirmation"}.get(phase, phase)
    since, changed = seconds_since(info.created), seconds_since(info.updated)
    if since is not None:
        ago = f"{duration(since)} ago"
        if not running and changed is not None:
            ago += f"; last change {duration(changed)} ago"
        yield "begun", f"{info.created}, {ago}"
    yield "data", _data(info)
    if results.plan.suggestions:
        yield "suggestions", results.plan.suggestions
    yield "stopping", results.plan.early_stopping
    for kind, name in _PHASES.items():
        if text := _counts(results, [row for row in rows if row.kind == kind], kind):
            yield name, text
    yield "epochs", _epochs(results, rows, lasts)
    yield ("winner", _winner(results)) if winner_of(results.info) else ("best so far", _best(results))
    yield "folder", results.location.shown


def _status(results: RunResults) -> str:
    return "killed" if any("it was killed" in each for each in results.problems) else results.status


def _failure(results: RunResults) -> str:
    """Why a run failed; "" where it did not. An earlier version recorded no reason: then what its trials say."""
    if results.status != "failed":
        return ""
    if results.info.failure is not None:
        return results.info.failure.reason
    errors = Counter(row.error.splitlines()[-1] for row in results.trial_rows if row.error)
    return " | ".join(f"{plural(number, 'trial')}: {error}" for error, number in errors.most_common(_REASONS))


def _way_on(results: RunResults) -> str:
    """What to do with a run that has stopped; a resume is proposed only where it may come further."""
    failure, tried = results.info.failure, [row for row in results.trial_rows if row.kind == "search"]
    all_failed = len(tried) >= _total(results, "search") > 0 and all(row.status in _FAILED for row in tried)
    if results.status == "failed" and (all_failed if failure is None else not failure.resumable):
        return f"nothing is left to go on with; {_look(results)}"
    return f"go on: {_resume(results)}"


def _data(info: RunInfo) -> str:
    if info.data is None:
        return "not read yet"
    counts = ", ".join(f"{number} {split} videos" for split, number in (info.dataset or {}).items())
    demo = "; demo data, made up" if info.demo else ""
    return f"{info.data} ({counts}{demo})"


def _counts(results: RunResults, rows: Sequence[TrialRow], kind: str) -> str:
    """Counts of a phase's trials that have ended, go on and have failed; "" for a phase that the run has not."""
    total = _total(results, kind)
    if not total and not rows:
        return ""
    count = Counter(row.status for row in rows)
    failed = sum(count[status] for status in _FAILED)
    ended = sum(count[status] for status in _ENDED)
    parts = [
        f"{ended} of {max(total, len(rows))} done"
        + (f" ({count['stopped']} stopped early)" * bool(count["stopped"]))
    ]
    for status, name in (("running", "running"), ("interrupted", "to go on with")):
        if count[status]:
            parts.append(f"{count[status]} {name}")
    if failed:
        parts.append(f"{failed} failed")
    if (left := total - len(rows) + count["pending"]) > 0:
        parts.append(f"{left} not begun")
    return ", ".join(parts)


def _total(results: RunResults, kind: str) -> int:
    info, plan = results.info, results.plan
    if kind == "search":
        return info.trials or 0
    if kind == "refit":
        return len(info.seeds or ()) if plan.refits else 0
    planned = planned_confirmation(info)
    if planned:
        return len(planned)
    # Before the best are known: those, without the paper's beside them.
    return plan.confirm.configurations * len(plan.confirm.seeds) if plan.confirm else 0


def _epochs(results: RunResults, rows: Sequence[TrialRow], lasts: Mapping[str, Last]) -> str:
    spent = trained_epochs(rows)
    done, messages = sum(spent.values()), f"{epochs_text(spent)} done"
    over = [row for row in rows if row.status in (*_ENDED, *_FAILED)]
    # What was stopped early, or failed, is not trained any more.
    never = sum(max(0, (row.epochs or 0) - row.epochs_run) for row in over)
    most = results.plan.most_epochs if planned_base(results.plan) else 0
    left = max(0, most - never - done)
    if results.status == "finished" or not left:
        return messages
    pace = _seconds_an_epoch(rows)
    text = f"{messages}, at most {left:,} to go"
    at_once = sum(row.status == "running" and lasts[row.trial_dir].age is not None for row in rows)
    if results.status != "running" or pace is None or not at_once:
        return text
    return f"{text}; roughly {duration(left * pace / at_once)} at most ({duration(pace)} an epoch, {at_once} at once)"


def _seconds_an_epoch(rows: Sequence[TrialRow]) -> float | None:
    timed = [row for row in rows if row.seconds and row.epochs_run]
    epochs = sum(row.epochs_run for row in timed)
    return sum(row.seconds or 0.0 for row in timed) / epochs if epochs else None


def _winner(results: RunResults) -> str:
    """The winner that run.json names: after a confirmation not always the best of the search."""
    trial, name = winning_trial(results), winner_of(results.info)
    if trial is None:
        return f"trial {name}"
    text = f"trial {name}, selection_score {trial.selection_score:.4f}"
    confirmed = results.info.winner.confirmed if results.info.winner else None
    return text if confirmed is None else f"{text} in the search, {confirmed.mean:.4f} on fresh seeds"


def _best(results: RunResults) -> str:
    ranked = ranked_trials(results)
    if not ranked:
        return "no trial has a score yet"
    best = ranked[0]
    epoch = "" if best.chosen_epoch is None else f", epoch {best.chosen_epoch}"
    return f"trial {best.name}, selection_score {best.selection_score:.4f}{epoch}"


def _silence(results: RunResults, rows: Sequence[TrialRow], lasts: Mapping[str, Last]) -> float | None:
    """Seconds without any sign of life, when that is longer than it should be."""
    ages = [last.age for last in lasts.values() if last.age is not None]
    changed = seconds_since(results.info.updated)
    ages += [changed] if changed is not None else []
    expected = max(_SILENT, _SILENT_EPOCHS * (_seconds_an_epoch(rows) or 0.0))
    return min(ages) if ages and min(ages) > expected else None


def _running_table(running: Sequence[TrialRow], lasts: Mapping[str, Last]) -> Table:
    """The trials that are under way, the longest silent last."""
    running = sorted(running, key=lambda row: (_age(lasts, row), row.trial_dir))
    hosts = len({lasts[row.trial_dir].host for row in running} - {""})
    where = f" on {hosts} hosts" if hosts > 1 else ""
    table = Table(title=f"running: {len(running)}{where}", title_justify="left")
    for column, justify in (("trial", "left"), ("epoch", "right"), ("selection_score", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    table.add_column("host", overflow="fold")
    table.add_column("last epoch", justify="right")
    for row in running[:_ROWS]:
        last, score = lasts[row.trial_dir], row.selection_score
        table.add_row(
            row.name,
            f"{row.epochs_run}/{row.epochs}",
            "–" if score is None else f"{score:.4f}",
            last.host or "–",
            "none yet" if last.age is None else f"{duration(last.age)} ago",
        )
    if len(running) > _ROWS:
        table.add_row("…", f"{len(running) - _ROWS} more", "", "", "")
    return table


def _age(lasts: Mapping[str, Last], row: TrialRow) -> float:
    age = lasts[row.trial_dir].age
    return math.inf if age is None else age


def _resume(results: RunResults) -> str:
    return resume_command(results.location.shown, results.info.address)


def _look(results: RunResults) -> str:
    page = results.path / REPORT_FOLDER / REPORT_PAGE
    if page.is_file():
        return f"report: {page}"
    return f"write the report: {report_command(results.location.shown)}"
