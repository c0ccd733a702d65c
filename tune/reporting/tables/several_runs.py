"""Several runs as tables: what each found, and the rows of sweeps that more than one did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tune.reporting.pages.first_screen import better_than_reference, kind
from tune.reporting.statistics import outcome
from tune.reporting.statistics.comparability import DIGEST
from tune.reporting.statistics.intervals import FEWEST_SEEDS, PERCENT, POINTS, SHARE, Estimate, estimate
from tune.reporting.statistics.model_interval import ModelInterval, model_intervals
from tune.reporting.statistics.significance import paired
from tune.reporting.statistics.sweep_rows import headline_column, sweep_rows, trained_rows
from tune.reporting.tables.run_tables import Column, Table
from tune.reporting.text import run_facts as summary
from tune.reporting.text import wording
from tune.reporting.text.wording import NOT_MEASURED
from tune.results.label_access import read_label_accesses
from tune.results.run import RunResults


@dataclass(frozen=True)
class Compared:
    """A run under the name it has on the page, with its result."""

    name: str
    results: RunResults
    found: outcome.Outcome
    intervals: dict[str, ModelInterval]

    @property
    def headline(self) -> Estimate | None:
        """Test AP of the result, trapezoidal, as a share."""
        return outcome.headline_estimate(self.found, self.intervals)


def name_runs(runs: Sequence[RunResults]) -> list[Compared]:
    """The runs under names that tell them apart, with their results."""
    ways: tuple[Callable[[RunResults], str], ...] = (
        lambda run: run.name,
        lambda run: run.path.name,
        lambda run: f"{run.path.parent.name}/{run.path.name}",
        lambda run: str(run.path),
    )
    names = next(tried for way in ways if len(set(tried := [way(run) for run in runs])) == len(runs))
    compared = []
    for name, run in zip(names, runs, strict=True):
        found = outcome.find_outcome(run)
        compared.append(
            Compared(name, run, found, model_intervals(run, found.trials if len(found.trials) == 1 else ()))
        )
    return compared


def runs_table(compared: Sequence[Compared]) -> Table:
    """The runs as columns: what they are, what they found."""
    lines: list[tuple[str, Callable[[Compared], str]]] = [
        ("Kind", lambda each: kind(each.results)),
        ("Status", lambda each: each.results.status),
        ("Data", lambda each: summary.data_in_short(each.results)),
        (
            "Data, content hash",
            lambda each: (each.results.info.store_hash or NOT_MEASURED)[:DIGEST],
        ),
        (
            "Test labels, hash",
            lambda each: (each.results.info.labels_hash or NOT_MEASURED)[:DIGEST],
        ),
        ("Protocol", lambda each: each.results.protocol),
        ("Trainings", lambda each: summary.trials_in_short(each.results)),
        ("Result", lambda each: each.found.subject),
        (
            "Seeds of the result",
            lambda each: str(len(each.found.trials)) if each.found.trials else NOT_MEASURED,
        ),
        ("Epoch rule of the result", _rule),
        ("Test AP (%), trapezoidal", lambda each: wording.estimate_text(each.headline)),
        ("Interval", _interval_kind),
        (
            "Test AP (%), step-wise",
            lambda each: wording.estimate_text(outcome.headline_estimate(each.found, each.intervals, "ap")),
        ),
        ("Winner minus reference", _against_reference),
        ("Parameters in use", lambda each: wording.count(_first(each, "parameters"))),
        ("Parameters as published", lambda each: wording.count(_first(each, "parameters_published"))),
        (
            "Time of training, all",
            lambda each: wording.duration(sum(each.results.trials["seconds"].drop_null().to_pylist())),
        ),
        ("Accesses to the test labels", lambda each: str(len(read_label_accesses(each.results.path, [])))),
        ("Folder", lambda each: shown_location(each.results)),
    ]
    if any(each.results.protocol == "published" for each in compared):
        lines.insert(13, ("Test AP (%), best test epoch (convention)", _best))
    columns = (Column("Run"), *(Column(each.name) for each in compared))
    cells = tuple((title, *(cell(each) for each in compared)) for title, cell in lines)
    caption = (
        "Test AP: frame level. A mean over three seeds or more has a 95 % t interval; the AP of a single model one "
        "over test videos, which holds no noise between seeds. Test APs of a refit (all training videos) and of a "
        "trial (80 % of them) are different things: see Protocol and Result."
    )
    caption = " ".join([caption, *wording.interval_notes((each.headline for each in compared), PERCENT)])
    return Table(caption, columns, cells, frozenset({10}))


def shared_sweeps(compared: Sequence[Compared]) -> dict[str, list[Compared]]:
    """The sweeps that two or more of the runs did, with these runs."""
    sweeps: dict[str, list[Compared]] = {}
    for each in compared:
        if each.results.info.sweep:
            sweeps.setdefault(each.results.info.sweep, []).append(each)
    return {sweep: group for sweep, group in sweeps.items() if len(group) > 1}


def rows_tables(compared: Sequence[Compared]) -> list[Table]:
    """A table for each shared sweep: its rows side by side, with the differences to the first run."""
    return [_rows_table(sweep, group) for sweep, group in shared_sweeps(compared).items()]


def shown_location(run: RunResults) -> str:
    """The path or URI of a run, as it is to be typed."""
    return run.location.shown


def _rows_table(sweep: str, group: Sequence[Compared]) -> Table:
    column, rule = headline_column(group[0].results)
    by_run = [{row.name: row for row in sweep_rows(each.results)} for each in group]
    names = list(dict.fromkeys(name for rows in by_run for name in rows))
    first = group[0].name
    columns = [Column("Row")]
    for each in group:
        columns += [Column("AP (%)", each.name, number=True), Column("Seeds", each.name, number=True)]
    columns += [Column(f"{each.name} − {first}", "Difference (points)", number=True) for each in group[1:]]
    cells = []
    means: list[Estimate | None] = []
    differences: list[Estimate | None] = []
    for name in names:
        rows = [own.get(name) for own in by_run]
        line = [name]
        for row in rows:
            mean = row.estimate(column) if row else None
            means.append(mean)
            line += [wording.estimate_text(mean), str(mean.n) if mean else NOT_MEASURED]
        reference = rows[0].by_seed(column) if rows[0] else {}
        for row in rows[1:]:
            found = paired(row.by_seed(column), reference, PERCENT) if row else None
            differences.append(found.difference if found else None)
            line.append(wording.points_text(differences[-1], scale=1))
        cells.append(tuple(line))
    caption = (
        f"Sweep {sweep}: test AP in %, frame level, trapezoidal, {rule}; mean over finished seeds [95 % t interval]. "
        f"Difference to {first}: paired, on the seeds that both have [95 % t interval where there are "
        f"{FEWEST_SEEDS} or more]."
    )
    same: dict[str, list[str]] = {}
    for each in group:
        titles = [row.title for row in trained_rows(sweep_rows(each.results)) if len(row.alike) > 1]
        if titles:
            same.setdefault("; ".join(titles), []).append(each.name)
    notes = [
        f"The same training, shown in each of its rows ({', '.join(names)}): {titles}."
        for titles, names in same.items()
    ]
    other = [name for name in names if len({repr(own[name].changes) for own in by_run if name in own}) > 1]
    if other:
        notes.append(f"By the same name, but with other values in these runs: row {', '.join(other)}.")
    notes += dict.fromkeys(
        [*wording.interval_notes(means, PERCENT), *wording.interval_notes(differences, POINTS)]
    )
    caption = " ".join([caption, *notes])
    return Table(caption, tuple(columns), tuple(cells))


def _rule(each: Compared) -> str:
    rule = _first(each, "epoch_rule")
    return NOT_MEASURED if rule is None else wording.EPOCH_RULES.get(str(rule), str(rule))


def _first(each: Compared, name: str) -> Any:
    return getattr(each.found.replayed, name, None)


def _interval_kind(each: Compared) -> str:
    figure = each.headline
    if figure is not None and figure.values:
        return f"none: {wording.NEEDED}"
    if figure is None or figure.low is None:
        return "none"
    return f"t, over {figure.n} seeds" if figure.n > 1 else "bootstrap, over test videos"


def _best(each: Compared) -> str:
    return wording.estimate_text(estimate((trial.ap_trapezoid_best for trial in each.found.trials), SHARE))


def _against_reference(each: Compared) -> str:
    answer = better_than_reference(each.results, each.found)
    return " – ".join(part for part in (answer.number, *answer.messages) if part)
