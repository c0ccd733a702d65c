"""The parts of a report as plain tables, from which both HTML and Markdown are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from macil.config import hyperparameters
from tune.reporting.statistics.intervals import PERCENT, SHARE, estimate
from tune.reporting.text import wording
from tune.reporting.text.run_facts import decided
from tune.reporting.text.wording import NOT_MEASURED
from tune.results.label_access import LabelAccess
from tune.results.ranking import counted_trials, ranked_trials, winner_name, winner_of
from tune.results.rows import TrialRow
from tune.results.run import RunResults
from tune.storage.names import ACCESS_LOG

# A page shows so many trials; the files beside it hold all of them.
MOST_TRIALS = 40


@dataclass(frozen=True)
class Column:
    """A heading, the group it stands under, and whether its cells are numbers."""

    title: str
    group: str = ""
    number: bool = False


@dataclass(frozen=True)
class Table:
    """Cells as text; `marked` are the rows to look at first."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: frozenset[int] = frozenset()

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Group headings with the number of columns each spans; empty without groups."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans if any(name for name, _ in spans) else []


Row = TypeVar("Row")
# A column of a table, and what it says of a row.
Cell = tuple[Column, Callable[[Row], str]]


def rows_title(trial: TrialRow) -> str:
    """The rows of a sweep that a training is of: `01 = 04 = 07`."""
    return NOT_MEASURED if trial.row is None else str(trial.rows or trial.row).replace(", ", " = ")


def result_table(results: RunResults) -> Table | None:
    """The refitted winner, apart from the trials it was chosen from; None without one."""
    rows = [row for row in results.trial_rows if row.kind == "refit"]
    if not rows:
        return None
    columns: list[Cell[TrialRow]] = [
        _text("Training", lambda row: f"refit, seed {row.seed}"),
        _text("Status", _status),
        _number("Epochs", _epochs),
        *_ap_columns(f"Test AP (%){wording.chance_beside(results.chance)}", visual=_has_visual(rows)),
        *_cost_columns(),
    ]
    figures = [estimate((row.result(name) for row in rows), SHARE) for name in ("ap_trapezoid", "ap")]
    seeds = max((figure.n for figure in figures if figure), default=0)
    mean = ""
    if seeds > 1:
        mean = (
            f" Mean over {wording.seeds(seeds)}: trapezoidal {wording.estimate_text(figures[0])}, "
            f"step-wise {wording.estimate_text(figures[1])}."
        )
        mean += "".join(f" {note}" for note in wording.interval_notes(figures, PERCENT))
    caption = f"The winner, refitted. {wording.ap_basis('refit', 'last', 1)}{mean}{_visual_note(rows)}"
    return tabulate(caption, columns, rows, range(len(rows)))


def leaderboard_table(results: RunResults) -> Table | None:
    """All ranked trials, best first, with the hyperparameters that differ between them; None without any."""
    rows = ranked_trials(results)
    if not rows:
        return None
    shown = rows[:MOST_TRIALS]
    ranking = "Ranked by selection score; the test AP takes no part in the rank."
    if results.protocol == "published":
        ranking = (
            "Ranked by selection score, which is the best test AP so far (the published convention, chosen on the test "
            "set); the headline is the last epoch."
        )
    caption = f"{wording.ap_basis(results.protocol, rows[0].epoch_rule, 1)} {ranking}"
    caption += _visual_note(rows)
    winner = winner_name(results)
    marked = [index for index, row in enumerate(shown) if row.name == winner]
    trials = [row for row in counted_trials(results) if row.kind == "search"]
    every = sum(row.kind == "search" for row in results.trial_rows)
    if every > len(trials):
        caption += (
            f" Left out: {every - len(trials)} of {every} trainings, of rows that are the same as another."
        )
    if len(trials) > len(rows):
        missing = len(trials) - len(rows)
        caption += f" {missing} of {len(trials)} trials have no place in it: see Status of the trials."
    if len(rows) > len(shown):
        caption += f" The first {len(shown)} of {len(rows)}; trials.csv has all."
    caption += "".join(f" {text}" for text in decided(results))
    return tabulate(caption, _leaderboard_columns(results, rows), shown, marked)


def failures_table(results: RunResults) -> Table | None:
    """Trials that failed, diverged, were interrupted or have not reported, with reasons; None when all is well."""
    wrong = ("failed", "diverged", "interrupted", "pending", "running")
    rows = [row for row in results.trial_rows if row.status in wrong]
    if not rows:
        return None
    columns: list[Cell[TrialRow] | None] = [
        _text(
            "Trial",
            lambda row: row.name if row.kind == "search" else f"{row.name} ({row.kind})",
        ),
        _text("Row", lambda row: wording.value(row.row)) if _any(row.row for row in rows) else None,
        _number("Seed", lambda row: wording.value(row.seed)),
        _text("Status", _status),
        _number("Epochs", _epochs),
        _text("Reason", lambda row: row.error or NOT_MEASURED),
        _text("Folder", lambda row: row.trial_dir),
    ]
    caption = "Trials without a whole training. None of them enters a mean or a rank as if it had finished."
    return tabulate(caption, columns, rows[:MOST_TRIALS])


