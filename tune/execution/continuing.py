"""A run that is gone on with otherwise than it was begun: extended to more trials, or ended with what there is."""

from __future__ import annotations

from macil.errors import UsageError
from macil.io.notes import note
from tune.planning.extension import check_extension, extended
from tune.planning.plan import Plan, write_plan
from tune.results.label_access import read_label_accesses
from tune.results.ranking import ranked_trials
from tune.results.run import load_run
from tune.storage.decisions import decide, read_decisions, trials_ended
from tune.storage.run_folder import Workspace


def extend(run: Workspace, plan: Plan, trials: int) -> Plan:
    """Let a search go on to more trials; the decision is written down first.

    Args:
        run: The run, locked.
        plan: Its recorded plan.
        trials: What it is to have.

    Returns:
        The plan that it goes on with.

    Raises:
        UsageError: It cannot be extended so.
    """
    check_extension(plan, trials, ended=trials_ended(read_decisions(run.path)) is not None)
    opened = bool(read_label_accesses(run.path, [])) or plan.protocol == "published"
    decision = decide(run, "extend", f"--trials {trials}", trials, opened=opened)
    note(decision.text)
    return take_up(run, plan)


def take_up(run: Workspace, plan: Plan) -> Plan:
    """Act upon an extension that was decided and not acted upon yet, as after a kill; the plan that then holds."""
    decisions = read_decisions(run.path)
    last = decisions[-1] if decisions else None
    if last is None or last.kind != "extend" or run.info.acted_upon == len(decisions):
        return plan
    taken = [row.seed for row in load_run(run.path).trial_rows if row.seed is not None]
    # What was named before is no longer the best of all; trainings that are to be made again are found by name.
    run.update(
        status="interrupted", phase="trials", trials=last.trials, winner=None, confirm=None, refit=None
    )
    plan = extended(plan, last.trials, taken, opened=last.opened)
    write_plan(run.path, plan)
    run.update(acted_upon=len(decisions))
    run.sync.flush()
    return plan


def end_trials(run: Workspace) -> None:
    """End the trials of a run with what there is; the decision is written down first.

    Raises:
        UsageError: There is nothing to end with.
    """
    if run.info.phase != "trials":
        note(f"--finish: the trials of run {run.name!r} have ended already")
        return
    results = load_run(run.path)
    if not ranked_trials(results):
        raise UsageError(
            f"--finish: no trial of run {run.name!r} has a result yet; leave the flag out to go on with it"
        )
    if trials_ended(read_decisions(run.path)) is None:
        begun = sum(row.kind == "search" and row.epochs_run > 0 for row in results.trial_rows)
        note(decide(run, "end", "--finish", begun).text)
