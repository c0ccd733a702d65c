"""A search space as data: what a dimension refuses, the unit cube, and conditions."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import optuna
import pytest
from pydantic import ValidationError

from tune.algorithms.asking import ask, distributions
from tune.algorithms.space import (
    Dimension,
    Space,
    active_values,
    from_unit,
    is_whole,
    unit_point,
)

SPACE: Space = {
    "lambda_v2b": Dimension(low=0.25, high=4.0, log=True),
    "hidden_dim": Dimension(low=64, high=256, step=64),
    "momentum_epochs": Dimension(low=10, high=100, log=True),
    "dropout": Dimension(low=0.0, high=0.5, step=0.1),
    "contrast": Dimension(choices=(True, False)),
    "temperature": Dimension(low=0.03, high=1.0, log=True, when={"contrast": (True,)}),
}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "expected low and high, or choices"),
        ({"low": 1.0}, "expected low and high, or choices"),
        ({"low": 2.0, "high": 1.0}, "must be below"),
        ({"low": 1.0, "high": 1.0}, "fix a single value"),
        ({"low": 0.0, "high": 1.0, "log": True}, "above 0"),
        ({"low": 1.0, "high": float("inf")}, "finite"),
        ({"low": 1.0, "high": 2.0, "log": True, "step": 0.5}, "not both"),
        ({"low": 1.0, "high": 2.0, "step": 0.0}, "above 0"),
        ({"low": 64, "high": 256, "step": 100}, "does not lead"),
        ({"choices": (1,)}, "two different values"),
        ({"choices": (1, 1)}, "two different values"),
        ({"choices": (1, 2), "low": 1}, "choices stand alone"),
        ({"low": "a", "high": 1.0}, "valid"),
    ],
)
def test_a_dimension_that_is_none_is_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Dimension(**values)


def test_a_dimension_comes_back_from_json_with_its_types() -> None:
    for dimension in SPACE.values():
        again = Dimension.parse(json.loads(json.dumps(dimension.model_dump(mode="json"))), "plan.json")
        assert again == dimension
        assert type(again.low) is type(dimension.low)


@pytest.mark.parametrize("name", SPACE)
def test_what_the_cube_gives_is_held_and_comes_back(name: str) -> None:
    dimension = SPACE[name]
    positions = np.linspace(0, 1, 41)
    values = [dimension.at(float(position)) for position in positions]
    assert all(dimension.holds(value) for value in values)
    places = [dimension.position(value) for value in values]
    assert [dimension.at(place) for place in places] == pytest.approx(values)
    if dimension.size is None:
        assert places == pytest.approx(positions)


def test_equal_shares_of_the_cube_are_equally_likely_values() -> None:
    positions = (np.arange(10_000) + 0.5) / 10_000
    widths = [SPACE["hidden_dim"].at(x) for x in positions]
    assert {width: widths.count(width) for width in set(widths)} == dict.fromkeys((64, 128, 192, 256), 2500)
    log = np.log([float(SPACE["lambda_v2b"].at(x)) for x in positions])
    assert np.mean(log) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_dim", 100),
        ("hidden_dim", 64.0),
        ("hidden_dim", 320),
        ("contrast", 1),
        ("lambda_v2b", 0.2),
        ("lambda_v2b", True),
        ("dropout", 0.15),
    ],
)
def test_a_value_outside_is_not_held(name: str, value: object) -> None:
    assert not SPACE[name].holds(value)


def test_sizes_are_those_of_the_values() -> None:
    sizes = {name: dimension.size for name, dimension in SPACE.items()}
    assert sizes == {
        "lambda_v2b": None,
        "hidden_dim": 4,
        "momentum_epochs": 91,
        "dropout": 6,
        "contrast": 2,
        "temperature": None,
    }


def test_what_its_condition_excludes_is_neither_asked_for_nor_placed() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    asked = [ask(study.ask(), SPACE) for _ in range(20)]
    assert {values["contrast"] for values in asked} == {True, False}
    for values in asked:
        assert ("temperature" in values) == values["contrast"]
        point = unit_point(SPACE, values)
        assert (point[-1] == 0.5) == ("temperature" not in values)
        assert from_unit(SPACE, point) == pytest.approx(values)
    assert active_values(SPACE, {"contrast": False, "temperature": 0.1}) == {"contrast": False}


def test_asking_one_by_one_suggests_what_optuna_suggests_for_all() -> None:
    without = {name: dimension for name, dimension in SPACE.items() if not dimension.when}
    ours, theirs = (
        optuna.create_study(sampler=optuna.samplers.TPESampler(seed=3, multivariate=True, n_startup_trials=2))
        for _ in range(2)
    )
    for number in range(6):
        trial, other = ours.ask(), theirs.ask(fixed_distributions=distributions(without))
        assert ask(trial, without) == other.params
        ours.tell(trial, float(number))
        theirs.tell(other, float(number))


def test_values_and_ends_are_those_that_are_searched() -> None:
    assert SPACE["hidden_dim"].values == (64, 128, 192, 256)
    assert SPACE["dropout"].values == pytest.approx((0.0, 0.1, 0.2, 0.3, 0.4, 0.5))
    assert SPACE["lambda_v2b"].values == ()
    assert SPACE["lambda_v2b"].ends == (0.25, 4.0)
    assert Dimension(choices=(8, 2, 4)).ends == (2, 8)
    assert Dimension(choices=("released", "paper")).ends == ("released", "paper")


@pytest.mark.parametrize(
    ("values", "whole"),
    [
        ({"contrast": True, "temperature": 0.1}, True),
        ({"contrast": True}, False),
        ({"contrast": False}, True),
        ({"temperature": 0.1}, False),
    ],
)
def test_a_configuration_is_whole_when_all_that_is_active_has_a_value(
    values: dict[str, Any], whole: bool
) -> None:
    assert is_whole({name: SPACE[name] for name in ("contrast", "temperature")}, values) is whole


def test_a_condition_holds_for_a_step_as_it_is_computed() -> None:
    space: Space = {
        "dropout": SPACE["dropout"],
        "momentum": Dimension(low=0.8, high=1.0, when={"dropout": (0.3,)}),
    }
    assert 3 * 0.1 != 0.3
    assert set(active_values(space, {"dropout": 3 * 0.1, "momentum": 0.9})) == {"dropout", "momentum"}
    assert set(active_values(space, {"dropout": 0.2, "momentum": 0.9})) == {"dropout"}
