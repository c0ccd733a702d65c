"""What a search's decisions are worth: policies side by side at equal epochs, over recorded trainings.

CURVES is a recording of `python -m benchmarks.curves`. Each policy spends a budget of epochs and names a configuration;
its regret is how much more the best configuration is worth, in points of test AP: the mean over seeds that took no part
in the search. Under `published` that is the AP of the last epoch, under `heldout` that of the chosen one.

Pool: policies choose among the recorded configurations, the nearest one that is left to what a sampler suggests, and
try at most a third of them. This judges stopping; it cannot judge what a sampler is worth: its suggestions go to
neighbours.
Fitted: a world is drawn from a model of the recorded trainings. Any configuration can be tried, and the truth is known;
but it is the model's.

Intervals (95 %) are percentiles over bootstrap samples of the configurations, the paper's setting always among them. On
each sample a few searches with other seeds are run, in which all policies meet the same trainings. In the fitted mode
each sample has a model of its own.

    python -m benchmarks.tuning benchmarks/curves/recordings/demo-published.parquet --figure tuning.png
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.common import finish, json_option, make_table
from benchmarks.curves.recording import Recording, read
from tune.algorithms.samplers.registry import SamplerName
from tune.algorithms.simulator.curves import Curve, configuration_key
from tune.algorithms.simulator.environment import Environment
from tune.algorithms.simulator.fitted import CurveModel
from tune.algorithms.simulator.pool import Pool
from tune.algorithms.simulator.simulate import SimulatedTrial, simulate
from tune.algorithms.space import Space
from tune.algorithms.stopping.asha import AshaSettings
from tune.algorithms.stopping.median import MedianSettings
from tune.algorithms.stopping.registry import StoppingSettings
from tune.planning.options import Options
from tune.planning.resolve import STARTUP, resolve_plan
from tune.planning.space import published_point, search_space

Mode = Literal["pool", "fitted"]
# Budgets in whole trainings. A pool is too small for a confirmation, which takes up to 20.
BUDGETS: Mapping[Mode, tuple[int, ...]] = {"pool": (3, 5), "fitted": (10, 30, 60)}
# The grid of the stopping rule is compared at the budget of this place.
_GRID_BUDGET: Mapping[Mode, int] = {"pool": 1, "fitted": 1}
GRACES, REDUCTIONS = (0.125, 0.25, 0.5, 0.75), (2, 3, 4)
# Trainings of a confirmation: seeds of each of the best, and of the paper's setting.
CONFIRM_SEEDS = 5
_LEVEL = 95
# The place among `policies` of what a search does when nothing is asked for.
_DEFAULT = 4


@dataclass(frozen=True)
class Policy:
    """How a budget is spent.

    Attributes:
        name: In words.
        sampler: Who suggests; None to name the paper's setting without any search.
        stopping: Who stops.
        confirm: So many of the best are trained again on fresh seeds, beside the paper's setting; 0 for none.
    """

    name: str
    sampler: SamplerName | None = "tpe"
    stopping: StoppingSettings | None = None
    confirm: int = 0


@dataclass(frozen=True)
class Outcome:
    """What one search came to.

    Attributes:
        regret: Points of AP.
        trials: That were begun and ended within the budget.
    """

    regret: float
    trials: int


def policies(epochs: int) -> list[Policy]:
    """Those that are compared at all budgets."""
    grace = default_grace(epochs)
    asha = AshaSettings(grace=grace)
    return [
        Policy("the paper's setting alone", None),
        Policy("random search", "random"),
        Policy("TPE alone"),
        Policy(f"TPE, median rule from {grace}", stopping=MedianSettings(grace=grace)),
        Policy(f"TPE, ASHA {grace}, 1/{asha.reduction} (default)", stopping=asha),
        Policy("the same with --confirm 3", stopping=asha, confirm=3),
    ]


def grid(epochs: int) -> list[Policy]:
    """ASHA with other graces and reductions."""
    return [
        Policy(f"ASHA {grace}, 1/{reduction}", stopping=AshaSettings(grace=grace, reduction=reduction))
        for grace in sorted({max(1, round(share * epochs)) for share in GRACES})
        for reduction in REDUCTIONS
    ]


def default_grace(epochs: int) -> int:
    """Of a search whose trials have so many epochs."""
    plan = resolve_plan(Options(hyperparameters={"epochs": epochs}, stopping="asha"), None)
    assert plan.grace is not None
    return plan.grace


@dataclass(frozen=True)
class Records:
    """A recording as policies need it.

    Attributes:
        space: What is searched.
        epochs: Of a whole training.
        first: The paper's setting.
        seeds: Those that every configuration was trained with.
        curves: All trainings with them, by configuration and then seed.
    """

    space: Space
    epochs: int
    first: Mapping[str, Any]
    seeds: tuple[int, ...]
    curves: tuple[Curve, ...]

    @property
    def configurations(self) -> int:
        """How many, the paper's among them."""
        return len(self.curves) // len(self.seeds)

    def sample(self, number: int | None) -> list[int]:
        """Places of configurations: a bootstrap sample with the paper's setting, or, for None, all."""
        if number is None:
            return list(range(self.configurations))
        drawn = np.random.default_rng([number, 7]).integers(1, self.configurations, self.configurations - 1)
        return [0, *map(int, drawn)]


