"""The plan of an extended search."""

from __future__ import annotations

import pytest

from macil.errors import UsageError
from tune.planning.extension import check_extension, extended
from tune.planning.options import Options
from tune.planning.resolve import resolve_plan
from tune.planning.resources import Machine

PLAN = resolve_plan(Options(trials=6, confirm=2, confirm_seeds=3), Machine(4, 0))


def test_nothing_but_the_number_of_trials_is_another_one() -> None:
    longer = extended(PLAN, 40, [0, 1000, 1001, 1002], opened=False)
    assert longer == PLAN.model_copy(update={"trials": 40})
    own = resolve_plan(Options(trials=40, confirm=2, confirm_seeds=3), Machine(4, 0))
    assert own.startup == PLAN.startup, "no share of the trials"


def test_after_test_labels_were_opened_the_seeds_of_the_confirmation_are_unused_ones() -> None:
    assert PLAN.confirm_seeds == (1000, 1001, 1002)
    longer = extended(PLAN, 7, [0, 1000, 1001, 2500], opened=True)
    assert longer.confirm_seeds == (3000, 3001, 3002)
    assert longer.confirm is not None
    assert longer.confirm.configurations == 2


@pytest.mark.parametrize(
    ("trials", "ended", "reason"),
    [
        (5, False, "the run has 6 trials; give a larger number to extend it"),
        (6, False, "the run has 6 trials"),
        (5, True, "the run has 6 trials"),
        (10**6, False, "expected at most 100000"),
    ],
)
def test_fewer_trials_or_as_many_are_no_extension(trials: int, ended: bool, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        check_extension(PLAN, trials, ended=ended)


def test_trials_that_were_ended_early_may_go_on_to_the_number_that_there_was() -> None:
    check_extension(PLAN, 6, ended=True)
    sweep = resolve_plan(Options(sweep="table3"), Machine(4, 0))
    with pytest.raises(UsageError, match="a sweep has the trials that its rows and --seeds make"):
        check_extension(sweep, 99, ended=False)
