"""A search that goes on to more trials than it was begun with."""

from __future__ import annotations

from collections.abc import Collection

from macil.errors import UsageError
from tune.planning.plan import Plan
from tune.planning.resolve import MOST, fresh_seeds


def check_extension(plan: Plan, trials: int, *, ended: bool) -> None:
    """Refuse a number of trials that a run cannot go on to.

    Args:
        plan: The run's.
        trials: What it is to have.
        ended: Whether its trials were ended before there were as many as the plan has.

    Raises:
        UsageError: It cannot.
    """
    flag = f"--trials {trials}"
    if plan.sweep is not None:
        raise UsageError(f"{flag}: a sweep has the trials that its rows and --seeds make; leave the flag out")
    if trials > MOST:
        raise UsageError(f"{flag} is not allowed: expected at most {MOST}")
    if trials < plan.trials or (trials == plan.trials and not ended):
        raise UsageError(
            f"{flag}: the run has {plan.trials} trials; give a larger number to extend it, or --finish to end it with "
            "what there is"
        )


def extended(plan: Plan, trials: int, taken: Collection[int], *, opened: bool) -> Plan:
    """The plan of an extended search.

    All that a number of trials decides at the start of a run stays as it was recorded: random suggestions, early
    stopping, trials at once, CPUs and threads.

    Args:
        plan: As recorded.
        trials: What the search is to have.
        taken: Seeds that trainings of the run had.
        opened: Whether test labels were read since: what is confirmed then is confirmed on seeds that nobody has seen.
    """
    changes: dict[str, object] = {"trials": trials}
    if opened and plan.confirm is not None:
        seeds = fresh_seeds([*taken, *plan.seeds, *plan.confirm.seeds], len(plan.confirm.seeds))
        changes["confirm"] = plan.confirm.model_copy(update={"seeds": seeds})
    return plan.model_copy(update=changes)
