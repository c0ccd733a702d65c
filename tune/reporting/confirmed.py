"""The search's best configurations on fresh seeds: which one holds, and how much the search flattered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tune.reporting import wording
from tune.reporting.comparison import FEWEST_PAIRS, Paired, least_p, paired, paired_with
from tune.reporting.intervals import Estimate, estimate
from tune.reporting.sections import Column, Table, trial_name
from tune.reporting.wording import NOT_MEASURED
from tune.results import RunResults, planned_confirmation

Trial = dict[str, Any]


@dataclass(frozen=True)
class Confirmed:
    """One configuration: the searched trial, and its trainings on fresh seeds, as many as were `asked` for."""

    name: str
    searched: Trial | None
    trainings: tuple[Trial, ...]
    asked: int
    reference: bool
    winner: bool

    @property
    def finished(self) -> list[Trial]:
        """The seeds with a whole training."""
        return [trial for trial in self.trainings if trial["status"] == "finished"]

    def by_seed(self, column: str) -> dict[int, float]:
        """Seed to measurement, of the finished trainings that have one."""
        return {trial["seed"]: trial[column] for trial in self.finished if trial[column] is not None}

    def estimate(self, column: str) -> Estimate | None:
        """Mean over the fresh seeds; a seed that failed enters no mean."""
        return estimate(self.by_seed(column).values())

    @property
    def regression(self) -> float | None:
        """Mean selection score on fresh seeds, minus the searched one: below zero where the search flattered."""
        mean = self.estimate("selection_score")
        if mean is None or self.searched is None or self.searched["selection_score"] is None:
            return None
        return float(mean.mean - self.searched["selection_score"])


def confirmed_rows(results: RunResults) -> list[Confirmed]:
    """The configurations in the order in which they win; empty without a confirmation.

    By mean selection score on the fresh seeds, best first, but those of which a training failed stand behind all that
    have more.
    """
    rows = results.trials.to_pylist()
    trainings = [row for row in rows if row["kind"] == "confirm"]
    planned = planned_confirmation(results.info)
    names = list(dict.fromkeys([*(name for name, _ in planned), *(str(row["row"]) for row in trainings)]))
    searched = {trial_name(row): row for row in rows if row["kind"] == "search"}
    confirm, winner = results.info.get("confirm"), results.info.get("winner")
    reference = confirm.get("reference") if isinstance(confirm, dict) else None
    named = winner.get("trial") if isinstance(winner, dict) else None
    seeds = len({seed for _, seed in planned})
    found = []
    for name in names:
        own = sorted((row for row in trainings if str(row["row"]) == name), key=lambda row: row["seed"] or 0)
        found.append(
            Confirmed(
                name, searched.get(name), tuple(own), max(seeds, len(own)), name == reference, name == named
            )
        )
    return sorted(found, key=_order)


def against_reference(results: RunResults, name: str, column: str) -> Paired | None:
    """Configuration `name` minus the paper's setting on the same fresh seeds; None when that cannot be had."""
    rows = {row.name: row for row in confirmed_rows(results)}
    reference = next((row for row in rows.values() if row.reference), None)
    if reference is None or name not in rows or name == reference.name:
        return None
    return paired(rows[name].by_seed(column), reference.by_seed(column))


def confirmation_table(results: RunResults) -> Table | None:
    """Searched score, score and test AP on fresh seeds, difference to the paper's setting; None without any."""
    rows = confirmed_rows(results)
    if not rows:
        return None
    reference = next((row.name for row in rows if row.reference), None)
    differences = (
        {}
        if reference is None
        else paired_with({row.name: row.by_seed("ap_trapezoid") for row in rows}, reference)
    )
    with_p = any(item.p is not None for item in differences.values())
    score, ap, paper = "Selection score", "Test AP (%), chosen epoch", "Test AP minus paper's setting"
    columns = [
        Column("Configuration"),
        Column("Seeds"),
        Column("Searched", score, number=True),
        Column("Confirmed", score, number=True),
        Column("Regression", score, number=True),
        Column("Trapezoidal", ap, number=True),
        Column("Step-wise", ap, number=True),
        *([Column("Points", paper, number=True)] if reference else []),
        *([Column("p (Holm)", paper, number=True)] if with_p else []),
    ]
    cells = tuple(
        (
            _label(row),
            _seeds(row),
            wording.decimal(row.searched["selection_score"] if row.searched else None),
            wording.score_text(row.estimate("selection_score")),
            wording.signed(row.regression),
            wording.estimate_text(row.estimate("ap_trapezoid")),
            wording.estimate_text(row.estimate("ap")),
            *([_difference(differences.get(row.name), reference=row.reference)] if reference else []),
            *([_p(differences.get(row.name))] if with_p else []),
        )
        for row in rows
    )
    marked = frozenset(place for place, row in enumerate(rows) if row.winner)
    return Table(_caption(rows, reference), tuple(columns), cells, marked)


def confirmation_verdicts(results: RunResults) -> list[str]:
    """What the confirmation says, in sentences; empty before a configuration has a finished training."""
    rows = [row for row in confirmed_rows(results) if row.estimate("selection_score")]
    if not rows:
        return []
    said = []
    first = max(rows, key=lambda row: row.searched["selection_score"] if row.searched else float("-inf"))
    if first.regression is not None and first.searched is not None:
        score = wording.decimal(first.searched["selection_score"])
        fresh = wording.score_text(first.estimate("selection_score"))
        how = "less" if first.regression < 0 else "more"
        said.append(
            f"The best searched score, {score} (trial {first.name}, one seed), came to {fresh} on fresh seeds: "
            f"{wording.decimal(abs(first.regression))} {how}. The best of many trials is partly luck: this is how much."
        )
    holds = rows[0].name == first.name
    if len(rows) > 1:
        said.append(
            f"Trial {rows[0].name} is the best on fresh seeds"
            + (", as it was in the search." if holds else f"; in the search it was trial {first.name}.")
        )
    return said


def _order(row: Confirmed) -> tuple[int, float]:
    mean = row.estimate("selection_score")
    return (-mean.n, -mean.mean) if mean else (0, 0.0)


def _label(row: Confirmed) -> str:
    notes = [text for text, holds in (("winner", row.winner), ("paper's setting", row.reference)) if holds]
    return f"trial {row.name}" + (f" ({', '.join(notes)})" if notes else "")


def _seeds(row: Confirmed) -> str:
    states = [trial["status"] for trial in row.trainings if trial["status"] != "finished"]
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


def _caption(rows: Sequence[Confirmed], reference: str | None) -> str:
    seeds = sorted({trial["seed"] for row in rows for trial in row.trainings if trial["seed"] is not None})
    which = (
        f" (seeds {seeds[0]} to {seeds[-1]})" if len(seeds) > 1 else f" (seed {seeds[0]})" if seeds else ""
    )
    text = (
        f"The search's best, each trained again on fresh seeds{which} that no trial of the search had, on the same "
        "80 % of the training videos. Means over the finished seeds [95 % t interval]; the best mean selection score "
        "wins. Searched: one seed, the score it was picked by. Regression: confirmed minus searched. "
        f"{wording.ap_basis('heldout', 'chosen', max((len(row.finished) for row in rows), default=0))}"
    )
    if reference is not None:
        text += " Difference to the paper's setting: paired, in points of trapezoidal AP on the same seeds."
        pairs = max((len(row.by_seed("ap_trapezoid")) for row in rows), default=0)
        text += (
            f" p: two-sided, the differences with their signs flipped; {pairs} seeds give {least_p(pairs):.3g} or more."
            if pairs >= FEWEST_PAIRS
            else ""
        )
    return text
