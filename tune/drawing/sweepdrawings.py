"""The figures of a sweep: its rows as dots, or AP against the one hyperparameter that it varies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from macil.config import Hyperparameter, hyperparameters
from tune.drawing.captions import basis
from tune.drawing.figures import Drawing, Entry
from tune.drawing.marks import DotRow, dots
from tune.drawing.paperfigures import SweptPoint, sweep_curve
from tune.drawing.stopfigure import stopping
from tune.reporting import wording
from tune.reporting.intervals import Estimate
from tune.reporting.rowresults import (
    RowResult,
    is_papers,
    publisher,
    reference_name,
    sweep_rows,
    trained_rows,
)
from tune.results import RunResults

_GROUP = "The sweep"
_AXIS = "test AP (%), trapezoidal"


def entries(results: RunResults) -> list[Entry]:
    """Figure 3's kind for one varied number, else dots."""
    rows = sweep_rows(results)
    name = swept_number(results, rows)
    if name is not None:
        first = Entry("curve", f"AP against {name}", _GROUP, lambda: _curve(results, rows, name))
    else:
        first = Entry("rows", "Rows of the sweep", _GROUP, lambda: _dots(results, rows))
    order = {row.name: place for place, row in enumerate(rows)}
    trials = [
        trial for trial in results.trials.to_pylist() if trial["kind"] == "search" and trial["row"] in order
    ]
    trials.sort(key=lambda trial: order[trial["row"]])
    stopped = Entry("early-stopping", "Early stopping", _GROUP, lambda: stopping(results, trials))
    return [first, stopped]


def swept_number(results: RunResults, rows: Sequence[RowResult]) -> str | None:
    """The one hyperparameter, a number, in which the rows of a sweep differ; None where they differ otherwise."""
    names = {name for row in rows for name in row.changes}
    if len(names) != 1:
        return None
    (name,) = names
    numbers = {parameter.name for parameter in hyperparameters() if parameter.type in (int, float)}
    values = [_value(results, row, name) for row in rows]
    known = name in numbers and None not in values
    return name if known and len(set(values)) > 1 else None


def row_labels(rows: Sequence[RowResult]) -> list[str]:
    """The rows by the numbers that they set, slowest first and with as many decimals in all; else by their names."""
    described = {parameter.name: parameter for parameter in hyperparameters()}
    names = {name: None for row in rows for name in row.changes}
    numeric = all(name in described and described[name].type in (int, float) for name in names)
    if not names or not numeric:
        return [row.name for row in rows]
    pairs = list(itertools.pairwise(rows))
    order = sorted(names, key=lambda n: sum(a.changes.get(n) != b.changes.get(n) for a, b in pairs))
    decimals = {name: max(_decimals(row.changes.get(name)) for row in rows) for name in order}
    return [
        ", ".join(
            f"{_short(described[name])} {row.changes[name]:.{decimals[name]}f}"
            for name in order
            if name in row.changes
        )
        or row.name
        for row in rows
    ]


def _dots(results: RunResults, rows: Sequence[RowResult]) -> Drawing:
    labels, best = row_labels(rows), results.protocol == "published"
    reference = reference_name(results)
    mark = "paper's" if is_papers(results) else "reference"
    drawn = []
    for row, label, before in zip(rows, labels, ["", *labels], strict=False):
        figure, flattering = row.estimate("ap_trapezoid"), row.estimate("ap_trapezoid_best") if best else None
        drawn.append(
            DotRow(
                name=f"{_as(row)}{label}" + (f" ({mark})" if row.name == reference else ""),
                values=_seeds(row),
                mean=_percent(figure),
                interval=_interval(figure),
                published=row.published,
                best=_percent(flattering),
                begins="," in label and label.rsplit(",", 1)[0] != before.rsplit(",", 1)[0],
            )
        )
    caption = (
        f"Test AP of each row, mean over the finished seeds. {_basis(results, rows)}"
        + (" Squares: the best test epoch, which is chosen on the test set and flatters." if best else "")
        + _published_note(results, rows, best=best)
        + _equal_note(rows)
    )
    return Drawing("Rows of the sweep", caption, _alt(drawn), lambda: dots(drawn, _AXIS, publisher(results)))


