"""Trials that train nothing: the worker's side of `benchmarks.scale`, without PyTorch.

`StandIn` answers Tune as `tune.execution.trainable.MacilTrainable` does: an epoch's numbers under the same names, a
checkpoint in the trial's folder at its end, another configuration on the same worker. An epoch is a pause.

A worker of Ray is a process, and hundreds of them fit no small machine. `Host` is one process with many stand-ins, each
behind a `SlotHandle` that Tune takes for a worker of its own: every call is a real call of Ray, with its message, its
future and its answer; what is missing are the processes.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
from pyarrow import fs
from ray import tune
from ray.air.execution.resources.placement_group import PlacementGroupAcquiredResources
from ray.train._internal.session import _TrainingResult
from ray.tune.result import SHOULD_CHECKPOINT

from macil.io.files import read_json
from tune.storage.trial_names import NUMBER, SPEC

# What Tune keeps of a result with a checkpoint (tune.execution.tune_scheduler.for_tune, which needs PyTorch to be
# imported).
_KEPT = ("selection_score", "training_iteration", "done", "trial_id", "time_total_s", "pid", "node_ip")
_CALLS_AT_ONCE = 10_000


class StandIn(tune.Trainable):
    """A trial of pauses.

    Its configuration has its `number`; the file that its specification calls the store says `pause` (seconds an
    epoch), `epochs` (of a whole training), `staggered` and `hold`: so many of the first trials wait in their first
    epoch until the file `hold` is there, go on after a random share of a pause, and are of 1 to `epochs` epochs, so
    that reports and ends are spread evenly.

    Attributes:
        worker: What tells workers apart in the results.
        began: When the running epoch began, where somebody else has paused for it.
    """

    worker = ""
    began: float | None = None

    def setup(self, config: dict[str, Any]) -> None:
        """Begin."""
        self.worker = self.worker or str(os.getpid())
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial on this worker."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        todo, number = _todo(config[SPEC]["store"]), int(config[NUMBER])
        self._pause = float(todo["pause"])
        self._length = int(todo["epochs"])
        self._hold: str | None = None
        if number < todo["staggered"]:
            self._length = 1 + number % self._length
            self._hold = todo["hold"]
        self._dice = random.Random(number)
        self._quality = self._dice.random()
        self._best = 0.0

    @property
    def held(self) -> bool:
        """Whether this is to wait for the others."""
        return self._hold is not None and not Path(self._hold).exists()

    def pause(self) -> float:
        """Seconds of the epoch that begins."""
        held, self._hold = self._hold, None
        return self._pause * (self._dice.random() if held else 1)

    def step(self) -> dict[str, Any]:
        """An epoch's numbers, as many as a training reports."""
        began, self.began = self.began, None
        if began is None:
            while self.held:
                time.sleep(0.05)
            began = time.time()
            time.sleep(self.pause())
        epoch = self.iteration + 1
        score = made_up_score(self._quality, epoch, self._dice)
        self._best = max(self._best, score)
        return {
            "epoch": epoch,
            "selection_score": self._best,
            "chosen_epoch": epoch,
            "ap": None,
            "ap_trapezoid": None,
            "visual_ap": None,
            "heldout_ap": score,
            "heldout_loss": 1 - score,
            "heldout_score": score,
            "video_accuracy": score,
            "loss_mil": self._dice.random(),
            "loss_v2b": self._dice.random(),
            "loss_v2n": self._dice.random(),
            "loss_visual": self._dice.random(),
            "learning_rate": 4e-4,
            "parameters": 347_842,
            "parameters_published": 347_842,
            "seconds": self._pause,
            "diverged": False,
            "done": epoch >= self._length,
            SHOULD_CHECKPOINT: False,
            "worker": self.worker,
            "began": began,
            "ended": time.time(),
        }

    def log_result(self, result: dict[str, Any]) -> None:
        """As a training: Tune has the configuration with the trial."""
        result.pop("config", None)
        super().log_result(result)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """A small file."""
        (Path(checkpoint_dir) / "trainer.pt").write_bytes(bytes(1000))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing is lost here, so nothing is gone on with."""

    def _report_class_trainable_checkpoint(self, checkpoint_dir: str, returned: Any) -> Any:
        storage = self._storage
        if storage is None:
            return super()._report_class_trainable_checkpoint(checkpoint_dir, returned)
        metrics: dict[str, Any] = dict(self._last_result or {})
        storage._update_checkpoint_index(metrics)
        target = Path(storage.trial_fs_path) / storage.checkpoint_dir_name
        shutil.copytree(checkpoint_dir, target, dirs_exist_ok=True)
        kept = {key: metrics[key] for key in _KEPT if metrics.get(key) not in (None, False)}
        return _TrainingResult(checkpoint=tune.Checkpoint(str(target), fs.LocalFileSystem()), metrics=kept)


@cache
def _todo(path: str) -> dict[str, Any]:
    return dict(read_json(path))


def made_up_score(quality: float, epoch: int, dice: random.Random) -> float:
    """The score of an epoch: it rises towards `quality` (0 to 1), with noise of an eighth of its spread."""
    return quality * (1 - math.exp(-epoch / 10)) + 0.04 * dice.random()


class Host:
    """A process that holds stand-ins; an actor of coroutines."""

    def __init__(self) -> None:
        self._standins: dict[int, StandIn | Exception] = {}

    async def call(self, slot: int, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a worker of its own would answer."""
        if method == "__init__":
            self._standins[slot] = _make(f"{os.getpid()}/{slot}", kwargs)
            return None
        while slot not in self._standins:  # coroutines begin in any order
            await asyncio.sleep(0.01)
        standin = self._standins[slot]
        if isinstance(standin, Exception):
            raise standin
        if method in ("__ray_ready__", "__ray_terminate__"):
            return True
        if method == "train":
            while standin.held:
                await asyncio.sleep(0.2)
            began = time.time()
            await asyncio.sleep(standin.pause())
            standin.began = began
        return getattr(standin, method)(*args, **kwargs)


