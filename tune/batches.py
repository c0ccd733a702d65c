"""From a plan to the trials that Tune runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ray import tune

from macil.data.split import Split
from macil.data.store import FeatureStore
from tune.execution import Batch
from tune.groups import SEEDS
from tune.plan import Plan
from tune.scheduler import ReplayASHA
from tune.searcher import StudySearch
from tune.trainable import Job
from tune.winner import Candidate, Winner
from tune.workspace import Workspace


def trials_batch(run: Workspace, plan: Plan, store: FeatureStore) -> Batch:
    """The search's suggestions, or every row of the sweep with every seed, each once."""
    job = _job(run, plan, store)
    scheduler = None if plan.grace is None else partial(ReplayASHA, plan.grace, plan.base.epochs)
    if plan.sweep is not None:
        rows = [{"name": row.name, "changes": dict(row.changes)} for row in plan.sweep.rows]
        grid = {"job": job, "row": tune.grid_search(rows), **_seeds(plan.seeds, together=plan.lockstep)}
        batch = _batch(plan, "trials", grid, plan.concurrent, cpus=plan.cpus_per_trial)
        return replace(batch, scheduler=scheduler)
    searcher = partial(
        StudySearch,
        plan.space,
        run.journal,
        seed=plan.options.search_seed or 0,
        epochs=plan.base.epochs,
        startup=plan.startup,
        first=(plan.first,),
    )
    return Batch(
        kind="trials",
        config={"job": job},
        samples=plan.trials,
        concurrent=plan.concurrent,
        cpus=plan.cpus_per_trial,
        gpus=plan.gpus_per_trial,
        retry_failed=False,
        searcher=searcher,
        scheduler=scheduler,
    )


def confirm_batch(run: Workspace, plan: Plan, store: FeatureStore, candidates: Sequence[Candidate]) -> Batch:
    """Each of `candidates` once a fresh seed, trained and measured as it was in the search."""
    rows = [
        {"name": candidate.name, "changes": {name: getattr(candidate.config, name) for name in plan.space}}
        for candidate in candidates
    ]
    seeds = _seeds(plan.confirm_seeds, together=plan.confirm_together)
    config = {"job": _job(run, plan, store), "row": tune.grid_search(rows), **seeds}
    return _batch(plan, "confirm", config, plan.concurrent, cpus=plan.cpus_per_trial)


def refit_batch(run: Workspace, plan: Plan, store: FeatureStore, winner: Winner) -> Batch:
    """The winner on all training videos, once a seed."""
    job = _job(run, plan, store) | {
        "protocol": "refit",
        "split": None,
        "split_hash": None,
        "threads": plan.refit_threads,
        "base": winner.refit_config.to_dict(),
    }
    at_once = min(plan.concurrent, plan.groups_of_seeds)
    seeds = _seeds(plan.seeds, together=plan.lockstep)
    return _batch(plan, "refit", {"job": job, **seeds}, at_once, cpus=plan.refit_cpus)


def _seeds(seeds: Sequence[int], *, together: bool) -> dict[str, object]:
    """Every seed a trial of its own, or all of them one."""
    return {SEEDS: list(seeds)} if together else {"seed": tune.grid_search(list(seeds))}


def _batch(plan: Plan, kind: str, config: dict[str, object], concurrent: int, *, cpus: float) -> Batch:
    return Batch(
        kind=kind,
        config=config,
        samples=1,
        concurrent=concurrent,
        cpus=cpus,
        gpus=plan.gpus_per_trial,
        retry_failed=True,
    )


def _job(run: Workspace, plan: Plan, store: FeatureStore) -> Job:
    heldout = plan.protocol == "heldout"
    return {
        "store": str(store.path),
        "store_hash": store.content_hash,
        "protocol": plan.protocol,
        "split": str(run.split) if heldout else None,
        "split_seed": plan.options.split_seed or 0,
        "split_hash": Split.load(run.split).hash if heldout else None,
        "device": plan.device,
        "threads": plan.threads,
        "keep_scores": plan.keep_scores,
        "base": plan.base.to_dict(),
    }
