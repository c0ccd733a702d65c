"""The search's best configurations on fresh seeds, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from macil.evaluation.protocols import epoch_rule
from tune.reporting.statistics.confirmation import Confirmed, confirmed_rows
from tune.reporting.statistics.intervals import MARGIN, PERCENT, POINTS, SHARE, Bounds
from tune.reporting.statistics.reference import reference_called, reference_in_full
from tune.reporting.statistics.significance import FEWEST_PAIRS, Paired, least_p, paired_with
from tune.reporting.tables.run_tables import Column, Table
from tune.reporting.text import wording
from tune.reporting.text.wording import NOT_MEASURED
from tune.results.run import RunResults

# Columns that the table has an estimate of, and what they lie between as they stand there.
_SHOWN = {"selection_score": MARGIN, "ap_trapezoid": PERCENT, "ap": PERCENT}


def confirmation_table(results: RunResults) -> Table | None:
    """Searched score, score and test AP on fresh seeds, difference to the reference; None without any."""
    rows = confirmed_rows(results)
    if not rows:
        return None
    reference = next((row.name for row in rows if row.reference), None)
    differences = (
        {}
        if reference is None
        else paired_with({row.name: row.by_seed("ap_trapezoid") for row in rows}, reference, SHARE)
    )
    with_p = any(item.p is not None for item in differences.values())
    score, ap = "Selection score", f"Test AP (%), {epoch_rule(results.protocol)} epoch"
    named = next((row for row in rows if row.reference and row.searched), None)
    minus = f"Test AP minus {reference_called(named.searched) if named and named.searched else 'reference'}"
    columns = [
        Column("Configuration"),
        Column("Seeds"),
        Column("Searched", score, number=True),
        Column("Confirmed", score, number=True),
        Column("Regression", score, number=True),
        Column("Trapezoidal", ap, number=True),
        Column("Step-wise", ap, number=True),
        *([Column("Points", minus, number=True)] if reference else []),
        *([Column("p (Holm)", minus, number=True)] if with_p else []),
    ]
    cells = tuple(
        (
            _label(row),
            _seeds(row),
            wording.decimal(row.searched.selection_score if row.searched else None),
            wording.score_text(row.estimate("selection_score")),
            wording.signed(row.regression),
            wording.estimate_text(row.estimate("ap_trapezoid")),
            wording.estimate_text(row.estimate("ap")),
            *([_difference(differences.get(row.name), reference=row.reference)] if reference else []),
            *([_p(differences.get(row.name))] if with_p else []),
        )
        for row in rows
    )
    marked = frozenset(index for index, row in enumerate(rows) if row.winner)
    notes = [
        *(note for column, ends in _SHOWN.items() for note in _notes(rows, column, ends)),
        *wording.interval_notes((item.difference for item in differences.values()), POINTS),
    ]
    caption = " ".join(dict.fromkeys([_caption(results, rows, reference), *notes]))
    return Table(caption, tuple(columns), cells, marked)


def configuration_notes(row: Confirmed) -> list[str]:
    """The notes that stand beside the name of a configuration."""
    called = reference_called(row.searched) if row.searched else "reference"
    return [text for text, holds in (("winner", row.winner), (called, row.reference)) if holds]


def _notes(rows: Sequence[Confirmed], column: str, ends: Bounds) -> list[str]:
    return wording.interval_notes((row.estimate(column) for row in rows), ends)


def _label(row: Confirmed) -> str:
    notes = configuration_notes(row)
    return f"trial {row.name}" + (f" ({', '.join(notes)})" if notes else "")


def _seeds(row: Confirmed) -> str:
    states = [trial.status for trial in row.trainings if trial.status != "finished"]
    others = [f"{states.count(state)} {state}" for state in sorted(set(states))]
    return ", ".join([f"{len(row.finished)}/{row.asked}", *others])


def _difference(item: Paired | None, *, reference: bool) -> str:
    if reference:
        return "reference"
    return wording.points_text(item.difference if item else None)


def _p(item: Paired | None) -> str:
    if item is None or item.p is None:
        return NOT_MEASURED
    adjusted = "" if item.adjusted is None else f" ({item.adjusted:.3f})"
    return f"{item.p:.3f}{adjusted}"


def _caption(results: RunResults, rows: Sequence[Confirmed], reference: str | None) -> str:
    seeds = sorted({trial.seed for row in rows for trial in row.trainings if trial.seed is not None})
    which = (
        f" (seeds {seeds[0]} to {seeds[-1]})" if len(seeds) > 1 else f" (seed {seeds[0]})" if seeds else ""
    )
    most = max((len(row.finished) for row in rows), default=0)
    rule = epoch_rule(results.protocol)
    videos = wording.TRAINED_ON.get(results.protocol, "not known which")
    text = (
        f"The search's best different configurations, each trained again on fresh seeds{which} that no trial of the "
        f"search had, on the videos that it had ({videos}). Means over the finished seeds; the best mean selection "
        "score wins. Searched: one seed, the score it was picked by. Regression: confirmed minus searched. "
        f"{wording.ap_basis(results.protocol, rule, most)}"
    )
    if reference is not None:
        of = next((row.searched for row in rows if row.reference and row.searched), None)
        title = reference_in_full(of) if of else f"trial {reference}"
        text += f" Difference to {title}: paired, in points of trapezoidal AP on the same seeds."
        pairs = max((len(row.by_seed("ap_trapezoid")) for row in rows), default=0)
        text += (
            f" p: two-sided, the differences with their signs flipped; {pairs} seeds give {least_p(pairs):.3g} or more."
            if pairs >= FEWEST_PAIRS
            else ""
        )
    return text
