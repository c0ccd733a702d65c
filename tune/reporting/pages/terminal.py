"""The text on the terminal at the end of a run: the result in a few lines, tables, and where to look further."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table as Grid

from tune.reporting.pages.first_screen import answers
from tune.reporting.statistics.model_interval import model_intervals
from tune.reporting.statistics.outcome import find_outcome
from tune.reporting.tables import run_tables as sections
from tune.reporting.tables.confirmation_table import confirmation_table
from tune.reporting.tables.run_tables import varied
from tune.reporting.tables.sweep_table import sweep_table
from tune.reporting.text import wording
from tune.reporting.text.border_warnings import border_warnings
from tune.reporting.text.contrast_warnings import contrast_warnings
from tune.reporting.text.run_facts import decided
from tune.reporting.text.sweep_verdict import verdicts
from tune.results.ranking import leaderboard, winner_of
from tune.results.run import RunResults
from tune.results.run_info import is_demo

# The whole table is in the report.
_MOST_ROWS = 15
_REPORT_ONLY = ("Step-wise", "SD", "Difference")


def print_ending(console: Console, results: RunResults) -> None:
    """The leaderboard, or the rows of a sweep; the confirmation; what was found, as the report's first screen says."""
    demo = "demo data, made up; " if is_demo(results.info) else ""
    rows = sweep_table(results)
    if rows is not None:
        title = f"rows of the sweep: {demo}test AP in %, protocol {results.protocol}"
        _print(console, _narrow(rows), f"{title}; the report has further columns")
    else:
        _print_leaderboard(console, results, demo)
    confirmed = confirmation_table(results)
    if confirmed is not None:
        _print(console, confirmed, f"confirmation on fresh seeds: {demo}protocol {results.protocol}")
    found = find_outcome(results)
    intervals = model_intervals(results, found.trials if len(found.trials) == 1 else ())
    shown = answers(results, found, intervals)[1:]
    for answer in shown:
        messages = " ".join(part for part in (answer.number, *answer.messages, answer.command) if part)
        console.print(f"[bold]{answer.question}[/bold]", highlight=False)
        for each in answer.lines:
            console.print(
                f"  {each.name}: {each.number}, {each.basis}", highlight=False, markup=False, soft_wrap=True
            )
        if messages:
            console.print(f"  {messages}", highlight=False, markup=False, soft_wrap=True)
    shown_lines = {line for answer in shown for line in answer.messages}
    more = [*verdicts(results)[:1], *border_warnings(results, found), *contrast_warnings(results, found)]
    for line in [line for line in more if line not in shown_lines]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _narrow(table: sections.Table) -> sections.Table:
    """A sweep's table for a terminal: without what is in the report only."""
    kept = [
        index
        for index, column in enumerate(table.columns)
        if column.group == "Components" or not (column.title in _REPORT_ONLY or column.group == "Parameters")
    ]
    columns = tuple(table.columns[index] for index in kept)
    return replace(
        table, columns=columns, rows=tuple(tuple(row[index] for index in kept) for row in table.rows)
    )


def _print(console: Console, table: sections.Table, title: str) -> None:
    grid = Grid(title=title, title_justify="left")
    for column in table.columns:
        plain = column.group in ("", "Hyperparameters", "Components")
        heading = column.title if plain else f"{column.group}\n{column.title}"
        grid.add_column(heading, justify="right" if column.number else "left", overflow="fold")
    for row in table.rows:
        grid.add_row(*row)
    console.print(grid, markup=False)
    console.print(table.caption, highlight=False, markup=False, style="dim")


def _print_leaderboard(console: Console, results: RunResults, demo: str) -> None:
    board = leaderboard(results)
    rule = board[-1][1].epoch_rule if board else "last"
    other = "; the refit at its last" if any(row.epoch_rule != rule for _, row in board) else ""
    chance = wording.chance_beside(results.chance)
    title = (
        f"leaderboard: {results.protocol} protocol, {demo}AP of test frames in % at the {rule} epoch{other}{chance}, "
        "one seed a line"
    )
    grid = Grid(title=title, title_justify="left")
    for column in ("rank", "trial", "status", "epoch", "selection_score", "AP", "AP trapezoid"):
        grid.add_column(column, justify="right", no_wrap=True)
    grid.add_column("configuration", overflow="fold")
    names, winner = [name for name in varied(results) if name != "seed"], winner_of(results.info)
    for rank, row in board[:_MOST_ROWS]:
        epoch = row.chosen_epoch if row.epoch_rule == "chosen" else row.epochs_run
        config = results.active_row(row).config
        shown = [name for name in (*names, "seed") if name in config or name not in results.plan.space]
        configuration = ", ".join(f"{name} {_cell(config.get(name))}" for name in shown)
        name = row.name
        name += " (winner)" if rank is not None and name == winner else ""
        aps = (wording.percent(ap) for ap in (row.ap, row.ap_trapezoid))
        cells = (rank, name, row.status, epoch, row.selection_score)
        grid.add_row(*map(_cell, cells), *aps, configuration)
    console.print(grid, markup=False)
    for text in decided(results):
        console.print(f"note: {text}", markup=False, highlight=False, soft_wrap=True)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
