"""A best point at the border of the space is reported, with where to look; inside it, or at a natural limit, not."""

from __future__ import annotations

import re
from typing import Any

import pytest

from macil.config import TrialConfig
from tests.support.made_runs import SPACE, made_results, recorded
from tune.reporting.statistics.outcome import find_outcome
from tune.reporting.text.border_warnings import border_warnings


def warnings(space: dict[str, str] | None = None, **best: Any) -> list[str]:
    inside = {
        "lambda_v2b": 1.0,
        "lambda_v2n": 1.0,
        "ramp": 0.3,
        "temperature": 0.2,
        "momentum": 0.9,
        "hidden_dim": 128,
    }
    rows = [
        {"trial_dir": "trials/00000", "selection_score": 0.5, **inside},
        {"trial_dir": "trials/00001", "selection_score": 0.6, **inside, **best},
    ]
    results = made_results(rows, plan={"space": recorded(SPACE) if space is None else space}, trials=2)
    return border_warnings(results, find_outcome(results))


@pytest.mark.parametrize(
    ("best", "message", "flag"),
    [
        ({"ramp": 3.0, "lambda_v2b": 3.5}, "r = 3 of trial 00001 is at the upper end of what was searched", "--ramp 6"),
        ({"ramp": 2.96, "lambda_v2n": 3.5}, "r = 2.96 of trial 00001 is at the upper end", "--ramp 6"),
        ({"lambda_v2b": 0.25}, "Λ_v2b = 0.25 of trial 00001 is at the lower end", "--lambda-v2b 0.125"),
        ({"momentum": 0.8005}, "m = 0.8 of trial 00001 is at the lower end", "--momentum 0.75"),
        ({"hidden_dim": 256}, "d = 256 of trial 00001 is at the upper end", "--hidden-dim 320"),
        ({"hidden_dim": 64}, "d = 64 of trial 00001 is at the lower end", "--hidden-dim 32"),
    ],
)  # fmt: skip
def test_a_value_at_an_end_is_told_with_one_beyond_it(best: dict[str, Any], message: str, flag: str) -> None:
    (found,) = warnings(**best)
    assert message in found
    assert f"the same search with {flag} fixes it further out" in found
    ((name, value),) = re.findall(r"--([\w-]+) ([\d.]+)", found)
    TrialConfig().replace(**{name.replace("-", "_"): float(value) if "." in value else int(value)})


@pytest.mark.parametrize(
    "best",
    [
        {"lambda_v2n": 0.25, "ramp": 0.1},  # λ reaches 0.2 in three epochs
        {"lambda_v2b": 4.0, "ramp": 1.5},  # and 3.0
        {"ramp": 3.0},  # Λ is 1: as from r = 1 on
        {"temperature": 0.03, "epochs": 1},
    ],
)
def test_a_value_at_an_end_that_had_no_effect_stands_there_by_chance(best: dict[str, Any]) -> None:
    assert warnings(**best) == []


@pytest.mark.parametrize(("term", "count"), [(0.0, 0), (0.5, 1)])
def test_what_acts_through_terms_that_were_zero_stands_there_by_chance(term: float, count: int) -> None:
    best = {"trial_dir": "trials/00000", "selection_score": 0.6, "temperature": 0.03, "ramp": 0.3}
    epochs = [
        {"trial_id": "trials/00000", "kind": "search", "epoch": epoch, "loss_v2b": term, "loss_v2n": term}
        for epoch in (1, 2, 3)
    ]
    results = made_results([best], epochs, plan={"space": recorded(SPACE)}, trials=1)
    assert len(border_warnings(results, find_outcome(results))) == count


@pytest.mark.parametrize("best", [{}, {"ramp": 2.8}, {"momentum": 1.0}, {"hidden_dim": 128}])
def test_inside_and_at_natural_limits_nothing_is_said(best: dict[str, Any]) -> None:
    assert warnings(**best) == []


def test_what_was_not_searched_or_has_no_ends_is_left_alone() -> None:
    assert warnings({"lambda_v2b": "0.25 to 4, logarithmic"}, ramp=3.0, lambda_v2n=3.5) == []
    assert warnings({"hidden_dim": "64 or 128"}, hidden_dim=16) == []
    results = made_results([], plan={"space": recorded(SPACE)})
    assert border_warnings(results, find_outcome(results)) == []
