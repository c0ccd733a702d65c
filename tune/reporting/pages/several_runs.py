"""Several runs beside one another: what each found, whether they may be compared, and sweeps row by row."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from macil import __version__
from macil.io.files import write_text_atomic
from macil.io.wording import now
from tune.reporting.figures.drawing import SavedFigure
from tune.reporting.figures.several_runs import draw_runs
from tune.reporting.pages import rendering
from tune.reporting.pages.blocks import Answer, Block, Items, Page, Pictures, Section, Sheet, labelled
from tune.reporting.pages.first_screen import what_was_run
from tune.reporting.pages.run_page import DEMO, embed
from tune.reporting.statistics import outcome
from tune.reporting.statistics.comparability import incomparable, verdict
from tune.reporting.tables.several_runs import Compared, name_runs, rows_tables, runs_table, shown_location
from tune.reporting.text import run_facts as summary
from tune.reporting.text import wording
from tune.results.next_commands import report_command
from tune.results.run import RunResults
from tune.results.run_info import is_demo
from tune.results.tables import TRIALS_SCHEMA, write_table
from tune.storage.names import TRIALS_SHEET, TRIALS_TABLE

_LONGEST_NAME = 80


def write_comparison(runs: Sequence[RunResults], unread: Sequence[tuple[str, str]], folder: Path) -> Path:
    """Write comparison.html, comparison.md, trials.parquet, trials.csv and the figures into `folder`.

    Args:
        runs: The runs, with the labels opened as far as they are to be; the first is what the others are compared with.
        unread: Name and reason of each run that could not be read.
        folder: Made if it is not there.

    Returns:
        Path of comparison.html.

    Raises:
        UsageError: The folder cannot be written.
    """
    compared = name_runs(runs)
    page = comparison_page(compared, unread, folder)
    write_table(joined_trials(compared), folder / TRIALS_TABLE)
    write_table(joined_trials(compared), folder / TRIALS_SHEET)
    write_text_atomic(folder / "comparison.md", rendering.markdown(page))
    write_text_atomic(folder / "comparison.html", rendering.html(page))
    return folder / "comparison.html"


def comparison_folder(runs: Sequence[RunResults]) -> Path:
    """comparison-NAMES beside the first run, or in the current folder when that one lies elsewhere."""
    first = runs[0]
    remote = first.location.remote is not None
    names = "+".join(re.sub(r"[^A-Za-z0-9._-]", "_", run.path.name) for run in runs)
    if len(names) > _LONGEST_NAME:
        digest = hashlib.blake2b(names.encode(), digest_size=4).hexdigest()
        names = f"{names[:_LONGEST_NAME]}-{digest}"
    return (Path.cwd() if remote else first.path.parent) / f"comparison-{names}"


def comparison_page(compared: Sequence[Compared], unread: Sequence[tuple[str, str]], folder: Path) -> Page:
    """The page; its figures are drawn into `folder`."""
    runs = [each.results for each in compared]
    warnings = incomparable({each.name: each.results for each in compared})
    demo = [run for run in runs if is_demo(run.info)]
    banners = list(warnings)
    if demo:
        banners.append(
            "Demo data, made up: no number of "
            + ("these runs" if len(demo) == len(runs) else ", ".join(run.name for run in demo))
            + " says anything about XD-Violence."
        )
    banners += [f"{name} could not be read: {reason}" for name, reason in unread]
    banners += [
        f"{each.name} is {each.results.status}: its numbers are partial."
        for each in compared
        if each.results.status != "finished"
    ]
    banners += [f"{each.name}: {text}" for each in compared for text in summary.data_notes(each.results)]
    folder.mkdir(parents=True, exist_ok=True)
    blocks: list[tuple[str, str, list[Block]]] = [
        ("runs", "The runs", [Sheet(runs_table(compared))]),
        ("rows", "Sweeps, row by row", [Sheet(table) for table in rows_tables(compared)]),
        ("figures", "Figures", _pictures(draw_runs(compared, folder))),
        ("missing", "Missing", _unread(unread, compared)),
    ]
    sections = tuple(Section(name, title, tuple(content)) for name, title, content in blocks if content)
    page = Page(
        title=" · ".join(each.name for each in compared),
        state="",
        subtitle="MACIL-SD, many trainings: several runs side by side.",
        banners=tuple(banners),
        answers=_answers(compared, warnings),
        sections=sections,
        beside="comparison.html, comparison.md, trials.parquet and trials.csv of all runs, every figure as PNG and "
        "SVG; each run's own report lies in its folder",
        rebuild=report_command(*map(shown_location, runs), out=folder.absolute()),
        written=now(),
        version=__version__,
    )
    return labelled(page, DEMO) if len(demo) == len(runs) else page


def joined_trials(compared: Sequence[Compared]) -> pa.Table:
    """All trials of all runs, with the name of the run as their first column."""
    schema = TRIALS_SCHEMA.insert(0, pa.field("run", pa.string()))
    tables = [
        each.results.trials.add_column(
            0, "run", pa.array([each.name] * each.results.trials.num_rows, pa.string())
        )
        for each in compared
    ]
    return pa.concat_tables([pa.Table.from_arrays(table.columns, schema=schema) for table in tables])


def _answers(compared: Sequence[Compared], warnings: Sequence[str]) -> tuple[Answer, ...]:
    what = tuple(f"{each.name}: {what_was_run(each.results)}" for each in compared)
    results = tuple(f"{each.name}: {_result(each)} {each.found.subject}" for each in compared)
    return (
        Answer("What is compared", messages=what),
        Answer(
            "Results", messages=results, small="Test AP, frame level, trapezoidal (the published definition)."
        ),
        Answer("May they be compared?", messages=(verdict(warnings),)),
        Answer(
            "Train a result again",
            command="\n".join(
                command for each in compared if (command := outcome.replay(each.results, each.found.replayed))
            ),
        ),
    )


def _result(each: Compared) -> str:
    if each.headline is None:
        return "test AP not measured."
    return f"AP {wording.estimate_text(each.headline)} %{wording.chance_beside(each.results.chance)}."


def _pictures(drawn: Sequence[SavedFigure]) -> list[Block]:
    return [Pictures("", embed(drawn))] if drawn else []


def _unread(unread: Sequence[tuple[str, str]], compared: Sequence[Compared]) -> list[Block]:
    lines = [f"{name}: {reason}" for name, reason in unread]
    lines += [f"{each.name}: {problem}" for each in compared for problem in each.results.problems]
    return [Items(tuple(lines))] if lines else []
