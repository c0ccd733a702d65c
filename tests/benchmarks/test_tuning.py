"""Policies over recorded trainings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from benchmarks.tuning import (
    BUDGETS,
    FittedRound,
    Judged,
    Mode,
    Outcome,
    Policy,
    PoolRound,
    Records,
    draw,
    grid,
    judge,
    play,
    policies,
    spend,
    tables,
)
from macil.config import TrialConfig
from tune.algorithms.simulator.curves import Curve
from tune.algorithms.simulator.fitted import CurveModel
from tune.algorithms.space import from_unit
from tune.algorithms.stopping.asha import AshaSettings
from tune.planning.space import published_point, search_space

EPOCHS, SEEDS = 8, 12
SPACE = search_space(TrialConfig())
FIRST = published_point(SPACE)


def made(noise: float, configurations: int = 24) -> Records:
    """Trainings whose worth falls with the distance of m from 0.95; the score follows it, with noise."""
    rng = np.random.default_rng(3)
    points = [FIRST, *(from_unit(SPACE, rng.random(len(SPACE))) for _ in range(configurations - 1))]
    curves = []
    for params in points:
        worth = 80 - 200 * abs(float(params["momentum"]) - 0.95)
        for seed in range(SEEDS):
            last = worth / 100 + noise * rng.standard_normal()
            scores = np.maximum.accumulate([last * epoch / EPOCHS for epoch in range(1, EPOCHS + 1)])
            curves.append(Curve(params, seed, tuple(scores.tolist()), quality=worth))
    return Records(SPACE, EPOCHS, FIRST, tuple(range(SEEDS)), tuple(curves))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def clear() -> Records:
    return made(noise=0.0)


def test_without_noise_a_search_of_a_pool_names_the_best_that_it_tried(clear: Records) -> None:
    here = PoolRound(clear, 0, clear.sample(None))
    best = max(curve.quality or 0 for curve in clear.curves)
    assert here.best == best
    whole = spend(Policy("all", "random"), clear, here, seed=0, budget=5)
    assert whole is not None
    assert whole.trials == 5
    nothing = spend(Policy("none", None), clear, here, seed=0, budget=5)
    assert nothing is not None
    assert nothing.regret == pytest.approx(best - here.quality(FIRST))
    assert 0 <= whole.regret <= nothing.regret
    stopped = spend(Policy("asha", stopping=AshaSettings(grace=2)), clear, here, seed=0, budget=5)
    assert stopped is not None
    assert here.most == 8
    assert 5 < stopped.trials <= 8, "at equal epochs"


def test_a_confirmation_pays_for_its_trainings_and_undoes_the_luck_of_the_search() -> None:
    """With noise as large as what configurations differ by, the best on fresh seeds is the better choice."""
    noisy = made(noise=0.06)
    model = CurveModel(noisy.curves, SPACE, EPOCHS)
    once, again = Policy("once"), Policy("confirmed", confirm=3)
    assert spend(again, noisy, FittedRound(model, 0), 0, budget=20) is None
    regrets = {once.name: [], again.name: []}  # type: dict[str, list[float]]
    for number in range(8):
        # As many trials, and the trainings of the confirmation beside them.
        for policy, budget in ((once, 10), (again, 30)):
            outcome = spend(policy, noisy, FittedRound(model, number), number, budget)
            assert outcome is not None
            assert outcome.trials == 10
            assert outcome.regret > -0.5, "the best of a world is the best of it"
            regrets[policy.name].append(outcome.regret)
    assert np.mean(regrets["confirmed"]) < np.mean(regrets["once"])


def test_a_bootstrap_sample_has_the_paper_s_setting_and_repeats_others(clear: Records) -> None:
    sample = clear.sample(4)
    assert sample == clear.sample(4) != clear.sample(5)
    assert sample[0] == 0
    assert len(sample) == 24
    assert len(set(sample)) < 24
    here = PoolRound(clear, 0, sample)
    outcome = spend(Policy("all", "random"), clear, here, seed=0, budget=5)
    assert outcome is not None
    assert outcome.regret >= 0


def test_intervals_are_those_of_the_samples_means() -> None:
    def rounds(*pairs: tuple[float, float]) -> list[dict[tuple[str, int], Outcome]]:
        return [{("default", 3): Outcome(a, 2), ("other", 3): Outcome(b, 3)} for a, b in pairs]

    samples = [rounds((a, a - 1), (a + 2, a + 1)) for a in range(101)]
    found = judge(rounds((4, 1), (6, 5)), samples, "default")
    assert found["other", 3] == Judged(3, 2.5, 97.5, 3, less=2, less_low=1, less_high=1)
    assert found["default", 3].less == 0


def test_all_policies_are_played_printed_and_drawn(clear: Records, tmp_path: Path) -> None:
    mode: Mode = "pool"
    played = play(clear, mode, None, 1)
    judged = judge(played, [played, play(clear, mode, 0, 1)], policies(EPOCHS)[4].name)
    names = {policy.name for policy in policies(EPOCHS) if not policy.confirm}
    assert {name for name, budget in judged if budget == BUDGETS[mode][0]} == names
    assert {policy.name for policy in grid(EPOCHS)} <= {name for name, _ in judged}
    shown = list(tables(judged, clear, mode, "made"))
    assert [table.row_count for table in shown] == [len(policies(EPOCHS)), len(grid(EPOCHS))]
    draw({mode: judged}, clear, tmp_path / "tuning.png")
    assert (tmp_path / "tuning.png").stat().st_size > 5000
