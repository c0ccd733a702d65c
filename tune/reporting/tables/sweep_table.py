"""A sweep's table: means over seeds, in the paper's order, beside what the paper prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from macil.config import hyperparameters
from macil.evaluation.protocols import epoch_rule
from tune.reporting.statistics.intervals import FEWEST_SEEDS, PERCENT, POINTS, Estimate, estimate
from tune.reporting.statistics.sweep_rows import (
    RowResult,
    compared_column,
    headline_column,
    measured_noise,
    published_difference,
    published_source,
    publisher,
    reference_name,
    reference_title,
    seeds_asked,
    sweep_rows,
)
from tune.reporting.tables.reference_table import DEMO
from tune.reporting.tables.run_tables import Cell, Column, Table, tabulate, varied
from tune.reporting.text import wording
from tune.reporting.text.wording import NOT_MEASURED
from tune.results.run import RunResults
from tune.results.run_info import is_demo

FEWER, STOPPED = "†", "‡"
_CHECK = {True: "✓", False: "✗", None: NOT_MEASURED}
# What the paper's Table 3 calls the components, of which the two-stream network is in every row.
_COMPONENTS = {"contrast": "MA-CIL", "distill": "SD"}


def sweep_table(results: RunResults) -> Table | None:
    """The sweep as the paper lays it out, ours beside the published; None for a search."""
    rows = sweep_rows(results)
    if not rows:
        return None
    asked = seeds_asked(results, rows)
    columns = [
        *_configuration_columns(results, rows),
        (Column("Seeds"), lambda row: _seed_text(row, asked)),
        *_measured_columns(results, rows, asked),
        *_published_columns(results, rows, asked),
        *_parameter_columns(rows),
    ]
    marked = [index for index, row in enumerate(rows) if row.name == reference_name(results)]
    return tabulate(_caption(results, rows, asked), columns, rows, marked)


_Cell = Cell[RowResult]


def _configuration_columns(results: RunResults, rows: Sequence[RowResult]) -> list[_Cell]:
    described = {parameter.name: parameter for parameter in hyperparameters()}
    changed = {name for row in rows for name in row.changes} | set(varied(results))
    names = [name for name in described if name in changed and name != "seed"]
    if results.plan.sweep == "table4":
        names.sort(key=lambda name: name != "lambda_v2n")  # the paper's first column

    def title(row: RowResult) -> str:
        notes = ["reference"] if row.name == reference_name(results) else []
        notes += [] if row.stands else [f"as {row.alike[0]}"]
        return f"{row.name} ({', '.join(notes)})" if notes else row.name

    if len(names) == 1 and all("=" in row.name for row in rows):
        # "m=0.91" already is the one value that is swept.
        symbol = described[names[0]].symbol or names[0]
        return [(Column(symbol, number=True), lambda row: title(row).partition("=")[2])]
    columns: list[_Cell] = [(Column("Row"), title)]
    components = [name for name in names if name in _COMPONENTS]
    if components:
        columns.append((Column("Two-stream", "Components"), lambda _: _CHECK[True]))
        columns += [(Column(_COMPONENTS[name], "Components"), _check(name)) for name in components]
    return columns + [
        (Column(described[name].symbol or name, "Hyperparameters", number=True), _value(name))
        for name in names
        if name not in components
    ]


def _check(name: str) -> Callable[[RowResult], str]:
    return lambda row: _CHECK[_setting(row, name)]


def _value(name: str) -> Callable[[RowResult], str]:
    return lambda row: wording.value(_setting(row, name))


def _measured_columns(results: RunResults, rows: Sequence[RowResult], asked: int) -> list[_Cell]:
    _, rule = headline_column(results)
    group, best = f"Test AP (%), {rule}", "Best test epoch"
    several = any(len(row.finished) > 1 for row in rows)

    def estimates(title: str, group: str, column: str, *, deviation: bool) -> list[_Cell]:
        def mean(row: RowResult) -> str:
            figure = row.estimate(column)
            return _with_mark(wording.estimate_text(figure), figure, row, asked)

        def spread(row: RowResult) -> str:
            figure = row.estimate(column)
            return wording.percent(figure.deviation if figure else None)

        cells: list[_Cell] = [(Column(title, group, number=True), mean)]
        return [*cells, (Column("SD", group, number=True), spread)] if deviation and several else cells

    columns = estimates("Trapezoidal", group, "ap_trapezoid", deviation=True)
    columns += estimates("Step-wise", group, "ap", deviation=False)
    if results.protocol == "published":
        columns += estimates("Trapezoidal", best, "ap_trapezoid_best", deviation=False)
    return columns


def _published_columns(results: RunResults, rows: Sequence[RowResult], asked: int) -> list[_Cell]:
    if not any(row.published is not None for row in rows):
        return []
    column, _ = compared_column(results)
    noise = measured_noise(rows, column)

    def difference(row: RowResult) -> str:
        found = published_difference(row, column, noise)
        if found is None:
            return NOT_MEASURED
        return _with_mark(wording.points_text(found, scale=1), found, row, asked)

    group = "Paper (one seed)" if publisher(results) == "paper" else "Published"
    return [
        (
            Column("AP (%)", group, number=True),
            lambda row: NOT_MEASURED if row.published is None else f"{row.published:.2f}",
        ),
        (Column("Difference", group, number=True), difference),
    ]


def _parameter_columns(rows: Sequence[RowResult]) -> list[_Cell]:
    """Both counts; none where all rows have the same, which the caption then says."""
    if len(_parameters(rows)) < 2:
        return []
    return [
        (Column("Used", "Parameters", number=True), lambda row: _first(row, "parameters")),
        (Column("Published", "Parameters", number=True), lambda row: _first(row, "parameters_published")),
    ]


def _caption(results: RunResults, rows: Sequence[RowResult], asked: int) -> str:
    most = max((len(row.finished) for row in rows), default=0)
    seeds = "one seed a row, no interval"
    if most > 1:
        interval = " [95 % t interval]" if most >= FEWEST_SEEDS else ""
        seeds = f"mean over seeds{interval}, up to {most} seeds a row; SD: standard deviation over seeds"
    messages = [
        *([DEMO] if is_demo(results.info) else []),
        f"Test AP in %, frame level; protocol {results.protocol}; {_rule_text(results)}; {seeds}.",
        "Only seeds with a whole training enter a mean.",
    ]
    if any(not row.stands for row in rows):
        messages.append(
            "(as …): the same training as that row in so many epochs, shown again and counted once."
        )
    messages += wording.interval_notes(
        (row.estimate(column) for row in rows for column in _shown(results)), PERCENT
    )
    if any(0 < len(row.finished) < asked for row in rows):
        messages.append(f"{FEWER} Over fewer seeds than the {asked} asked for: the column Seeds says why.")
    if any(row.stopped for row in rows):
        messages.append(
            f"{STOPPED} Stopped early: not a whole training, and in no mean. The seeds that were let finish are the "
            "better ones, so the mean of such a row flatters."
        )
    if results.protocol == "published":
        messages.append(
            "The best test epoch is the published convention: chosen on the test set, which flatters."
        )
    if any(row.published is not None for row in rows):
        messages += _published_notes(results, rows)
    if any(row.name == reference_name(results) for row in rows):
        messages.append(f"Marked: {reference_title(results)}, which the others are compared with.")
    return " ".join([*messages, *_costs(rows)])


def _shown(results: RunResults) -> list[str]:
    """The columns of the trials that the table has an estimate of."""
    return [
        "ap_trapezoid",
        "ap",
        *(["ap_trapezoid_best"] if results.protocol == "published" else []),
    ]


def _costs(rows: Sequence[RowResult]) -> list[str]:
    messages = []
    counts = _parameters(rows)
    if len(counts) == 1:
        ((used, published),) = counts
        messages.append(f"Parameters in every row: {used} in use, {published} in the published convention.")
    seconds = [figure.mean for row in rows if (figure := estimate(trial.seconds for trial in row.finished))]
    if seconds:
        low, high = wording.duration(min(seconds)), wording.duration(max(seconds))
        messages.append(f"Time a seed: {low}." if low == high else f"Time a seed: {low} to {high}.")
    return messages


def _parameters(rows: Sequence[RowResult]) -> set[tuple[str, str]]:
    counts = {(_first(row, "parameters"), _first(row, "parameters_published")) for row in rows}
    return {pair for pair in counts if NOT_MEASURED not in pair}


def _rule_text(results: RunResults) -> str:
    return wording.EPOCH_RULES[epoch_rule(results.protocol)]


def _published_notes(results: RunResults, rows: Sequence[RowResult]) -> list[str]:
    column, rule = compared_column(results)
    whose = publisher(results)
    known = (
        "trapezoidal AP, best test epoch, one seed"
        if whose == "paper"
        else "taken for the AP of one training"
    )
    noted = [f"{whose.capitalize()}: {published_source(results, rows)}; {known}."]
    difference = f"Difference: ours ({rule}) minus {whose}"
    noise = measured_noise(rows, column)
    found = [published_difference(row, column, noise) for row in rows]
    if any(item and item.low is not None for item in found):
        difference += (
            ", with the 95 % interval that the noise between our seeds gives to a mean and a single training"
        )
    reach = (
        f", by which no two AP differ beyond {POINTS[1]:g} points" if any(i and i.cut for i in found) else ""
    )
    return [*noted, f"{difference}{reach}."]


def _seed_text(row: RowResult, asked: int) -> str:
    finished, asked = len(row.finished), max(asked, len(row.trials))
    mark = f" {FEWER}" if 0 < finished < asked else ""
    others = Counter(trial.status for trial in row.trials if trial.status != "finished")
    messages = [
        f"{number} {status}{f' {STOPPED}' if status == 'stopped' else ''}"
        for status, number in sorted(others.items())
    ]
    missing = asked - len(row.trials)
    if missing:
        messages.append(f"{missing} not started")
    return ", ".join([f"{finished}/{asked}{mark}", *messages])


def _with_mark(text: str, figure: Estimate | None, row: RowResult, asked: int) -> str:
    return f"{text} {FEWER}" if figure and figure.n < max(asked, len(row.trials)) else text


def _setting(row: RowResult, name: str) -> Any:
    trained = row.trials[0].config if row.trials else {}
    return row.changes.get(name, trained.get(name))


def _first(row: RowResult, name: str) -> str:
    return wording.count(getattr(row.trials[0], name) if row.trials else None)
