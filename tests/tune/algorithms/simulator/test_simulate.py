"""Simulated searches: what a trial is told, what is stopped, and what a pool and a fitted model promise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from macil.errors import DataError, UsageError
from tune.algorithms.samplers.registry import SAMPLERS, SamplerName
from tune.algorithms.simulator.curves import Curve
from tune.algorithms.simulator.fitted import CurveModel
from tune.algorithms.simulator.pool import Pool
from tune.algorithms.simulator.recorded import RecordedRun
from tune.algorithms.simulator.simulate import simulate
from tune.algorithms.space import Dimension, Space, from_unit
from tune.algorithms.stopping.asha import AshaSettings
from tune.algorithms.stopping.registry import StoppingSettings

SPACE: Space = {
    "rate": Dimension(low=0.01, high=10.0, log=True),
    "layers": Dimension(low=1, high=9, step=2),
    "kind": Dimension(choices=("a", "b")),
}
EPOCHS = 6
FIRST: Mapping[str, Any] = {"rate": 1.0, "layers": 3, "kind": "a"}
ASHA = AshaSettings(grace=2)


def worth(params: Mapping[str, Any]) -> float:
    distance = np.log(params["rate"]) / 5 - 0.2
    return float(0.7 - distance**2 - (params["layers"] - 5) ** 2 / 200 - 0.05 * (params["kind"] == "b"))


def curve(params: Mapping[str, Any], seed: int, noise: float = 0.02) -> Curve:
    draw = np.random.default_rng([seed, int(1000 * params["rate"]), params["layers"]])
    last = worth(params) + noise * draw.standard_normal()
    scores = tuple(float(last * epoch / (epoch + 1)) for epoch in range(1, EPOCHS + 1))
    return Curve(params, seed, scores, quality=last)


def recorded(number: int = 24, seeds: int = 4) -> list[Curve]:
    """Random configurations and the first one, each with several seeds."""
    draw = np.random.default_rng(5)
    points = [FIRST, *(from_unit(SPACE, draw.random(len(SPACE))) for _ in range(number - 1))]
    return [curve(params, seed) for params in points for seed in range(seeds)]


class Everywhere(RecordedRun):
    """The curve of any configuration."""

    def __init__(self) -> None:
        super().__init__([], EPOCHS)

    def train(self, params: Mapping[str, Any], number: int) -> Curve:
        return curve(params, number)


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "gp"])
@pytest.mark.parametrize("together", [1, 3])
def test_a_run_that_is_told_what_it_recorded_does_the_same_again(sampler: SamplerName, together: int) -> None:
    def run(environment: RecordedRun, seed: int = 0) -> Any:
        return simulate(
            SPACE,
            environment,
            trials=12,
            startup=4,
            seed=seed,
            sampler=sampler,
            stopping=ASHA,
            initial=(FIRST,),
            together=together,
        )

    found = run(Everywhere())
    assert [trial.number for trial in found] == list(range(12))
    assert found[0].params == FIRST
    assert {trial.epochs for trial in found if trial.stopped} == {2}
    assert {trial.epochs for trial in found if not trial.stopped} == {EPOCHS}
    whole = [Curve(trial.params, 0, curve(trial.params, trial.number).scores) for trial in found]
    again = run(RecordedRun(whole, EPOCHS))
    assert [(trial.params, trial.scores) for trial in again] == [
        (trial.params, trial.scores) for trial in found
    ]
    with pytest.raises(DataError, match="the run did not train what trial 1 is to"):
        run(RecordedRun(whole, EPOCHS), seed=1)


def test_what_diverged_or_raised_has_failed_and_stops_nobody() -> None:
    points = [{"rate": rate, "layers": 3, "kind": "a"} for rate in (1.0, 2.0, 3.0)]
    curves = [
        replace(curve(points[0], 0), scores=(9.0, 9.0), diverged=True),
        replace(curve(points[1], 0), scores=(0.1,), error=True),
        curve(points[2], 0),
    ]
    settings: dict[str, Any] = {"trials": 3, "startup": 3, "initial": tuple(points), "stopping": ASHA}
    found = simulate(SPACE, RecordedRun(curves, EPOCHS), **settings)
    assert [(trial.failed, trial.stopped, trial.epochs) for trial in found] == [
        (True, False, 2),
        (True, False, 1),
        (False, False, EPOCHS),
    ]
    with pytest.raises(DataError, match="ends before epoch 3"):
        simulate(SPACE, RecordedRun([replace(each, diverged=False) for each in curves], EPOCHS), **settings)


def test_a_suggestion_goes_to_the_nearest_configuration_of_a_pool_that_is_left() -> None:
    curves = recorded()
    pool = Pool(curves, SPACE, EPOCHS, seed=0)
    assert pool.budget == 8
    found = simulate(SPACE, pool, trials=8, startup=3, initial=(FIRST,))
    known = [each.params for each in curves if each.seed == 0]
    assert found[0].params == FIRST
    assert all(trial.params in known for trial in found)
    assert len({str(trial.params) for trial in found}) == 8
    assert found[0].scores == curves[0].scores
    assert found[0].quality == pytest.approx(np.mean([each.quality for each in curves[1:4]])), (
        "of other seeds"
    )
    assert max(trial.quality or 0 for trial in found) <= pool.best
    with pytest.raises(UsageError, match="for 8 trials at most"):
        simulate(SPACE, pool, trials=9, startup=3, initial=(FIRST,))
    with pytest.raises(UsageError, match="needs a training with seed 9"):
        Pool(curves, SPACE, EPOCHS, seed=9)


@pytest.mark.parametrize("stopping", [None, ASHA])
def test_a_model_fitted_to_curves_ranks_configurations_as_the_curves_do(
    stopping: StoppingSettings | None,
) -> None:
    """Its truth follows what was recorded, within what the noise between seeds leaves open; a search on it finds."""
    curves = recorded(number=40, seeds=6)
    model = CurveModel(curves, SPACE, EPOCHS).world(0)
    points = [each.params for each in curves if each.seed == 0]
    truth, fitted = [worth(point) for point in points], [model.quality(point) for point in points]
    assert np.corrcoef(truth, fitted)[0, 1] > 0.95
    assert np.abs(np.subtract(truth, fitted)).max() < 0.05
    found = simulate(SPACE, model, trials=15, startup=5, initial=(FIRST,), stopping=stopping)
    assert [trial.quality for trial in found] == [model.quality(trial.params) for trial in found]
    assert all(list(trial.scores) == sorted(filter(None, trial.scores)) for trial in found), "running bests"
    best = max(found, key=lambda trial: trial.scores[-1] or 0)
    assert worth(best.params) > np.median(truth)


def test_worlds_differ_and_each_is_the_same_again() -> None:
    curves = recorded()
    one, again = (CurveModel(curves, SPACE, EPOCHS).world(1) for _ in range(2))
    other = CurveModel(curves, SPACE, EPOCHS).world(2)
    params = {"rate": 0.02, "layers": 9, "kind": "b"}
    assert one.train(params, 3) == again.train(params, 3)
    assert one.quality(params) != other.quality(params)
    assert one.train(params, 3).scores != one.train(params, 4).scores


def test_the_tails_of_the_noise_are_those_of_the_records() -> None:
    """One seed in twelve collapses; so do, in one world of twelve, all trainings of the search, and one fresh seed."""
    curves = [
        replace(each, scores=tuple((score or 0) - 0.5 * (each.seed == 7) for score in each.scores))
        for each in recorded(seeds=12)
    ]
    model = CurveModel(curves, SPACE, EPOCHS)
    worlds = [model.world(number) for number in range(60)]
    last = np.array([[world.train(FIRST, trial).scores[-1] or 0.0 for trial in range(5)] for world in worlds])
    collapsed = last < np.median(last) - 0.3
    assert set(collapsed.sum(1)) == {0, 5}
    assert 1 / 12 - 0.08 < collapsed.mean() < 1 / 12 + 0.08
    fresh = np.array(
        [[world.train(FIRST, 0, seed).scores[-1] or 0.0 for seed in range(12)] for world in worlds]
    )
    assert ((fresh < np.median(fresh) - 0.3).sum(1) == 1).all()
    with pytest.raises(UsageError, match="4 configurations, each with two seeds; there are 3"):
        CurveModel(recorded(3), SPACE, EPOCHS)
