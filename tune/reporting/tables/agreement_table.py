"""The agreement of the held-out figures with the test AP, as a table."""

from __future__ import annotations

from macil.io.wording import plural
from tune.reporting.statistics.selection_agreement import Agreement, agreements, measured_trials
from tune.reporting.tables.run_tables import Column, Table
from tune.reporting.text.agreement_verdict import figure_called, rho_text
from tune.reporting.text.wording import NOT_MEASURED
from tune.results.ranking import different_trainings
from tune.results.run import RunResults


def agreement_table(results: RunResults) -> Table | None:
    """The rank correlations; None where `agreements` has none."""
    every = agreements(results)
    if not every:
        return None
    whole = {each.column: each for each in agreements(results, finished=True)}
    columns = (
        Column("Held-out figure"),
        Column("Spearman ρ", "All trials", number=True),
        Column("Trials", "All trials", number=True),
        Column("Distinct values", "All trials", number=True),
        Column("Spearman ρ", "Trained to the end", number=True),
        Column("Trials", "Trained to the end", number=True),
    )
    cells = tuple(
        (
            figure_called(each.column),
            rho_text(each),
            str(each.n),
            str(each.distinct),
            *_whole(whole.get(each.column)),
        )
        for each in every
    )
    caption = (
        "Rank correlation of each held-out figure with the test AP (trapezoidal) over the trials of this search, both "
        "at the trial's chosen epoch; one seed each. 1: the same order, 0: none, −1: the reverse. The test labels took "
        "no part in the choice: they were opened after it, and this table changes nothing in it."
    )
    measured = measured_trials(results)
    repeats = len(measured) - len(different_trainings(measured))
    if repeats:
        caption += f" Each training counts once: {plural(repeats, 'trial')} repeated another's."
    return Table(caption, columns, cells)


def _whole(each: Agreement | None) -> tuple[str, str]:
    return (NOT_MEASURED, NOT_MEASURED) if each is None else (rho_text(each), str(each.n))
