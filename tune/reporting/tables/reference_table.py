"""A sweep's rows against the reference row, seed by seed, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from tune.reporting.statistics.intervals import FEWEST_SEEDS, POINTS
from tune.reporting.statistics.significance import FEWEST_PAIRS, Paired, least_p
from tune.reporting.statistics.sweep_rows import (
    RowResult,
    against_reference,
    compared_column,
    headline_column,
    reference_row,
    reference_title,
    sweep_rows,
    trained_rows,
)
from tune.reporting.tables.run_tables import Cell, Column, Table, tabulate
from tune.reporting.text import wording
from tune.reporting.text.wording import NOT_MEASURED
from tune.results.run import RunResults
from tune.results.run_info import is_demo

DEMO = "Demo data, made up: no measured number here says anything about XD-Violence."
DIFFERS = "*"

_Cell = Cell[RowResult]


def comparison_table(results: RunResults) -> Table | None:
    """Every row against the reference row on the same seeds; None without a reference that has a finished seed."""
    rows = sweep_rows(results)
    headline, compared = headline_column(results), compared_column(results)
    found = {
        (column, rule): against_reference(results, rows, column)
        for column, rule in dict.fromkeys([headline, compared])
    }
    if not any(found.values()):
        return None
    first = found[headline]
    reference = reference_row(results, rows)
    others = [row for row in trained_rows(rows) if row != reference]
    columns: list[_Cell] = [
        (Column("Row"), lambda row: row.title),
        (
            Column("Pairs", number=True),
            lambda row: str(first[row.name].difference.n if row.name in first else 0),
        ),
    ]
    for (_, rule), comparisons in found.items():
        columns += _comparison_columns(f"Test AP, {rule}", comparisons)
    marked = [index for index, row in enumerate(others) if row.name in first and first[row.name].differs]
    shown = [item.difference for comparisons in found.values() for item in comparisons.values()]
    caption = " ".join([_comparison_caption(results, others, first), *wording.interval_notes(shown, POINTS)])
    return tabulate(caption, columns, others, marked)


def _comparison_columns(group: str, comparisons: dict[str, Paired]) -> list[_Cell]:
    def difference(row: RowResult) -> str:
        if row.name not in comparisons:
            return NOT_MEASURED
        found = comparisons[row.name]
        text = wording.points_text(found.difference, scale=1)
        return f"{text} {DIFFERS}" if found.differs else text

    def adjusted(row: RowResult) -> str:
        if row.name not in comparisons:
            return NOT_MEASURED
        return _p_text(comparisons[row.name].adjusted) or f"needs {FEWEST_PAIRS} pairs"

    columns: list[_Cell] = [(Column("Difference (points)", group, number=True), difference)]
    if any(item.adjusted is not None for item in comparisons.values()):
        columns.append((Column("p (Holm)", group, number=True), adjusted))
    return columns


def _comparison_caption(
    results: RunResults, rows: Sequence[RowResult], comparisons: dict[str, Paired]
) -> str:
    most = max((item.difference.n for item in comparisons.values()), default=0)
    messages = [DEMO] if is_demo(results.info) else []
    messages.append(
        f"Each row minus {reference_title(results)}, on the seeds that both have finished; test AP, trapezoidal, "
        f"in points; protocol {results.protocol}."
    )
    if any(len(row.alike) > 1 for row in rows):
        messages.append("Rows that are the same training stand in one line.")
    if most >= FEWEST_SEEDS:
        messages.append(
            f"Mean [95 % t interval]; {DIFFERS} where the interval leaves zero out. Each interval stands for itself: "
            "of 20 rows without any difference, about one would be marked."
        )
    elif most == 1:
        messages.append("One pair a row: no interval and no p.")
    tested = sum(item.p is not None for item in comparisons.values())
    if tested:
        least = least_p(most)
        messages.append(
            f"p: the differences with their signs flipped, two-sided, with Holm's correction over {tested} rows. "
            f"{most} pairs can give no p below {_p_text(least)}, "
            f"and after the correction none below {_p_text(min(1.0, tested * least))}."
        )
    elif most > 1:
        messages.append(
            f"No p: {FEWEST_PAIRS} pairs are the fewest whose least attainable p, {_p_text(least_p(FEWEST_PAIRS))}, "
            f"is below 0.05; {most} give {_p_text(least_p(most))} at best."
        )
    if any(row.stopped for row in rows):
        messages.append(
            "Pairs are missing where seeds were stopped early, which favours the rows that lost some."
        )
    return " ".join(messages)


def _p_text(p: float | None) -> str:
    if p is None:
        return ""
    return f"{p:.2f}" if p >= 0.1 else f"{p:.2g}" if p >= 0.001 else "< 0.001"
