"""Whether the embedded demo is what it was chosen to be: cheap, learnable, steady, and worth searching on.

The paper's setting and random configurations of the default search space are trained under the published protocol, each
with the same seeds, with the epochs and the batch size that a search on the demo has; what is judged is the test AP
(step-wise) of the last epoch.

1. cost: a whole training of the paper's setting takes at most 15 s of one CPU;
2. learnable: its mean AP is at least 40 points above the share of positive frames, which random scores get;
3. steady: the standard deviation of its AP between seeds is at most 4 points;
4. worth searching: among the better half of the random configurations the variance component between configurations,
   with the noise taken off (one-way random effects), is at least as large as the one between seeds.

    python -m benchmarks.demo_criteria
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.common import describe_machine, finish, json_option, machine_line, make_table
from benchmarks.curves.sets import configurations, demo_base
from macil.config import TrialConfig
from macil.data.opening import resolve
from macil.data.store.feature_store import FeatureStore
from macil.errors import DivergedError
from macil.training.trainer import Trainer

MOST_SECONDS, LEAST_POINTS, MOST_DEVIATION = 15.0, 40.0, 4.0


@dataclass(frozen=True)
class Training:
    """One training: its configuration's number, 0 for the paper's, its seed, test AP in % and seconds of CPU."""

    number: int
    seed: int
    ap: float
    seconds: float


@dataclass(frozen=True)
class Criterion:
    """What was asked for and what was measured."""

    name: str
    wanted: str
    measured: str
    met: bool


def train(store: str, number: int, config: Mapping[str, Any]) -> Training:
    """Train on one thread. One that diverges has an AP of 0."""
    torch.set_num_threads(1)
    started = time.process_time()
    trainer = Trainer(TrialConfig(**config), FeatureStore.open(store), device="cpu", threads=1)
    try:
        while not trainer.finished:
            trainer.train_epoch()
        ap = 100 * float(trainer.history[-1]["ap"])
    except DivergedError:
        ap = 0.0
    return Training(number, config["seed"], ap, time.process_time() - started)


def variance_components(scores: np.ndarray) -> tuple[float, float]:
    """Between configurations, with the noise taken off, and between seeds: one-way random effects.

    Args:
        scores: (configurations, seeds), at least two of each.
    """
    seeds = scores.shape[1]
    within = float(scores.var(axis=1, ddof=1).mean())
    return float(scores.mean(axis=1).var(ddof=1)) - within / seeds, within


def better_half(scores: np.ndarray) -> np.ndarray:
    """The rows of larger means, at least two of them."""
    order = np.argsort(-scores.mean(axis=1), kind="stable")
    return scores[order[: max(2, (len(scores) + 1) // 2)]]


def judge(trainings: Sequence[Training], chance: float) -> list[Criterion]:
    """The four criteria.

    Args:
        trainings: Of each configuration with each seed.
        chance: Share of positive frames, in %.
    """
    rows: dict[int, list[float]] = {}
    for one in sorted(trainings, key=lambda one: (one.number, one.seed)):
        rows.setdefault(one.number, []).append(one.ap)
    paper = np.array(rows.pop(0))
    seconds = [one.seconds for one in trainings if one.number == 0]
    others = [one.seconds for one in trainings if one.number]
    deviation = float(paper.std(ddof=1))
    half = better_half(np.array([*rows.values()]))
    between, within = variance_components(half)
    return [
        Criterion(
            "cost",
            f"at most {MOST_SECONDS:g} s of one CPU",
            f"{np.mean(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f}); "
            f"of random configurations {np.mean(others):.1f} s",
            float(np.mean(seconds)) <= MOST_SECONDS,
        ),
        Criterion(
            "learnable",
            f"at least {LEAST_POINTS:g} points above chance",
            f"{paper.mean() - chance:.1f} points: {paper.mean():.1f} %, chance {chance:.1f} %",
            bool(paper.mean() - chance >= LEAST_POINTS),
        ),
        Criterion(
            "steady",
            f"deviation between seeds at most {MOST_DEVIATION:g} points",
            f"{deviation:.1f} points over {len(paper)} seeds, {paper.min():.1f} to {paper.max():.1f} %",
            deviation <= MOST_DEVIATION,
        ),
        Criterion(
            "worth searching",
            "variance between configurations at least that between seeds",
            f"{between:.1f} against {within:.1f} points squared in the better {len(half)} of {len(rows)}",
            between >= within,
        ),
    ]


@click.command(help=__doc__.split("\n\n")[0] if __doc__ else None)
@click.option("--seeds", type=click.IntRange(2), default=4, show_default=True, help="Of each configuration.")
@click.option("--configurations", "count", type=click.IntRange(3), default=12, show_default=True)
@click.option(
    "--search-seed", type=click.IntRange(0), default=0, show_default=True, help="Of the configurations."
)
@click.option("--data", help="Another store, or a folder in the XD-Violence layout.")
@click.option("--epochs", type=click.IntRange(1), help="[default: those of a search on the demo]")
@click.option("--batch-size", type=click.IntRange(1), help="[default: that of a search on the demo]")
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True)
@json_option
def main(
    seeds: int,
    count: int,
    search_seed: int,
    data: str | None,
    epochs: int | None,
    batch_size: int | None,
    processes: int,
    json_path: Path | None,
) -> None:
    """Train, judge, print."""
    given = {
        name: value for name, value in (("epochs", epochs), ("batch_size", batch_size)) if value is not None
    }
    base = demo_base().replace(**given)
    store = resolve(data)
    configs = configurations(base, 1 + count, search_seed)
    trainings = [*_train_all(str(store.path), configs, seeds, processes)]
    chance = 100 * store.test_labels().violent_share
    criteria = judge(trainings, chance)
    table = make_table(
        f"{store.describe()}; {base.epochs} epochs in batches of {base.batch_size}",
        ["", "wanted", "measured", ""],
        [],
    )
    for one in criteria:
        table.add_row(one.name, one.wanted, one.measured, "met" if one.met else "NOT MET")
    machine = describe_machine()
    results = {
        "machine": machine,
        "chance": chance,
        "trainings": [asdict(one) for one in trainings],
        "criteria": [asdict(one) for one in criteria],
    }
    finish([table], [machine_line(machine), *_means(trainings)], results, json_path)


def _train_all(store: str, configs: Sequence[TrialConfig], seeds: int, processes: int) -> Iterator[Training]:
    tasks = [
        (number, config.replace(seed=seed).to_dict())
        for seed in range(seeds)
        for number, config in enumerate(configs)
    ]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(train, store, number, config) for number, config in tasks]
        for done, future in enumerate(as_completed(futures), start=1):
            click.echo(f"{done}/{len(tasks)} {json.dumps(asdict(future.result()))}", err=True)
            yield future.result()


def _means(trainings: Sequence[Training]) -> Iterator[str]:
    numbers = sorted({one.number for one in trainings})
    means = {number: np.mean([one.ap for one in trainings if one.number == number]) for number in numbers}
    best = sorted(numbers[1:], key=lambda number: -means[number])
    yield f"mean AP of the random configurations: {', '.join(f'{means[number]:.1f}' for number in best)}"


if __name__ == "__main__":
    main()
