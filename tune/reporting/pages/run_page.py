"""The report of one run as a page: the first screen, then everything that stands behind it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from macil import __version__
from macil.io.wording import now
from tune.reporting.figures.catalogue import draw_figures
from tune.reporting.figures.drawing import SavedFigure
from tune.reporting.pages import first_screen as firstscreen
from tune.reporting.pages.blocks import (
    Block,
    Code,
    Items,
    Page,
    Pairs,
    Picture,
    Pictures,
    Section,
    Sheet,
    Text,
    Tiles,
    labelled,
)
from tune.reporting.statistics import outcome
from tune.reporting.statistics.model_interval import model_intervals
from tune.reporting.tables import run_tables as sections
from tune.reporting.tables.agreement_table import agreement_table
from tune.reporting.tables.confirmation_table import confirmation_table
from tune.reporting.tables.reference_table import comparison_table
from tune.reporting.tables.run_tables import Table
from tune.reporting.tables.sweep_table import sweep_table
from tune.reporting.text import run_facts as summary
from tune.reporting.text.agreement_verdict import agreement_verdict
from tune.reporting.text.border_warnings import border_warnings
from tune.reporting.text.confirmation_verdict import confirmation_verdicts
from tune.reporting.text.contrast_warnings import contrast_fact, contrast_warnings
from tune.reporting.text.sweep_verdict import verdicts
from tune.results.label_access import needs_label_access, read_label_accesses
from tune.results.next_commands import report_command
from tune.results.run import RunResults
from tune.results.run_info import is_demo

DEMO = "Demo data, made up:"
# A picture stays sharp as SVG; one of many lines would make the page heavy, and is embedded as PNG.
_LARGEST_SVG = 150_000


def run_page(results: RunResults, folder: Path, *, figures: bool = True) -> Page:
    """The whole report of `results`; its figures, if they are to be drawn, go into `folder`."""
    found = outcome.find_outcome(results)
    intervals = model_intervals(results, found.trials if len(found.trials) == 1 else ())
    results = replace(
        results, label_accesses=read_label_accesses(results.path, [])
    )  # an interval may have needed the labels
    trial = found.replayed
    blocks: list[tuple[str, str, list[Block]]] = [
        ("result", "Result", _result(results, found, outcome.result_tiles(results, found, intervals))),
        ("confirmation", "Confirmation on fresh seeds", _confirmation(results)),
        ("sweep", "Rows of the sweep", _sweep(results)),
        ("leaderboard", "Leaderboard", _tables(sections.leaderboard_table(results))),
        ("status", "Status of the trials", _tables(sections.failures_table(results))),
        ("missing", "Missing or damaged", _items(results.problems)),
        ("figures", "Figures", _figures(results, folder) if figures else [Text("Not drawn: --no-figures.")]),
        ("selection-metric", "Selection metric and test AP", _selection_agreement(results)),
        ("details", "What was run, in full", [Pairs((*summary.facts(results), *_terms(results)))]),
        ("openings", "Accesses to the test labels", _label_accesses(results)),
        ("replay", "Replay", _replay(results, found)),
        ("configuration", "Configuration of the reported training", _tables(_configuration(found))),
        ("record", "Record of the run", [Pairs(tuple(summary.record(results, trial)), exact=True)]),
    ]
    parts = tuple(Section(name, title, tuple(content)) for name, title, content in blocks if content)
    page = Page(
        title=results.name,
        state=results.status,
        subtitle="MACIL-SD, many trainings: report of a run.",
        banners=tuple(summary.banners(results)),
        answers=firstscreen.answers(results, found, intervals),
        sections=parts,
        beside="report.html, report.md, trials.parquet, trials.csv, epochs.parquet, every figure as PNG and SVG",
        rebuild=report_command(results.location.shown),
        written=now(),
        version=__version__,
    )
    return labelled(page, DEMO) if is_demo(results.info) else page


def embed(figures: Iterable[SavedFigure]) -> tuple[Picture, ...]:
    """Figures as parts of a page that needs no file beside it."""
    return tuple(
        Picture(f.title, f.caption, f.alt or f.title, f.png.name, _data_uri(f.svg, f.png)) for f in figures
    )


def _result(results: RunResults, found: outcome.Outcome, tiles: Sequence[Any]) -> list[Block]:
    messages: list[Block] = [Text(found.subject)] if found.subject else []
    if tiles:
        messages.append(Tiles(tuple(tiles)))
    messages += _items([*border_warnings(results, found), *contrast_warnings(results, found)])
    return [*messages, *_tables(sections.result_table(results))]


def _confirmation(results: RunResults) -> list[Block]:
    return [*_items(confirmation_verdicts(results)), *_tables(confirmation_table(results))]


def _sweep(results: RunResults) -> list[Block]:
    table = sweep_table(results)
    if table is None:
        return []
    return [*_items(verdicts(results)), Sheet(table), *_tables(comparison_table(results))]


def _selection_agreement(results: RunResults) -> list[Block]:
    verdict = agreement_verdict(results)
    return [*([Text(verdict)] if verdict else []), *_tables(agreement_table(results))]


def _label_accesses(results: RunResults) -> list[Block]:
    table = sections.openings_table(results)
    if table is not None:
        return [Sheet(table)]
    if needs_label_access(results):
        return [Text("The test labels have not been opened.")]
    return [
        Text(
            "None logged: no training of this run kept its test scores for later; under the published protocol every "
            "epoch reads the test labels."
        )
    ]


def _terms(results: RunResults) -> list[tuple[str, str]]:
    fact = contrast_fact(results)
    return [("Contrastive terms", fact)] if fact else []


def _replay(results: RunResults, found: outcome.Outcome) -> list[Block]:
    command = outcome.replay(results, found.replayed)
    if not command:
        return [Text("No trial has a result to replay yet.")]
    blocks: list[Block] = [
        Text(
            f"This trains the reported training, {found.replayed_name}, again from its record; any other likewise, by "
            "the name of its folder."
        ),
        Code(command),
    ]
    digits = outcome.expected(found.replayed)
    if digits:
        blocks += [
            Text("On the same kind of machine it gives these test AP, to the last digit:"),
            Pairs(tuple(digits), exact=True),
        ]
    return blocks


def _configuration(found: outcome.Outcome) -> Table | None:
    rows = summary.configuration(found.replayed)
    if not rows:
        return None
    columns = (
        sections.Column("Hyperparameter"),
        sections.Column("Symbol"),
        sections.Column("Value", number=True),
        sections.Column("Default", number=True),
    )
    other = frozenset(index for index, (_, _, value, default) in enumerate(rows) if value != default)
    name = found.replayed_name
    caption = (
        f"{name[:1].upper()}{name[1:]}. Marked: other than the default (section 5.2, switches as released)."
    )
    if found.row is not None and len(found.row.alike) > 1:
        caption += f" As trained for row {found.row.alike[0]}; what the other rows set has no effect in so many epochs."
    return Table(caption, columns, tuple(rows), other)


def _figures(results: RunResults, folder: Path) -> list[Block]:
    drawn = draw_figures(results, folder)
    blocks: list[Block] = []
    groups = [figure.group for figure in drawn.figures] + [each.group for each in drawn.absent]
    for heading in dict.fromkeys(groups):
        shown = [figure for figure in drawn.figures if figure.group == heading]
        blocks.append(Pictures(heading, embed(shown)))
        if missing := tuple(each.reason for each in drawn.absent if each.group == heading):
            blocks += [Text("Not drawn, and why:"), Items(missing)]
    return blocks


def _tables(table: Table | None) -> list[Block]:
    return [] if table is None else [Sheet(table)]


def _items(lines: Sequence[str]) -> list[Block]:
    return [Items(tuple(lines))] if lines else []


def _data_uri(svg: Path, png: Path) -> str:
    """SVG, which prints sharply, unless it is large and the PNG is smaller."""
    sizes = {path: path.stat().st_size for path in (svg, png)}
    path = svg if sizes[svg] <= max(_LARGEST_SVG, sizes[png]) else png
    kind = "svg+xml" if path is svg else "png"
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