def records(recording: Recording) -> Records:
    """The trainings with the seeds that every configuration has, as curves."""
    trainings = {one.key: one for one in recording.trainings}
    numbers = sorted({number for number, _ in trainings})
    seeds = sorted({seed for _, seed in trainings})
    seeds = [seed for seed in seeds if all((number, seed) in trainings for number in numbers)]
    base = trainings[numbers[0], seeds[0]].config
    space = search_space(base)
    chosen = recording.about.protocol == "heldout"
    curves = []
    for number, seed in itertools.product(numbers, seeds):
        one = trainings[number, seed]
        scores = one.figures["selection_score"]
        at = int(np.argmax(scores)) if chosen else -1
        curves.append(
            Curve(
                params={name: getattr(one.config, name) for name in space},
                seed=seed,
                scores=tuple(map(float, scores)),
                quality=0.0 if one.error else 100 * float(one.figures["ap"][at]),
                diverged=one.error is not None,
            )
        )
    return Records(space, base.epochs, published_point(space), tuple(seeds), tuple(curves))


class PoolRound:
    """Searches over a pool: one seed for all trials, others for a confirmation, the rest tell the truth.

    Args:
        found: The recording.
        number: Which round; decides the seeds.
        sample: Places of the configurations.
    """

    def __init__(self, found: Records, number: int, sample: Sequence[int]) -> None:
        turned = np.roll(found.seeds, -number).tolist()
        fresh = min(CONFIRM_SEEDS, (len(turned) - 1) // 2)
        self._fresh, truth = turned[1 : 1 + fresh], {turned[0], *turned[1 + fresh :]}
        self._curves = {(configuration_key(each.params), each.seed): each for each in found.curves}
        curves = [each for each in found.curves if each.seed in truth]
        pool = Pool(curves, found.space, found.epochs, turned[0], sample)
        self.environment: Environment = pool
        self.best = pool.best
        self.most: int | None = pool.budget

    def quality(self, params: Mapping[str, Any]) -> float:
        """What a configuration is worth."""
        quality = self.environment.train(params, 0).quality
        assert quality is not None
        return quality

    def fresh_scores(self, params: Mapping[str, Any]) -> list[float]:
        """Selection scores of whole trainings with fresh seeds."""
        key = configuration_key(params)
        return [float(self._curves[key, seed].scores[-1] or 0.0) for seed in self._fresh]


class FittedRound:
    """Searches in a world.

    Args:
        model: It is drawn from.
        number: Which round.
    """

    def __init__(self, model: CurveModel, number: int) -> None:
        self._world = model.world(number)
        self.environment: Environment = self._world
        self.best = self._world.best
        self.most: int | None = None
        self._confirmed = 0

    def quality(self, params: Mapping[str, Any]) -> float:
        """What a configuration is worth."""
        return self._world.quality(params)

    def fresh_scores(self, params: Mapping[str, Any]) -> list[float]:
        """Selection scores of whole trainings with fresh seeds."""
        self._confirmed += 1
        curves = (self._world.train(params, self._confirmed, 1 + seed) for seed in range(CONFIRM_SEEDS))
        return [float(curve.scores[-1] or 0.0) for curve in curves]


def spend(
    policy: Policy, found: Records, here: PoolRound | FittedRound, seed: int, budget: int
) -> Outcome | None:
    """Search with a policy.

    Args:
        policy: How.
        found: The recording.
        here: What is searched.
        seed: Of the search.
        budget: In whole trainings.

    Returns:
        None where the budget is too small for what the policy does after the search.
    """
    if policy.sampler is None:
        return Outcome(here.best - here.quality(found.first), 0)
    confirmations = (policy.confirm + 1) * CONFIRM_SEEDS if policy.confirm else 0
    left = budget - confirmations
    if left < 1:
        return None
    epochs = left * found.epochs
    trials = simulate(
        found.space,
        here.environment,
        trials=min(epochs, here.most or epochs),
        startup=STARTUP,
        seed=seed,
        sampler=policy.sampler,
        stopping=policy.stopping,
        initial=(found.first,),
        budget=epochs,
    )
    return Outcome(here.best - here.quality(named(policy, trials, here)), len(trials))


def named(
    policy: Policy, trials: Sequence[SimulatedTrial], here: PoolRound | FittedRound
) -> Mapping[str, Any]:
    """The configuration that a search names: of the best score, or the best on fresh seeds among the best few."""
    ranked = sorted(
        (trial for trial in trials if not trial.failed), key=lambda trial: -float(trial.scores[-1] or 0.0)
    )
    different = {configuration_key(trial.params): trial.params for trial in ranked}
    if not policy.confirm:
        return next(iter(different.values()))
    candidates = [*different.values()][: policy.confirm]
    if trials[0].params not in candidates:
        candidates.append(trials[0].params)
    return max(candidates, key=lambda params: statistics.fmean(here.fresh_scores(params)))


def play(found: Records, mode: Mode, sample: int | None, rounds: int) -> list[dict[tuple[str, int], Outcome]]:
    """Rounds of searches on one bootstrap sample: outcomes by policy and budget; in a round all meet the same."""
    places = found.sample(sample)
    model = None
    if mode == "fitted":
        by_place = [
            found.curves[place * len(found.seeds) : (place + 1) * len(found.seeds)]
            for place in sorted({*places})
        ]
        model = CurveModel(itertools.chain(*by_place), found.space, found.epochs)
    outcomes = []
    offset = 0 if sample is None else 1000 * (1 + sample)
    for number in range(offset, offset + rounds):
        here = PoolRound(found, number, places) if model is None else FittedRound(model, number)
        own: dict[tuple[str, int], Outcome] = {}
        for place, budget in enumerate(BUDGETS[mode]):
            compared = policies(found.epochs) + (grid(found.epochs) if place == _GRID_BUDGET[mode] else [])
            for policy in compared:
                outcome = spend(policy, found, here, number, budget)
                if outcome is not None:
                    own[policy.name, budget] = outcome
        outcomes.append(own)
    return outcomes


@dataclass(frozen=True)
class Judged:
    """A policy at a budget.

    Attributes:
        regret: Mean over the searches on all configurations, points.
        low, high: Its interval.
        trials: Mean.
        less: Mean of the default's regret minus this one's, in the same rounds.
        less_low, less_high: Its interval.
    """

    regret: float
    low: float
    high: float
    trials: float
    less: float
    less_low: float
    less_high: float


def judge(
    whole: Sequence[Mapping[tuple[str, int], Outcome]],
    samples: Sequence[Sequence[Mapping[tuple[str, int], Outcome]]],
    default: str,
) -> dict[tuple[str, int], Judged]:
    """Means over the rounds on all configurations, intervals over the means of the bootstrap samples."""

    def mean(rounds: Sequence[Mapping[tuple[str, int], Outcome]], name: str, budget: int) -> float:
        return statistics.fmean(own[name, budget].regret for own in rounds)

    judged = {}
    for name, budget in whole[0]:
        means = [mean(rounds, name, budget) for rounds in samples]
        less = [mean(rounds, default, budget) - mean(rounds, name, budget) for rounds in samples]
        edges = (50 - _LEVEL / 2, 50 + _LEVEL / 2)
        low, high = np.percentile(means, edges)
        less_low, less_high = np.percentile(less, edges)
        judged[name, budget] = Judged(
            mean(whole, name, budget),
            float(low),
            float(high),
            statistics.fmean(own[name, budget].trials for own in whole),
            mean(whole, default, budget) - mean(whole, name, budget),
            float(less_low),
            float(less_high),
        )
    return judged


def _play(task: tuple[Records, Mode, int | None, int]) -> list[dict[tuple[str, int], Outcome]]:
    with threadpool_limits(1):  # small matrices: threads only wait for one another
        return play(*task)


def compare(
    found: Records, mode: Mode, rounds: int, samples: int, processes: int
) -> dict[tuple[str, int], Judged]:
    """All policies.

    Args:
        found: The recording.
        mode: See the module.
        rounds: On all configurations; an eighth of them, at least two, on each bootstrap sample.
        samples: Bootstrap samples.
        processes: At once.
    """
    whole = [(found, mode, None, rounds)]
    sampled = [(found, mode, sample, max(2, rounds // 8)) for sample in range(samples)]
    tasks: list[tuple[Records, Mode, int | None, int]] = [*whole, *sampled]
    results = []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for count, result in enumerate(pool.map(_play, tasks), start=1):
            click.echo(f"{mode}: {count}/{len(tasks)}", err=True)
            results.append(result)
    default = policies(found.epochs)[_DEFAULT].name
    return judge(results[0], results[1:], default)


def tables(
    judged: Mapping[tuple[str, int], Judged], found: Records, mode: Mode, name: str
) -> Iterator[Table]:
    """The policies by budget, and the grid."""
    budgets = BUDGETS[mode]
    what = f"{name}, {mode}: {found.configurations} configurations, {len(found.seeds)} seeds, {found.epochs} epochs"
    heads = [f"{budget} trainings\n= {budget * found.epochs} epochs" for budget in budgets]
    table = make_table(f"{what}\nregret in points of AP [95 %], trials in brackets", ["policy"], heads)
    for policy in policies(found.epochs):
        cells = (judged.get((policy.name, budget)) for budget in budgets)
        table.add_row(policy.name, *("-" if cell is None else _regret(cell) for cell in cells))
    yield table
    budget = budgets[_GRID_BUDGET[mode]]
    default = policies(found.epochs)[_DEFAULT].name
    table = make_table(
        f"ASHA, {what}, {budget} trainings",
        ["first rung, share that goes on"],
        ["regret [95 %]", f"less than {default}"],
    )
    for policy in grid(found.epochs):
        cell = judged[policy.name, budget]
        table.add_row(
            policy.name, _regret(cell), f"{cell.less:+.2f} [{cell.less_low:+.2f}, {cell.less_high:+.2f}]"
        )
    yield table


def _regret(cell: Judged) -> str:
    return f"{cell.regret:.2f} [{cell.low:.2f}, {cell.high:.2f}] ({cell.trials:.1f})"


def draw(judged: Mapping[Mode, Mapping[tuple[str, int], Judged]], found: Records, path: Path) -> None:
    """Regret against budget, a panel for each mode."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(judged), 3.6), layout="constrained")
    axes = figure.subplots(1, len(judged), squeeze=False)[0]
    for axis, (mode, cells) in zip(axes, judged.items(), strict=True):
        budgets = BUDGETS[mode]
        compared = policies(found.epochs)
        for place, policy in enumerate(compared):
            there = [budget for budget in budgets if (policy.name, budget) in cells]
            if not there:
                continue
            shown = [cells[policy.name, budget] for budget in there]
            # Beside one another, so that intervals can be read.
            at = [budget * (1 + 0.02 * (place - len(compared) / 2)) for budget in there]
            errors = [
                [max(0.0, each.regret - each.low) for each in shown],
                [max(0.0, each.high - each.regret) for each in shown],
            ]
            axis.errorbar(
                at, [each.regret for each in shown], errors, marker="o", ms=4, lw=1.2, label=policy.name
            )
        axis.set(xscale="log", title=f"{mode} mode", xlabel="budget, whole trainings", ylim=(0, None))
        axis.set_xticks(budgets, map(str, budgets))
        axis.minorticks_off()
    axes[0].set_ylabel("regret, points of test AP")
    axes[-1].legend(fontsize=7)
    figure.savefig(path, dpi=150)


@click.command(help=__doc__.split("\n\n")[0] if __doc__ else None)
@click.argument("curves", type=click.Path(path_type=Path))
@click.option(
    "--rounds",
    type=click.IntRange(2),
    default=48,
    show_default=True,
    help="Searches with each policy on all configurations.",
)
@click.option("--samples", type=click.IntRange(2), default=40, show_default=True, help="Bootstrap samples.")
@click.option("--mode", "modes", type=click.Choice(["pool", "fitted"]), multiple=True, help="[default: both]")
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True)
@click.option("--figure", type=click.Path(dir_okay=False, path_type=Path), help="Draw regret against budget.")
@json_option
def main(
    curves: Path,
    rounds: int,
    samples: int,
    modes: tuple[Mode, ...],
    processes: int,
    figure: Path | None,
    json_path: Path | None,
) -> None:
    """Search, judge, print."""
    found = records(read(curves))
    judged = {mode: compare(found, mode, rounds, samples, processes) for mode in modes or ("pool", "fitted")}
    shown = [table for mode, cells in judged.items() for table in tables(cells, found, mode, curves.stem)]
    results: dict[str, Any] = {
        mode: [{"policy": name, "budget": budget, **asdict(cell)} for (name, budget), cell in cells.items()]
        for mode, cells in judged.items()
    }
    if figure is not None:
        draw(judged, found, figure)
    finish(shown, [], results, json_path)


if __name__ == "__main__":
    main()