def _make(worker: str, given: dict[str, Any]) -> StandIn | Exception:
    """The error of a worker that could not start is raised by its first call."""
    try:
        standin = StandIn(**given)
    except Exception as error:
        return error
    standin.worker = worker
    return standin


class _Method:
    def __init__(self, handle: SlotHandle, name: str) -> None:
        self._handle = handle
        self._name = name

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        return self._handle.host.call.remote(self._handle.slot, self._name, args, kwargs)


class SlotHandle:
    """A stand-in on a host, for whoever takes it for an actor of its own."""

    def __init__(self, host: Any, slot: int) -> None:
        self.host = host
        self.slot = slot
        self._actor_id = host._actor_id

    def __getattr__(self, name: str) -> _Method:
        if name.startswith("_") and name not in ("__ray_ready__", "__ray_terminate__"):
            raise AttributeError(name)
        return _Method(self, name)


class _Slots:
    """In place of an actor's class."""

    def __init__(self, hosts: Iterator[Any], numbers: Iterator[int]) -> None:
        self._hosts = hosts
        self._numbers = numbers

    def remote(self, **kwargs: Any) -> SlotHandle:
        """A new stand-in."""
        handle = SlotHandle(next(self._hosts), next(self._numbers))
        handle.host.call.remote(handle.slot, "__init__", (), kwargs)
        return handle


@contextmanager
def slots_for_workers(hosts: int) -> Iterator[list[Any]]:
    """Let Tune start its workers as stand-ins on so many hosts; resources are taken and given back as ever."""
    actors: list[Any] = [
        ray.remote(Host).options(num_cpus=0, max_concurrency=_CALLS_AT_ONCE).remote() for _ in range(hosts)
    ]
    turns, numbers = itertools.cycle(actors), itertools.count()

    def annotate(*_: Any, **__: Any) -> _Slots:
        return _Slots(turns, numbers)

    try:
        with patch.object(PlacementGroupAcquiredResources, "_annotate_remote_entity", annotate):
            yield actors
    finally:
        for actor in actors:
            ray.kill(actor)
