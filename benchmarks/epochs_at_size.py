"""Whole epochs at the size of XD-Violence, with what they are made of; `benchmarks.training` runs it.

The training is `macil.Trainer` under the published protocol, on made-up features: 3,954 training videos of five crops
(19,770 bags), and 800 test videos with 145,649 snippets of five crops, scored by both networks after every epoch. The
first epoch, in which steps are compiled and recorded, is timed apart.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from rich.table import Table

from benchmarks.common import make_table, wait_for
from benchmarks.synthetic import (
    CROPS,
    TEST_SNIPPETS,
    TEST_VIDEOS,
    TRAIN_VIDEOS,
    SyntheticStore,
    evaluated_lengths,
    training_lengths,
)
from macil.config import TrialConfig
from macil.training.trainer import Trainer

# Fifty epochs on one H200, after compilation.
GOAL_SECONDS, GOAL_EPOCHS = 15.0, 50
BYTES_OF_A_STEP = (
    "2 R (Dv + Da) f + 2 R 9 d a + 32 P: features (f bytes each) are read for the projections and again for "
    "their gradients; three streams with their keys and values (a bytes each) are written and read; parameters, "
    "gradients and both moments are read and written once, in float32; R rows of a batch, P parameters"
)


class Stopwatch:
    """Adds up seconds by part."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._device = device

    def attach(self, owner: object, method: str, part: str) -> None:
        """Count the time of every call of a method of `owner`, until the device is done with it, as `part`."""
        inner: Callable[..., Any] = getattr(owner, method)

        def timed(*arguments: Any) -> Any:
            started = time.perf_counter()
            result = inner(*arguments)
            wait_for(self._device)
            self.seconds[part] += time.perf_counter() - started
            return result

        setattr(owner, method, timed)


def train_at_scale(
    config: TrialConfig, device: torch.device, *, epochs: int, videos: int, bandwidth_gbs: float | None = None
) -> dict[str, Any]:
    """Train, and say where the time went.

    Args:
        config: What to train; its epochs are not looked at.
        device: Where; on a GPU in bfloat16, as is usual there.
        epochs: Timed epochs, after one that is timed apart.
        videos: Training videos; test videos in proportion.
        bandwidth_gbs: What the device's memory can do.
    """
    share = videos / TRAIN_VIDEOS
    store = SyntheticStore(
        training_lengths(videos),
        evaluated_lengths(max(2, round(share * TEST_VIDEOS)), max(2, round(share * TEST_SNIPPETS))),
        crops=CROPS,
        overlapping=device.type != "cpu",
    )
    config = config.replace(epochs=epochs + 1)
    started = time.perf_counter()
    trainer = Trainer(config, store, device=device.type)
    wait_for(device)
    ready = time.perf_counter()
    trainer.train_epoch()
    wait_for(device)
    watch = Stopwatch(device)
    watch.attach(trainer.engine, "train_epoch", "train")
    watch.attach(trainer.engine, "infuse", "infuse")
    watch.attach(trainer.evaluator, "evaluate", "evaluate")
    begun = time.perf_counter()
    while not trainer.finished:
        trainer.train_epoch()
    wait_for(device)
    total = time.perf_counter() - begun

    bags = trainer.engine.bags
    steps = epochs * -(-len(bags) // config.batch_size)
    parts = {name: watch.seconds[name] for name in ("train", "evaluate", "infuse")}
    step_bytes = bytes_of_step(trainer)
    a_second = step_bytes["all"] * steps / parts["train"] / 1e9
    return {
        "epochs": epochs,
        "train_videos": videos,
        "bags": len(bags),
        "mean_length": float(bags.lengths.double().mean()),
        "full_share": float((bags.lengths == bags.snippets).double().mean()),
        "test_videos": len(store.videos("test")),
        "test_snippets": int(store.videos("test").lengths.sum()),
        "precision": trainer.precision,
        "mode": trainer.engine.mode,
        "where": bags.describe(),
        "set_up_seconds": ready - started,
        "first_epoch_seconds": begun - ready,
        "seconds": total,
        "parts": parts | {"other": total - sum(parts.values())},
        "steps": steps,
        "step_ms": 1e3 * parts["train"] / steps,
        "step_bytes": step_bytes,
        "bytes_formula": BYTES_OF_A_STEP,
        "achieved_gbs": a_second,
        "bandwidth_gbs": bandwidth_gbs,
        "bandwidth_share": None if bandwidth_gbs is None else a_second / bandwidth_gbs,
        "goal_seconds": GOAL_SECONDS * epochs / GOAL_EPOCHS if videos == TRAIN_VIDEOS else None,
        "last_ap": trainer.history[-1]["ap"],
    }


def bytes_of_step(trainer: Trainer) -> dict[str, int]:
    """The least that must move in a step of a whole batch, by `BYTES_OF_A_STEP`."""
    engine = trainer.engine
    samples = torch.arange(min(len(engine.bags), engine.config.batch_size), device=engine.device)
    batch = engine.bags.batch(samples.expand(len(engine.seeds), -1))
    rows = batch.visual.shape[0] * batch.visual.shape[1]
    width = batch.visual.shape[-1] + batch.audio.shape[-1]
    activation = 2 if engine.precision == "bf16" else 4
    parameters = sum(tensor.numel() for stack in engine.stacks for tensor in stack.tensors.values())
    parts = {
        "features": 2 * rows * width * engine.bags.dtype.itemsize,
        "activations": 2 * rows * 9 * engine.config.hidden_dim * activation,
        "parameters": 32 * parameters,
    }
    return parts | {"all": sum(parts.values())}


def scale_table(trained: dict[str, Any]) -> Table:
    """Where the seconds of `train_at_scale` went."""
    table = make_table(
        f"{trained['epochs']} epochs of {trained['bags']:,} bags, {trained['test_snippets']:,} test snippets in "
        f"{CROPS} crops",
        ["part"],
        ["seconds", "share", "ms an epoch", "goal"],
    )
    goal = trained["goal_seconds"]
    for name, seconds in (*trained["parts"].items(), ("all", trained["seconds"])):
        table.add_row(
            name,
            f"{seconds:.2f}",
            f"{seconds / trained['seconds']:.1%}",
            f"{1e3 * seconds / trained['epochs']:.1f}",
            f"≤ {goal:g} s" if name == "all" and goal is not None else "-",
        )
    return table


def describe_scale(trained: dict[str, Any]) -> str:
    """The rest of what `train_at_scale` found, in words."""
    known = trained["bandwidth_share"]
    share = "" if known is None else f", {known:.1%} of {trained['bandwidth_gbs']:g}"
    return (
        f"{trained['where']}, {trained['precision']}, {trained['mode']} steps of {trained['step_ms']:.2f} ms. Apart "
        f"from this, setting up took {trained['set_up_seconds']:.1f} s and the first epoch, with all compilation, "
        f"{trained['first_epoch_seconds']:.1f} s. A step must move {trained['step_bytes']['all'] / 1e6:.0f} MB, so "
        f"{trained['achieved_gbs']:.1f} GB/s were used{share} ({trained['bytes_formula']})."
    )