def openings_table(results: RunResults) -> Table | None:
    """When the test labels were opened; None when they never were."""
    if not results.label_accesses:
        return None
    digests = [entry.scores_hash for entry in results.label_accesses]
    changes = len(set(digests))
    note = "all on the same scores" if changes == 1 else f"on {changes} different sets of scores"
    times = len(results.label_accesses)
    message = "once" if times == 1 else f"{times} times, {note}"
    caption = (
        f"The test labels were opened {message}. A configuration chosen after the first access is chosen on the "
        f"test set. Log: {ACCESS_LOG}."
    )
    columns: list[Cell[tuple[int, LabelAccess]]] = [
        (Column("#", number=True), lambda entry: str(entry[0])),
        (Column("Time (UTC)"), lambda entry: entry[1].time or "unknown"),
        (Column("For"), lambda entry: entry[1].purpose or "unknown"),
        (Column("Trials", number=True), lambda entry: wording.value(entry[1].trials)),
        (Column("Labels"), lambda entry: wording.value(entry[1].labels_hash)),
        (Column("Scores"), lambda entry: wording.value(entry[1].scores_hash)),
    ]
    return tabulate(caption, columns, list(enumerate(results.label_accesses, start=1)))


def varied(results: RunResults) -> list[str]:
    """Hyperparameters that differ between the trials, and those of a search's space, in the order of `TrialConfig`."""
    rows = [row for row in results.trial_rows if row.kind == "search"]
    names = set(results.plan.space) | {
        p.name
        for p in hyperparameters()
        if len({row.config[p.name] for row in rows if p.name in row.config}) > 1
    }
    return [p.name for p in hyperparameters() if p.name in names]


def tabulate(
    caption: str, columns: Sequence[Cell[Row] | None], rows: Sequence[Row], marked: Iterable[int] = ()
) -> Table:
    """A line for each of `rows`; a column that is None is left out."""
    present = [column for column in columns if column is not None]
    cells = tuple(tuple(cell(row) for _, cell in present) for row in rows)
    return Table(caption, tuple(column for column, _ in present), cells, frozenset(marked))


def _any(values: Iterable[object]) -> bool:
    return any(value is not None for value in values)


def _has_visual(rows: Sequence[TrialRow]) -> bool:
    return _any(row.visual_ap for row in rows)


def _visual_note(rows: Sequence[TrialRow]) -> str:
    return " Visual: the visual network alone, step-wise." if _has_visual(rows) else ""


def _leaderboard_columns(results: RunResults, rows: Sequence[TrialRow]) -> list[Cell[TrialRow] | None]:
    rule, winner = rows[0].epoch_rule, winner_of(results.info)
    ranks = {row.trial_dir: rank for rank, row in enumerate(rows, start=1)}
    chance = wording.chance_beside(results.chance)
    best = "Best test epoch (convention)"
    selection = "Selection" if results.protocol == "published" else "Held-out selection"
    return [
        _number("#", lambda row: str(ranks[row.trial_dir])),
        _text("Trial", lambda row: row.name + (" (winner)" if row.name == winner else "")),
        _text("Row", rows_title) if _any(row.row for row in rows) else None,
        _text("Status", _status),
        _number("Score", lambda row: wording.decimal(row.selection_score), selection),
        _number("Video AP (%)", lambda row: wording.percent(row.heldout_ap), selection)
        if _any(row.heldout_ap for row in rows)
        else None,
        *_ap_columns(f"Test AP (%), {rule} epoch{chance}", visual=_has_visual(rows)),
        *(
            [
                _number("Trapezoidal", lambda row: wording.percent(row.ap_trapezoid_best), best),
                _number("Epoch", lambda row: wording.count(row.best_epoch), best),
            ]
            if results.protocol == "published"
            else []
        ),
        _number("Run", _epochs, "Epochs"),
        _number("Chosen", lambda row: wording.count(row.chosen_epoch), "Epochs")
        if results.protocol != "published"
        else None,
        *_cost_columns(),
        *[_hyperparameter(results, name) for name in varied(results)],
    ]


def _text(title: str, cell: Callable[[TrialRow], str]) -> Cell[TrialRow]:
    return Column(title), cell


def _number(title: str, cell: Callable[[TrialRow], str], group: str = "") -> Cell[TrialRow]:
    return Column(title, group, number=True), cell


def _hyperparameter(results: RunResults, name: str) -> Cell[TrialRow]:
    return _number(
        name, lambda row: wording.value(results.active_row(row).config.get(name), digits=3), "Hyperparameters"
    )


def _ap_columns(group: str, *, visual: bool) -> list[Cell[TrialRow]]:
    columns = [
        _number("Trapezoidal", lambda row: wording.percent(row.ap_trapezoid), group),
        _number("Step-wise", lambda row: wording.percent(row.ap), group),
    ]
    if visual:
        columns.append(_number("Visual", lambda row: wording.percent(row.visual_ap), group))
    return columns


def _cost_columns() -> list[Cell[TrialRow]]:
    return [
        _number("Used", lambda row: wording.count(row.parameters), "Parameters"),
        _number("As published", lambda row: wording.count(row.parameters_published), "Parameters"),
        _number("Time", lambda row: wording.duration(row.seconds)),
    ]


def _status(row: TrialRow) -> str:
    return {"refit": "finished", "pending": "not reported"}.get(row.status, row.status)


def _epochs(row: TrialRow) -> str:
    return f"{row.epochs_run}/{wording.value(row.epochs)}"
