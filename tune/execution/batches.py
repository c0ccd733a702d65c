"""From a plan to the trials that Tune runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from macil.data.split import Split
from macil.data.store.feature_store import FeatureStore
from macil.io.remote import is_uri
from tune.algorithms.study import SearchStudy
from tune.execution.batch_runner import Batch
from tune.execution.tune_scheduler import StoppingScheduler
from tune.planning.plan import Plan
from tune.planning.run_spec import RunSpec
from tune.results.ranking import Winner
from tune.results.rows import TrialRow
from tune.storage.run_folder import Workspace
from tune.storage.trial_names import SEEDS, refit_row


def trials_batch(run: Workspace, plan: Plan, store: FeatureStore) -> Batch:
    """The search's suggestions, or every training of the sweep's rows with every seed, each once."""
    spec = run_spec(run, plan, store)
    scheduler = None
    if plan.stopping is not None:
        scheduler = partial(StoppingScheduler, plan.stopping, plan.base.epochs)
    if plan.sweep is not None:
        rows = [{"name": row.name, "changes": row.changes} for row in plan.trained_rows]
        points = _points(rows, plan.seeds, together=plan.lockstep)
        return _batch(plan, "trials", spec, points=points, scheduler=scheduler)
    study = partial(
        SearchStudy,
        plan.space,
        run.journal,
        sampler=plan.sampler or "tpe",
        seed=plan.search_seed or 0,
        epochs=plan.base.epochs,
        startup=plan.startup,
        initial=(plan.first, *plan.enqueued),
    )
    return _batch(plan, "trials", spec, total=plan.trials, study=study, scheduler=scheduler)


def confirm_batch(run: Workspace, plan: Plan, store: FeatureStore, candidates: Sequence[TrialRow]) -> Batch:
    """The batch that trains each of `candidates` once for every fresh seed, measured as in the search."""
    rows = [
        {
            "name": trial.name,
            "changes": {name: getattr(trial.configuration(), name) for name in plan.space},
        }
        for trial in candidates
    ]
    points = _points(rows, plan.confirm_seeds, together=plan.confirm_together)
    return _batch(plan, "confirm", run_spec(run, plan, store), points=points)


def refit_batch(run: Workspace, plan: Plan, store: FeatureStore, winner: Winner) -> Batch:
    """The winner on all training videos, once a seed."""
    refitted = {
        "protocol": "refit",
        "split": None,
        "split_hash": None,
        "threads": plan.refit_threads,
        "base": winner.refit_config,
    }
    spec = run_spec(run, plan, store).model_copy(update=refitted)
    row = refit_row(plan.trials, run.info.acted_upon)
    rows = [None if row is None else {"name": row, "changes": {}}]
    points = _points(rows, plan.seeds, together=plan.lockstep)
    at_once = min(plan.concurrent, plan.groups_of_seeds)
    return _batch(plan, "refit", spec, points=points, cpus=plan.refit_cpus, concurrent=at_once)


def run_spec(run: Workspace, plan: Plan, store: FeatureStore) -> RunSpec:
    """The run specification that the trials of the search or the sweep share."""
    heldout = plan.protocol == "heldout"
    return RunSpec(
        **plan.training_settings(),
        base=plan.base,
        store=plan.data if plan.data is not None and is_uri(plan.data) else str(store.path),
        store_hash=store.content_hash,
        labels_hash=store.labels_hash,
        data=plan.data,
        reading=plan.reading,
        bucket=run.bucket,
        split=str(run.split) if heldout else None,
        split_hash=Split.load(run.split).hash if heldout else None,
    )


def _points(
    rows: Sequence[dict[str, Any] | None], seeds: Sequence[int], *, together: bool
) -> list[dict[str, Any]]:
    """Every row with every seed, the first seed of all rows first; or with all of them at once."""
    which: list[dict[str, Any]] = [{SEEDS: list(seeds)}] if together else [{"seed": seed} for seed in seeds]
    return [{**({} if row is None else {"row": row}), **seed} for seed in which for row in rows]


def _batch(plan: Plan, kind: str, spec: RunSpec, **own: Any) -> Batch:
    common = {
        "total": len(own.get("points", ())),
        "concurrent": plan.concurrent,
        "cpus": plan.cpus_per_trial,
        "gpus": plan.gpus_per_trial,
        "timeout": plan.trial_timeout,
    }
    return Batch(kind=kind, spec=spec, **{**common, **own})
