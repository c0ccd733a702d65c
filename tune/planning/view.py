"""The resolved plan, as `--dry-run` and the start of a run show it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from macil.config import departures
from tune.algorithms.space import is_whole
from tune.planning.advice import distinct_points, points_text
from tune.planning.counts import counted_rows, epochs_text
from tune.planning.plan import Plan
from tune.planning.run_spec import compose_config
from tune.planning.space import reference_title
from tune.planning.space_file import describe, text_of
from tune.storage.run_folder import Workspace


def print_plan(
    console: Console, plan: Plan, run: Workspace, address: str | None, bags: Sequence[str]
) -> None:
    """The resolved plan, as `--dry-run` shows it; `bags` are the lines of `tune.planning.bags`."""
    table = Table(title=f"run {run.name}", title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in _plan_lines(plan, address):
        table.add_row(key, value)
    table.add_row("bags", bags[0])
    table.add_row("folder", run.location)
    console.print(table, markup=False)
    for note in (*plan.notes, *bags[1:]):
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


def _plan_lines(plan: Plan, address: str | None) -> Iterator[tuple[str, str]]:
    epochs = plan.base.epochs
    yield "data", plan.data or "the demo data set (made on first use)"
    yield "protocol", f"{plan.protocol}; AP at the {plan.epoch_rule} epoch"
    if plan.sweep:
        yield "sweep", f"{plan.sweep}: {plan.title} ({plan.source})"
        for row in plan.rows:
            source = f", {row.source}" if row.source else ""
            published = "" if row.published_ap is None else f"  (published {row.published_ap:.2f} %{source})"
            same = row.trained_as
            trained = "" if same in (None, row.name) else f"; the same training as row {same}"
            yield (
                f"row {row.name}",
                ", ".join(f"{k} {v}" for k, v in row.changes.items()) + published + trained,
            )
        yield "seeds", ", ".join(map(str, plan.seeds)) + _together(plan.lockstep)
        yield (
            "trials",
            counted_rows(len(plan.rows), len(plan.trained_rows), len(plan.seeds))
            + f" = {plan.trials}, {epochs} epochs each",
        )
        if plan.stopping is not None:
            yield "stopping", plan.early_stopping
    else:
        yield "trials", f"{plan.trials} suggestions of up to {epochs} epochs; {plan.suggestions}"
        points = distinct_points(plan.space)
        yield "space", "continuous: any number of points" if points is None else points_text(points)
        for name, dimension in plan.space.items():
            first = text_of(plan.first[name]) if name in plan.first else "suggested"
            yield f"search {name}", f"{describe(dimension)}; first {first}"
        for number, point in enumerate(plan.enqueued, start=1):
            yield f"enqueued {number}", ", ".join(f"{name} {text_of(value)}" for name, value in point.items())
        yield "stopping", plan.early_stopping
        if plan.confirm:
            seeds = plan.confirm_seeds
            beside = ""
            if is_whole(plan.space, plan.first):
                reference = compose_config(plan.base, plan.first).to_dict()
                title = reference_title(reference)
                what = " (the paper's values of what is searched)" if departures(reference) else ""
                beside = f" and {title}{what}"
            what = (
                f"the {plan.confirm.configurations} best configurations{beside}, before the winner is named"
            )
            yield "confirm", f"{what}: seeds {seeds[0]} to {seeds[-1]} each{_together(plan.confirm_together)}"
        if plan.refits:
            yield (
                "refit",
                f"the winner on all training videos, seeds {', '.join(map(str, plan.seeds))}{_together(plan.lockstep)}",
            )
    for name, value in plan.fixed.items():
        yield f"fixed {name}", str(value)
    yield "epochs", f"at most {epochs_text(plan.epochs_by_kind)}"
    gpus = f", {plan.gpus_per_trial:g} GPU" if plan.gpus_per_trial else ""
    at_once = min(plan.concurrent, plan.tune_trials)
    most = "at most " if address else ""  # a cluster grows
    yield "resources", f"{most}{at_once} at once, {plan.cpus_per_trial:g} CPU{gpus} each"
    if plan.gpus_per_trial:
        yield (
            "data",
            "one copy of the training bags on each GPU and worker, loaded from this host's one memory map",
        )
    yield "where", f"the Ray cluster at {address}" if address else "this machine"


def _together(lockstep: bool) -> str:
    return ", in lockstep on one GPU" if lockstep else ""
