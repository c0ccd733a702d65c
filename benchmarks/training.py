"""How long a training step and an epoch take, against the plain way of writing them down.

Both train the audio-visual and the visual network on the same bags, in float32 and with dropout, the data in memory on
the device. The reference (`benchmarks.reference`) has the structure of the authors' released code. Before anything is
timed, losses and gradients of the two are compared in float64 without dropout, and accelerated steps with steps as they
are written; they must agree. `--epochs-at-scale` then runs whole trainings (`benchmarks.epochs_at_size`).

    python -m benchmarks.training --device cpu
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from rich.table import Table

from benchmarks.agreement import EPOCH, check_acceleration, check_reference, padded_batch, same_weights
from benchmarks.common import (
    Seconds,
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
from benchmarks.epochs_at_size import describe_scale, scale_table, train_at_scale
from benchmarks.reference import Reference
from benchmarks.synthetic import CROPS, TRAIN_VIDEOS, SyntheticStore, training_lengths, uniform_lengths
from macil.config import TrialConfig
from macil.training.bags import Residency, TrainingBags
from macil.training.engine import Engine

# Small enough that timed steps do not train all videos to one side, where a reference has less to do.
LEARNING_RATE = 1e-9
REFERENCE, OURS, HALF = "reference", "macil", "macil, bf16"
# On an accelerator a step is timed as a part of so many: there they are recorded, and run without a word from the host.
STEPS_OF_A_TURN = 8
PUBLISHED = {"batch_size": 128, "snippets": 200, "shortest": 30}


class Case(NamedTuple):
    """What is timed."""

    name: str
    lengths: np.ndarray
    """Of the bags"""
    crops: int
    epoch: bool
    """Whether an epoch is timed, shuffle and gathering included; else a step on a batch that is there"""
    goal: float | None
    """Ratio to the reference that is aimed at"""


class Turns(NamedTuple):
    """One run of each contestant."""

    runs: dict[str, Callable[[], Any]]
    engines: dict[str, Engine]
    """Ours among them"""
    steps: int
    """Training steps of a run"""


def make_cases(
    device: torch.device, batch_size: int, snippets: int, shortest: int, epoch_bags: int
) -> list[Case]:
    """A step on bags of one length, a step on bags of many lengths, an epoch on lengths as in XD-Violence."""
    gpu = device.type == "cuda"
    shortest = min(shortest, snippets)
    published = {"batch_size": batch_size, "snippets": snippets, "shortest": shortest} == PUBLISHED
    # The goals are for two CPU cores, and for one H200.
    aimed = published and (gpu or torch.get_num_threads() == 2)
    goals = (100.0, 100.0) if gpu else (2.5, 4.0)
    bags = batch_size * (STEPS_OF_A_TURN if gpu else 1)
    videos = max(1, epoch_bags // CROPS)
    long, mixed = (uniform_lengths(bags, least, snippets, 2) for least in (snippets, shortest))
    return [
        Case(f"all {snippets}", long, 1, False, goals[0] if aimed else None),
        Case(f"{shortest} to {snippets}", mixed, 1, False, goals[1] if aimed else None),
        Case("epoch", training_lengths(videos, 2).clip(max=snippets), CROPS, True, None),
    ]


def make_turns(
    case: Case,
    config: TrialConfig,
    device: torch.device,
    *,
    half: bool,
    residency: Residency | None = None,
    accelerate: bool = True,
) -> Turns:
    """The variants of a case, ready to run.

    Args:
        case: What is timed.
        config: What is trained.
        device: Where.
        half: Whether our step in bfloat16 takes part.
        residency: Where our bags are kept; None for what the device gets in a training.
        accelerate: Whether our steps may be compiled and recorded.
    """
    store = SyntheticStore(case.lengths, np.zeros(0, np.int64), crops=case.crops, seed=2)
    padded = TrainingBags(store, None, config.max_snippets, device, residency="resident", dtype=torch.float32)
    first = torch.arange(min(len(padded), config.batch_size), device=device)
    plain = padded_batch(padded, first)
    resident = residency == "resident" or (residency is None and device.type != "cpu")
    # The dense copy of the reference serves both, as both read float32 there.
    bags = padded if resident else TrainingBags(store, None, config.max_snippets, device, residency=residency)
    engine, reference = (
        Engine(config, [0], bags, accelerate=accelerate),
        Reference(config, EPOCH, device),
    )
    same_weights(engine, reference, plain)
    engines = {OURS: engine}
    if half:
        kept = (
            TrainingBags(store, None, config.max_snippets, device, residency=residency) if resident else bags
        )
        engines[HALF] = Engine(config, [0], kept, precision="bf16", accelerate=accelerate)
        engines[HALF].load_state_of(0, engine.state_of(0))

    if case.epoch or resident:
        runs: dict[str, Callable[[], Any]] = {REFERENCE: lambda: _plain_epoch(reference, padded)}
        runs |= {name: _epoch_of(one) for name, one in engines.items()}
        return Turns(runs, engines, math.ceil(len(padded) / config.batch_size))
    runs = {REFERENCE: lambda: reference.step(plain)}
    runs |= {name: _step_of(one, first) for name, one in engines.items()}
    return Turns(runs, engines, 1)


def time_case(
    turns: Turns, repeats: int, warmup: int, device: torch.device, *, epoch: bool
) -> dict[str, Seconds]:
    """Seconds of an epoch or of a step of every contestant."""
    timed = take_turns(turns.runs, repeats, warmup, device=device)
    shared = 1 if epoch else turns.steps
    return {
        name: {of: value if of == "peak_mib" else value / shared for of, value in seconds.items()}
        for name, seconds in timed.items()
    }


def _plain_epoch(reference: Reference, bags: TrainingBags) -> None:
    order = torch.randperm(len(bags)).to(bags.device)
    reference.train_epoch(padded_batch(bags, part) for part in order.split(reference.config.batch_size))


def _epoch_of(engine: Engine) -> Callable[[], Any]:
    return lambda: engine.train_epoch(EPOCH, (LEARNING_RATE, LEARNING_RATE))


def _step_of(engine: Engine, samples: torch.Tensor) -> Callable[[], Any]:
    batch = engine.bags.batch(samples[None])
    engine.begin_epoch(EPOCH, (LEARNING_RATE, LEARNING_RATE))
    return lambda: engine.step(batch)


def run_case(
    case: Case,
    config: TrialConfig,
    device: torch.device,
    *,
    check_batch: int,
    repeats: int,
    warmup: int,
    half: bool,
) -> dict[str, Any]:
    """Check a case, time it."""
    lengths = case.lengths.clip(max=config.max_snippets)
    few = lengths[np.arange(6 * check_batch) % len(lengths)]
    differences = {
        "largest_difference": check_reference(config, few[:check_batch], config.max_snippets, device),
        "largest_difference_accelerated": check_acceleration(
            TrialConfig(batch_size=check_batch), few, config.max_snippets, device
        ),
    }
    turns = make_turns(case, config, device, half=half)
    seconds = time_case(turns, repeats, warmup, device, epoch=case.epoch)
    ratios = {
        f"ratio_of_{of}": {name: seconds[REFERENCE][of] / timed[of] for name, timed in seconds.items()}
        for of in ("median", "fastest")
    }
    return {
        "bags": len(case.lengths) * case.crops,
        "mean_length": float(lengths.mean()),
        "steps": turns.steps,
        "mode": {name: engine.mode for name, engine in turns.engines.items()},
        **differences,
        "seconds": seconds,
        **ratios,
        "goal": case.goal,
    }


# --- command --------------------------------------------------------------------------------------------------


@click.command(help=__doc__.split("\n\n")[0] if __doc__ else None)
@device_option
@click.option("--steps", type=click.IntRange(1), default=5, show_default=True, help="Timed turns.")
@click.option("--warmup", type=click.IntRange(0), default=1, show_default=True, help="Untimed turns before.")
@threads_option
@click.option("--batch-size", type=click.IntRange(2), default=128, show_default=True)
@click.option("--snippets", type=click.IntRange(2), default=200, show_default=True, help="Width of a bag.")
@click.option("--shortest", type=click.IntRange(1), default=30, show_default=True, help="Of mixed lengths.")
@click.option("--epoch-bags", type=click.IntRange(5), help="Bags of the epoch.  [default: 320; cuda: 2050]")
@click.option("--check-batch", type=click.IntRange(2), default=16, show_default=True, help="Bags compared.")
@click.option("--bf16/--no-bf16", default=True, show_default=True, help="Time our step in bfloat16 as well.")
@click.option(
    "--epochs-at-scale", type=click.IntRange(0), help="Epochs of XD-Violence's size.  [default: 0; cuda: 50]"
)
@click.option(
    "--videos",
    type=click.IntRange(2),
    help=f"Training videos at scale, test videos in proportion.  [default: 100; cuda: {TRAIN_VIDEOS}]",
)
@click.option("--bandwidth-gbs", type=click.FloatRange(0, min_open=True), help="Memory bandwidth, GB/s.")
@json_option
def main(
    device_name: str,
    steps: int,
    warmup: int,
    threads: int | None,
    batch_size: int,
    snippets: int,
    shortest: int,
    epoch_bags: int | None,
    check_batch: int,
    bf16: bool,
    epochs_at_scale: int | None,
    videos: int | None,
    bandwidth_gbs: float | None,
    json_path: Path | None,
) -> None:
    """Check, time, print."""
    device = prepare(device_name, threads)
    gpu = device.type == "cuda"
    torch.manual_seed(0)  # dropout and shuffle of the reference
    config = TrialConfig(
        batch_size=batch_size,
        max_snippets=snippets,
        learning_rate=LEARNING_RATE,
        visual_learning_rate=LEARNING_RATE,
    )
    results: dict[str, Any] = {
        "machine": describe_machine(device),
        "batch_size": batch_size,
        "snippets": snippets,
        "turns": steps,
        "cases": {},
        "at_scale": None,
    }
    for case in make_cases(device, batch_size, snippets, shortest, epoch_bags or (2050 if gpu else 320)):
        results["cases"][case.name] = run_case(
            case, config, device, check_batch=check_batch, repeats=steps, warmup=warmup, half=bf16
        )
    tables, remarks = [_table(results)], [machine_line(results["machine"]), _agreement(results)]
    epochs = (50 if gpu else 0) if epochs_at_scale is None else epochs_at_scale
    if epochs:
        trained = train_at_scale(
            config.replace(learning_rate=4e-4, visual_learning_rate=8e-5),
            device,
            epochs=epochs,
            videos=videos or (TRAIN_VIDEOS if gpu else 100),
            bandwidth_gbs=bandwidth_gbs,
        )
        results["at_scale"] = trained
        tables.append(scale_table(trained))
        remarks.append(describe_scale(trained))
    finish(tables, remarks, results, json_path)


def _table(results: dict[str, Any]) -> Table:
    table = make_table(
        f"One training step, and an epoch, in ms: batches of {results['batch_size']} bags, {results['turns']} turns",
        ["lengths", "how"],
        ["median", "min", "max", "ratio,\nmedian", "ratio,\nmin", "goal", "MiB"],
    )
    for name, case in results["cases"].items():
        for contestant, timed in case["seconds"].items():
            goal = case["goal"] if contestant == OURS else None
            table.add_row(
                name,
                contestant,
                *(in_ms(timed[of]) for of in ("median", "fastest", "slowest")),
                *(f"{case[f'ratio_of_{of}'][contestant]:.2f}" for of in ("median", "fastest")),
                "-" if goal is None else f"≥ {goal:g}",
                f"{timed['peak_mib']:.0f}" if "peak_mib" in timed else "-",
            )
        table.add_section()
    return table


def _agreement(results: dict[str, Any]) -> str:
    epoch = results["cases"]["epoch"]
    modes = {mode for case in results["cases"].values() for mode in case["mode"].values()}
    worst, accelerated = (
        max(case[key] for case in results["cases"].values())
        for key in ("largest_difference", "largest_difference_accelerated")
    )
    return (
        f"In float64, losses and gradients agree to {worst:.1e} without dropout; with it, after two epochs, weights of "
        f"accelerated steps and of steps as they are written to {accelerated:.1e}. The epoch has {epoch['bags']} "
        f"bags, {epoch['mean_length']:.0f} snippets long on average, in {epoch['steps']} steps. Ours are run "
        f"as {' or '.join(sorted(modes))} steps."
    )


if __name__ == "__main__":
    main()