def _curve(results: RunResults, rows: Sequence[RowResult], name: str) -> Drawing | None:
    best = results.protocol == "published"
    points = []
    for row in rows:
        figure, flattering = row.estimate("ap_trapezoid"), row.estimate("ap_trapezoid_best") if best else None
        value = float(_value(results, row, name))
        points.append(
            SweptPoint(
                value, _seeds(row), _percent(figure), _interval(figure), _percent(flattering), row.published
            )
        )
    described = {parameter.name: parameter for parameter in hyperparameters()}[name]
    title = f"AP against {described.symbol or name}" + (
        " (Figure 3 of the paper)" if name == "momentum" else ""
    )
    caption = (
        f"Test AP over {name}, {described.help}; mean over the finished seeds. {_basis(results, rows)}"
        + (" Dashed: the best test epoch, which is chosen on the test set and flatters." if best else "")
        + f" Dotted line: the paper's {described.default:g}."
        + _published_note(results, rows, best=best)
        + (" The paper gives its curve as a picture only." if name == "momentum" else "")
        + _equal_note(rows)
    )
    measured = [point for point in points if point.mean is not None]
    if len(measured) < 2:
        return None
    top = max(measured, key=lambda point: point.mean or -math.inf)
    alt = (
        f"Line of test AP over {name} from {min(p.value for p in measured):g} to {max(p.value for p in measured):g}, "
        f"{len(measured)} values; the highest mean, {top.mean:.2f} %, is at {top.value:g}."
    )
    return Drawing(title, caption, alt, lambda: sweep_curve(points, name, _AXIS, publisher(results)))


def _basis(results: RunResults, rows: Sequence[RowResult]) -> str:
    most = max((len(row.finished) for row in rows), default=0)
    seeds = wording.seeds(most) if most < 2 else f"up to {wording.seeds(most)}"
    text = basis(results, seeds, definition="ap_trapezoid")
    if any(figure and figure.cut for figure in (row.estimate("ap_trapezoid") for row in rows)):
        text += " Intervals end where no AP lies beyond, at 0 or 100 %."
    if any(row.stopped for row in rows):
        text += " Some seeds were stopped early: the means are of those that were let finish, which flatters."
    return text


def _as(row: RowResult) -> str:
    """Before the label of a row that is the same training as others: which it is, and the first of them."""
    if len(row.alike) < 2:
        return ""
    return f"{row.name}: " if row.stands else f"{row.name} = {row.alike[0]}: "


def _equal_note(rows: Sequence[RowResult]) -> str:
    groups = [row.title for row in trained_rows(rows) if len(row.alike) > 1]
    return f" The same training, shown in each of its rows: {'; '.join(groups)}." if groups else ""


def _published_note(results: RunResults, rows: Sequence[RowResult], *, best: bool) -> str:
    if all(row.published is None for row in rows):
        return ""
    beside = ", to be compared with the squares" if best else ""
    if swept_number(results, rows):
        beside = ", to be compared with the dashed line" if best else ""
    whose = (
        "printed in the paper (best test epoch, one seed)" if publisher(results) == "paper" else "published"
    )
    return f" Diamonds: as {whose}{beside}."


def _alt(rows: Sequence[DotRow]) -> str:
    measured = [row for row in rows if row.mean is not None]
    if not measured:
        return ""
    low, high = (choose(measured, key=lambda row: row.mean or 0.0) for choose in (min, max))
    return (
        f"Dots with intervals for {len(rows)} rows, {len(measured)} of them measured. Highest mean: {high.name}, "
        f"{high.mean:.2f} %; lowest: {low.name}, {low.mean:.2f} %."
    )


def _value(results: RunResults, row: RowResult, name: str) -> Any:
    """What the row sets, else what its trials were trained with, else the run's."""
    base = results.plan.get("base")
    default = base.get(name) if isinstance(base, dict) else None
    trained = next((trial[name] for trial in row.trials if trial[name] is not None), default)
    return row.changes.get(name, trained)


def _seeds(row: RowResult) -> tuple[float, ...]:
    return tuple(100 * trial["ap_trapezoid"] for trial in row.finished if trial["ap_trapezoid"] is not None)


def _percent(figure: Estimate | None) -> float | None:
    return 100 * figure.mean if figure else None


def _interval(figure: Estimate | None) -> tuple[float, float] | None:
    if figure is None or figure.low is None or figure.high is None:
        return None
    return 100 * figure.low, 100 * figure.high


def _short(parameter: Hyperparameter) -> str:
    return parameter.symbol or parameter.name


def _decimals(value: Any) -> int:
    text = wording.value(float(value)) if isinstance(value, int | float) else ""
    return len(text.partition(".")[2]) or int(isinstance(value, float))
