"""How long a search and a sweep take on so many GPUs: arithmetic and a simulation, from figures that are given.

The simulation has the product's ASHA decide upon made-up scores, and one driver that handles one event at a time, as
Tune does: a worker that has reported waits until its report has been handled.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from benchmarks.standin import made_up_score
from tune.algorithms.stopping.asha import REDUCTION, Asha
from tune.algorithms.stopping.rule import Decision

EPOCHS, GRACE = 50, 15
GPUS = (1, 8, 64)
# Seconds of an epoch: the goal on one H200 (50 in 15 s, unmeasured), ten times and a hundred times as long.
EPOCH_SECONDS = (0.3, 3.0, 30.0)
TRIALS = 1000
ROWS, SEEDS = 12, 5  # Table 4


@dataclass(frozen=True)
class Driver:
    """What the driver takes, in seconds: it does one thing at a time.

    Attributes:
        report: Of an epoch, by trials at once.
        trial: Of a trial, beside its epochs and its suggestion.
        suggestion: Of a suggestion, by finished trials.
    """

    report: Mapping[int, float]
    trial: float
    suggestion: Mapping[int, float]

    def report_of(self, concurrent: int) -> float:
        """Of an epoch, between the measured numbers of trials at once by their logarithm."""
        return _between(self.report, concurrent)

    def suggestion_after(self, finished: int) -> float:
        """Of a suggestion."""
        return _between(self.suggestion, finished)


@dataclass(frozen=True)
class Assumed:
    """What is not the driver's, in seconds; nothing of it is measured here on a GPU.

    Attributes:
        start: From the command to the first step of a worker: Ray, PyTorch, CUDA.
        stage: Copying the store to a host's disk, once.
        compile: First epoch of a width on a worker, beyond that of an epoch.
        between: From a trial's last epoch to the first step of the next on the same worker, beside the driver's time:
            its last checkpoint, the next one's network.
        lockstep: A group of five seeds, in epochs of one.
    """

    start: float = 20.0
    stage: float = 0.0
    compile: float = 60.0
    between: float = 0.1
    lockstep: float = 2.0


def _between(known: Mapping[int, float], at: int) -> float:
    points = sorted(known)
    return float(
        np.interp(math.log(max(1, at)), [math.log(each) for each in points], [known[each] for each in points])
    )


def asha_share(epochs: int = EPOCHS, grace: int = GRACE) -> float:
    """The share of all epochs that successive halving trains if each rung keeps exactly its best third."""
    trained, kept, last = 0.0, 1.0, 0
    rung = grace
    while rung < epochs:
        trained += kept * (rung - last)
        kept, last, rung = kept / REDUCTION, rung, rung * REDUCTION
    return (trained + kept * (epochs - last)) / epochs


@dataclass
class _Worker:
    number: int
    trial: str = ""
    epoch: int = 0
    best: float = 0.0
    quality: float = 0.0
    widths: set[int] = field(default_factory=set)
    dice: random.Random = field(default_factory=random.Random)


def simulate_search(
    gpus: int, epoch_seconds: float, driver: Driver, assumed: Assumed, trials: int = TRIALS, seed: int = 0
) -> dict[str, float]:
    """A search with ASHA, one trial a GPU, up to the winner's refit.

    Returns:
        `seconds` altogether and of its parts, `epochs` trained, their `share` of all, `driver_share` of the time that
        trials run, `used`: the share of the GPUs' time that is epochs.
    """
    rule = Asha(GRACE, EPOCHS)
    report = driver.report_of(gpus)
    begun = finished = epochs = 0
    free = busy = end = 0.0
    events: list[tuple[float, int]] = []
    workers = [_Worker(number) for number in range(min(gpus, trials))]

    def begin(worker: _Worker, now: float) -> None:
        nonlocal begun, free, busy
        took = driver.suggestion_after(finished) + driver.trial
        free, busy = max(free, now) + took, busy + took
        worker.trial = f"{begun:05d}"
        worker.dice = random.Random(f"{seed}/{begun}")
        worker.quality, worker.epoch, worker.best = worker.dice.random(), 0, 0.0
        width = worker.dice.randrange(3)
        first = epoch_seconds + (0.0 if width in worker.widths else assumed.compile) + assumed.between
        worker.widths.add(width)
        begun += 1
        heapq.heappush(events, (free + first, worker.number))

    for worker in workers:
        begin(worker, 0.0)
    while events:
        now, number = heapq.heappop(events)
        worker = workers[number]
        worker.epoch += 1
        epochs += 1
        free, busy = max(free, now) + report, busy + report
        end = max(end, free)
        worker.best = max(worker.best, made_up_score(worker.quality, worker.epoch, worker.dice))
        if rule.observe(worker.trial, worker.epoch, worker.best) is Decision.CONTINUE:
            heapq.heappush(events, (free + epoch_seconds, number))
            continue
        finished += 1
        if begun < trials:
            begin(worker, free)
    refit = EPOCHS * epoch_seconds + assumed.between
    return {
        "seconds": assumed.start + assumed.stage + end + refit,
        "before": assumed.start + assumed.stage,
        "trials": end,
        "refit": refit,
        "epochs": epochs,
        "share": epochs / (trials * EPOCHS),
        "driver_share": busy / end,
        "used": epochs * epoch_seconds / (len(workers) * end),
    }


def sweep_seconds(
    gpus: int, epoch_seconds: float, driver: Driver, assumed: Assumed, rows: int = ROWS
) -> dict[str, float]:
    """A sweep of `rows` with five seeds in lockstep: each row is one trial, on one GPU.

    Returns:
        `seconds`, and how many GPUs are `used`.
    """
    waves = math.ceil(rows / gpus)
    epoch = assumed.lockstep * epoch_seconds + driver.report_of(min(gpus, rows))
    trial = EPOCHS * epoch + assumed.between + driver.trial
    return {
        "seconds": assumed.start + assumed.stage + assumed.compile + waves * trial,
        "waves": waves,
        "used": min(gpus, rows),
    }


def driver_per_epoch(concurrent: int, driver: Driver, share: float, finished: int = TRIALS) -> float:
    """The driver's seconds for an epoch, with its share of its trial's beginning and end."""
    per_trial = driver.suggestion_after(finished) + driver.trial
    return driver.report_of(concurrent) + per_trial / (share * EPOCHS)


def saturates_at(epoch_seconds: float, driver: Driver, share: float) -> int:
    """How many trials at once make the driver busy all the time.

    Beyond the measured numbers of trials at once an epoch is taken to cost what it did at the largest one.
    """
    low, high = 1, 1_000_000
    while low < high:
        middle = (low + high) // 2
        if middle * driver_per_epoch(middle, driver, share) >= epoch_seconds:
            high = middle
        else:
            low = middle + 1
    return low
