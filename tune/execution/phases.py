"""The phases of a run: the trials, the confirmation of the best, the winner's refit."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from macil.data.store.feature_store import FeatureStore
from macil.io.files import atomic_path
from macil.io.wording import plural, plural_s
from macil.training.files import newest_checkpoint
from tune.cluster.host_check import host_requirements
from tune.cluster.workers import Needs, joined
from tune.execution.batch_runner import Batch, run_batch
from tune.execution.batches import confirm_batch, refit_batch, trials_batch
from tune.execution.deadline import Deadline
from tune.execution.interrupts import Interrupts
from tune.execution.progress import Display
from tune.execution.session import ray_running
from tune.planning.plan import Plan
from tune.planning.resolve import check_resources
from tune.planning.resources import this_machine
from tune.planning.space import reference_title
from tune.results.ranking import (
    Confirmation,
    NoWinnerError,
    Winner,
    choose_confirmed,
    choose_to_confirm,
    choose_winner,
)
from tune.results.run import load_run
from tune.storage.decisions import read_decisions, trials_ended
from tune.storage.names import ERROR_FILE, TRAINER_FILE
from tune.storage.run_folder import Workspace
from tune.storage.trial_log import METRIC
from tune.storage.trial_names import refit_row


def train(
    run: Workspace,
    plan: Plan,
    store: FeatureStore,
    console: Console,
    interrupts: Interrupts,
    address: str | None,
    *,
    hours: float | None,
    debug: bool,
) -> None:
    """All that needs Ray: the trials, the confirmation of the best, the winner's refit."""
    shown = Display(
        console,
        {"trials": plan.tune_trials, "confirm": 0, "refit": plan.groups_of_seeds},
        {"trials": plan.base.epochs, "confirm": plan.base.epochs, "refit": 0},
        # It is the test AP there, which a user would not look for under another name.
        "best test AP so far" if plan.protocol == "published" else METRIC,
    )
    begun = run.info.phase  # what a resume goes on with; whatever comes after it is begun

    # A bucket is shared by itself. Before Ray starts, which sends the code as it is then.
    hosts = None if address is None else host_requirements(run.path if run.bucket is None else None)
    with ray_running(address, this_machine(), debug=debug) as available, ExitStack() as stack:
        interrupts.listen()
        if address is None:
            check_resources(plan, available, "this machine")
        else:
            needs = Needs.of(plan)
            shown.cluster = stack.enter_context(joined(address, needs, shown.log, interrupts.check))

        def go(batch: Batch, deadline: Deadline | None = None) -> None:
            run.update(phase=batch.kind)
            batch = replace(batch, spec=batch.spec.model_copy(update={"hosts": hosts}))
            run_batch(run, batch, shown, interrupts, deadline, debug=debug)
            interrupts.check()

        if begun == "trials" and trials_ended(read_decisions(run.path)) is None:
            go(
                trials_batch(run, plan, store),
                None if hours is None else Deadline(run, plan, hours, shown.log),
            )
        if plan.sweep is None:
            found = load_run(run.path)
            winner = choose_winner(found)
            if plan.confirm:
                confirmation = choose_to_confirm(found, plan.confirm.configurations)
                candidates = confirmation.candidates
                shown.total["confirm"] = len(candidates) * (
                    1 if plan.confirm_together else len(plan.confirm_seeds)
                )
                run.update(confirm=confirmation.recorded(plan.confirm_seeds).model_dump())
                if begun in ("trials", "confirm"):
                    shown.log(_confirmation_text(confirmation, plan))
                    go(confirm_batch(run, plan, store, candidates))
                winner = choose_confirmed(load_run(run.path), candidates)
            run.update(winner=winner.recorded.model_dump())
            model = run.path / winner.trial.trial_dir
            if plan.refits:
                shown.epochs["refit"] = winner.epochs
                shown.log(
                    f"winner: trial {winner.name}, {_score_text(winner)}; "
                    f"training it again on all training videos for {plural(winner.epochs, 'epoch')}"
                )
                go(refit_batch(run, plan, store, winner))
                row = refit_row(plan.trials, run.info.acted_upon)
                folders = [f"refit/{row + '_' if row else ''}seed{seed}" for seed in plan.seeds]
                run.update(refit={"trial_dir": folders[0], "trial_dirs": folders, "epochs": winner.epochs})
                model = run.path / folders[0]
            run.sync.fetch(model)
            _publish_model(model, run.model)
        run.update(phase="report")


def _publish_model(trial: Path, target: Path) -> None:
    """Copy a trial's newest checkpoint to `target`, in one step.

    Raises:
        NoWinnerError: The trial left none.
    """
    newest = newest_checkpoint(trial)
    if newest is None:
        raise NoWinnerError(f"{trial} left no checkpoint; see {trial / ERROR_FILE}")
    with atomic_path(target) as temporary:
        shutil.copyfile(newest / TRAINER_FILE, temporary)


def _confirmation_text(confirmation: Confirmation, plan: Plan) -> str:
    best, reference, seeds = confirmation.best, confirmation.reference, plan.confirm_seeds
    names = ", ".join(trial.name for trial in best)
    beside = ""
    if reference is not None and reference not in best:
        what = reference_title(reference.config)
        beside = f", and {what} ({reference.name}) beside {'it' if len(best) == 1 else 'them'}"
    fewer = ""
    if plan.confirm and len(best) < plan.confirm.configurations:
        fewer = f" (the search tried no more than {plural(len(best), 'different configuration')})"
    each = (
        f"{len(seeds)} fresh seeds each, {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
    )
    return f"confirming trial{plural_s(len(best))} {names}{fewer}{beside}: {each}"


def _score_text(winner: Winner) -> str:
    if not winner.confirmed:
        return f"selection_score {winner.score:.4f} at epoch {winner.epochs}"
    mean = sum(winner.confirmed) / len(winner.confirmed)
    return (
        f"selection_score {mean:.4f} on average over {plural(len(winner.confirmed), 'fresh seed')} "
        f"({winner.score:.4f} in the search)"
    )
