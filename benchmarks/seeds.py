"""How long S seeds of one configuration take in lockstep, against one seed.

An epoch of `macil.training.engine.Engine` with S seeds is timed for several S, both networks, dropout on, lengths as in
XD-Violence. Separate trainings take S times as long as one seed, so S over the ratio to one is what lockstep saves.
Before anything is timed, two seeds in lockstep are compared with each of them alone, in float64 after two epochs of
bags of many lengths; they must agree.

    python -m benchmarks.seeds --device cpu
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from rich.table import Table

from benchmarks.agreement import EPOCH, compare_trainings
from benchmarks.common import (
    describe_machine,
    device_option,
    finish,
    in_ms,
    json_option,
    machine_line,
    make_table,
    prepare,
    take_turns,
    threads_option,
)
from benchmarks.synthetic import SyntheticStore, training_lengths, uniform_lengths
from macil.config import TrialConfig
from macil.training.bags import TrainingBags
from macil.training.engine import Engine, Precision

# On one GPU: so many times as long as one seed.
GOAL_SEEDS, GOAL_RATIO = 5, 2.0


class Size(NamedTuple):
    """What is trained on."""

    bags: int
    batch_size: int
    snippets: int


# A CPU gains nothing from lockstep, and should say so within two minutes.
SIZES = {"cpu": Size(64, 32, 60), "cuda": Size(2560, 128, 200)}


def check_lockstep(config: TrialConfig, snippets: int, device: torch.device) -> float:
    """Compare two seeds in lockstep with each alone, dropout on, bags of many lengths, the last batch smaller.

    Returns:
        The largest difference of losses and weights, relative to the tensor's largest entry.

    Raises:
        click.ClickException: They differ.
    """
    config = config.replace(batch_size=6)
    store = SyntheticStore(uniform_lengths(27, 1, snippets, 1), np.zeros(0, np.int64), seed=1)
    bags = TrainingBags(store, None, snippets, device)
    together = Engine(config, [3, 8], bags, precision="fp64")
    alone = {slot: Engine(config, [seed], bags, precision="fp64") for slot, seed in enumerate(together.seeds)}
    return compare_trainings(together, alone, "the seed alone")


def time_seeds(
    config: TrialConfig, size: Size, counts: Sequence[int], repeats: int, warmup: int, device: torch.device
) -> dict[str, Any]:
    """Seconds of an epoch for every number of seeds, and what they are to one seed."""
    store = SyntheticStore(
        training_lengths(size.bags, 2), np.zeros(0, np.int64), overlapping=device.type != "cpu"
    )
    bags = TrainingBags(store, None, size.snippets, device)
    precision: Precision = "bf16" if device.type == "cuda" else "fp32"
    rates = (config.learning_rate, config.visual_learning_rate)
    # One seed is what the others are compared with, asked for or not.
    engines = {
        count: Engine(config, range(count), bags, precision=precision) for count in sorted({1, *counts})
    }
    runs = {
        str(count): functools.partial(engine.train_epoch, EPOCH, rates) for count, engine in engines.items()
    }
    seconds = take_turns(runs, repeats, warmup, device=device)
    ratios = {
        f"ratio_of_{of}": {name: timed[of] / seconds["1"][of] for name, timed in seconds.items()}
        for of in ("median", "fastest")
    }
    return {
        "precision": precision,
        "where": bags.describe(),
        "mode": {str(count): engine.mode for count, engine in engines.items()},
        "steps": math.ceil(len(bags) / config.batch_size),
        "seconds": seconds,
        **ratios,
        "ratio_to_separate": {name: ratio / int(name) for name, ratio in ratios["ratio_of_median"].items()},
    }


# --- command --------------------------------------------------------------------------------------------------


@click.command(help=__doc__.split("\n\n")[0] if __doc__ else None)
@device_option
@click.option(
    "--seeds",
    "counts",
    type=click.IntRange(1),
    multiple=True,
    default=(1, 2, 5, 10),
    show_default=True,
    help="Number of seeds; give several.",
)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Timed epochs of each.")
@click.option("--warmup", type=click.IntRange(0), default=1, show_default=True, help="Untimed epochs before.")
@click.option("--bags", type=click.IntRange(1), help="Bags of an epoch.  [default: 64; cuda: 2560]")
@click.option("--batch-size", type=click.IntRange(1), help="Bags of a step.  [default: 32; cuda: 128]")
@click.option("--snippets", type=click.IntRange(2), help="Width of a bag.  [default: 60; cuda: 200]")
@threads_option
@json_option
def main(
    device_name: str,
    counts: tuple[int, ...],
    repeats: int,
    warmup: int,
    bags: int | None,
    batch_size: int | None,
    snippets: int | None,
    threads: int | None,
    json_path: Path | None,
) -> None:
    """Check, time, print."""
    device = prepare(device_name, threads)
    usual = SIZES[device.type]
    size = Size(bags or usual.bags, batch_size or usual.batch_size, snippets or usual.snippets)
    config = TrialConfig(batch_size=size.batch_size, max_snippets=size.snippets)
    machine = describe_machine(device)
    difference = check_lockstep(config, min(size.snippets, 40), device)
    timed = time_seeds(config, size, counts, repeats, warmup, device)
    goal = GOAL_RATIO if device.type == "cuda" and size == usual else None
    results: dict[str, Any] = {
        "machine": machine,
        **size._asdict(),
        "repeats": repeats,
        "largest_difference": difference,
        **timed,
        "goal": None if goal is None else {str(GOAL_SEEDS): goal},
    }
    remark = (
        f"{timed['where']}, {timed['precision']}. In float64, losses and weights of two seeds in lockstep are those of "
        f"each alone to {difference:.1e}."
    )
    finish([_table(results)], [machine_line(machine), remark], results, json_path)


def _table(results: dict[str, Any]) -> Table:
    table = make_table(
        f"An epoch of {results['steps']} steps of {results['batch_size']} bags a seed in ms, "
        f"{results['repeats']} epochs",
        ["seeds"],
        ["median", "min", "max", "to one\nseed", "to one,\nmin", "to\nseparate", "goal", "MiB"],
    )
    goals = results["goal"] or {}
    for name, timed in results["seconds"].items():
        table.add_row(
            name,
            *(in_ms(timed[of]) for of in ("median", "fastest", "slowest")),
            *(f"{results[f'ratio_of_{of}'][name]:.2f}" for of in ("median", "fastest")),
            f"{results['ratio_to_separate'][name]:.2f}",
            f"≤ {goals[name]:g}" if name in goals else "-",
            f"{timed['peak_mib']:.0f}" if "peak_mib" in timed else "-",
        )
    return table


if __name__ == "__main__":
    main()
