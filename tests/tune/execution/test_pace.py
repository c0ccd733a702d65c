"""How long what is left of a phase will take."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tune.execution.pace import Pace
from tune.execution.progress import Display


def test_nothing_is_said_before_an_epoch_was_measured() -> None:
    pace = Pace()
    assert pace.left(3, [0], 10) is None
    pace.take_in({"time_this_iter_s": 2.0})
    assert pace.left(3, [], 10) is None
    assert pace.left(3, [1], 10) == 2 * (9 + 3 * 10)


@pytest.mark.parametrize(
    ("waiting", "running", "expected"),
    [
        (0, [8], 2 * 2),
        (4, [0, 0], 2 * (4 * 4 + 4 + 4) / 2),  # as long as those that have ended: 4 epochs
        (0, [0, 7], 2 * 4),  # one that has outlived them goes to its end, here in 3
        (0, [3, 4], 2 * 6),
    ],
)
def test_trials_to_come_are_as_long_as_those_that_have_ended(
    waiting: int, running: list[int], expected: float
) -> None:
    pace = Pace()
    for seconds in (1.0, 3.0):
        pace.take_in({"time_this_iter_s": seconds})
    for epochs in (2, 6):
        pace.end(epochs)
    assert pace.left(waiting, running, 10) == expected


def test_the_line_says_what_is_left_and_what_the_score_is() -> None:
    output = io.StringIO()
    shown = Display(Console(file=output, width=200), {"trials": 3}, {"trials": 5}, "best test AP so far")
    trial: Any = SimpleNamespace(trial_id="a", relative_logdir="00000")
    with shown.shown("trials"):
        shown.update(
            trial, "running", {"training_iteration": 1, "selection_score": 0.5, "time_this_iter_s": 60.0}
        )
        assert shown.summary == "0/3 done, 1 running, best 0.5000 (00000), about 14 min left"
        shown.update(
            trial, "finished", {"training_iteration": 5, "selection_score": 0.6, "time_this_iter_s": 60.0}
        )
    assert "00000 finished after 5/5 epochs, best test AP so far 0.6000" in output.getvalue()
