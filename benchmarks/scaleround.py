"""One round of `benchmarks.scale`, in a process of its own: a driver, watched from its start of Ray to a clean stop.

python -m benchmarks.scaleround '{"concurrent": 8, "pause": 0.2}' RESULT.json
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import optuna
from rich.console import Console

from macil.config import TrialConfig
from macil.io.files import write_json_atomic
from tune.execution.session import quiet_ray, ray_running
from tune.planning.resources import Machine

quiet_ray()

import ray  # noqa: E402
from ray.cluster_utils import Cluster as Nodes  # noqa: E402
from ray.tune import Callback, Stopper  # noqa: E402
from ray.tune import run as tune_run  # noqa: E402
from ray.tune.experiment import Trial  # noqa: E402
from ray.tune.schedulers import ASHAScheduler  # noqa: E402
from ray.tune.search.optuna import OptunaSearch  # noqa: E402

import tune.execution.batch_runner  # noqa: E402
from benchmarks.standin import StandIn, slots_for_workers  # noqa: E402
from tune.algorithms.asking import distributions  # noqa: E402
from tune.algorithms.journal import open_journal  # noqa: E402
from tune.algorithms.stopping.asha import REDUCTION, AshaSettings  # noqa: E402
from tune.algorithms.study import SearchStudy, Suggestion  # noqa: E402
from tune.cluster.workers import Needs, TrialResources, joined  # noqa: E402
from tune.execution.batch_runner import Batch, run_batch  # noqa: E402
from tune.execution.failure_policy import FailurePolicy  # noqa: E402
from tune.execution.interrupts import Interrupts  # noqa: E402
from tune.execution.progress import Display  # noqa: E402
from tune.execution.session import ROOT  # noqa: E402
from tune.execution.tune_scheduler import StoppingScheduler  # noqa: E402
from tune.planning.run_spec import RunSpec  # noqa: E402
from tune.planning.space import published_point, search_space  # noqa: E402
from tune.storage.run_folder import Workspace  # noqa: E402
from tune.storage.trial_log import METRIC, TIME  # noqa: E402
from tune.storage.trial_names import SPEC  # noqa: E402

MIB = 2**20
_SMALL_NODE: dict[str, Any] = {"object_store_memory": 80 * MIB, "include_dashboard": False}
# Processes that hold stand-ins; two, since more than one core may be answering.
_HOSTS = 2
_STARTUP = 10  # random suggestions before the model, as for every search of 30 trials or more
_MOST = 100_000  # trials: more than any round gets to
_HOLD = "all-run"
_START_SECONDS = 300.0  # seconds to wait for the first trials


@dataclass(frozen=True)
class Round:
    """What to do.

    Attributes:
        concurrent: Trials at once.
        pause: Seconds of an epoch.
        seconds: How long to watch, once all of them run.
        epochs: Of a whole training; ASHA compares trials after half of them.
        nodes: Of Ray; each with its share of `concurrent` logical GPUs, one a trial.
        processes: Whether each worker is a process of its own, else a stand-in on one of two hosts.
        plain: Whether the driver is Ray Tune with its default loggers and `OptunaSearch` in memory.
    """

    concurrent: int
    pause: float
    seconds: float = 12.0
    epochs: int = 10
    nodes: int = 1
    processes: bool = False
    plain: bool = False

    @property
    def grace(self) -> int:
        """Epochs before ASHA compares."""
        return max(1, self.epochs // 2)


# --- looking at processes -------------------------------------------------------------------------------------


def memory_mib(pid: int | str = "self") -> float:
    """Resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def share_mib(pid: int | str = "self") -> float:
    """A process's share of the memory in MiB: what it shares with others counts in parts."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def cpu_seconds(pid: int | str) -> float:
    """CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- watching the driver --------------------------------------------------------------------------------------

CLOCKS = ("seconds", "cpu", "fsync")
"""Time in which the driver was not waiting for Ray; its CPU time; time in which it waited for the disk."""


class Clock:
    """Reads the three clocks of this process, within `running`."""

    def __init__(self) -> None:
        self._waited = 0.0
        self._synced = 0.0

    def read(self) -> np.ndarray:
        """Seconds on each of `CLOCKS`."""
        return np.array([time.perf_counter() - self._waited, time.process_time(), self._synced])

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Time the calls that wait."""
        wait, fsync = ray.wait, os.fsync

        def timed_wait(*given: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return wait(*given, **options)
            finally:
                self._waited += time.perf_counter() - started

        def timed_fsync(file: Any) -> None:
            started = time.perf_counter()
            try:
                fsync(file)
            finally:
                self._synced += time.perf_counter() - started

        with patch.object(ray, "wait", timed_wait), patch.object(os, "fsync", timed_fsync):
            yield


class Meter(Callback):
    """Watches a driver from the moment that all of its workers run.

    The time of each of Tune's steps is put to what happened in it: an epoch's report and nothing else, nothing at all,
    or anything of a trial's beginning or end.

    Args:
        task: The round.
        servers: Name -> process of Ray's.
        hold: Made when all run; what the first trials wait for (`benchmarks.standin`).

    Attributes:
        ended: Whether all was seen.
    """

    def __init__(self, task: Round, servers: dict[str, int], hold: Path) -> None:
        self.ended = False
        self.clock = Clock()
        self.suggesting = np.zeros(len(CLOCKS))
        self.suggestions = 0
        self._task = task
        self._servers = servers
        self._hold = hold
        self._made = time.perf_counter()
        self._running: set[str] = set()
        self._workers: set[str] = set()
        self._opened: dict[str, Any] | None = None
        self._closed: dict[str, Any] = {}
        self._counts = {"reports": 0, "starts": 0, "ends": 0}
        self._in_step = dict(self._counts)
        self._suggested = 0
        self._last_read = self.clock.read()
        self._reporting: list[np.ndarray] = []
        self._idle = np.zeros(len(CLOCKS))
        self._last: dict[str, tuple[str, float]] = {}
        self._between_trials: list[float] = []
        self._between_epochs: list[float] = []

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Put the step's time to what it was for; open and close the window.

        Raises:
            TimeoutError: The trials do not start.
        """
        read = self.clock.read()
        took, self._last_read = read - self._last_read, read
        step, self._in_step = self._in_step, dict.fromkeys(self._counts, 0)
        suggested, self._suggested = self.suggestions - self._suggested, self.suggestions
        now = time.perf_counter()
        if self._opened is None:
            if len(self._running) >= self._task.concurrent:
                self._hold.touch()
                self._opened = self._mark()
            elif now - self._made > _START_SECONDS:
                raise TimeoutError(
                    f"{len(self._running)} of {self._task.concurrent} trials run after {_START_SECONDS} s"
                )
            return
        if self.ended:
            return
        for name, count in step.items():
            self._counts[name] += count
        if suggested == step["starts"] == step["ends"] == 0:
            if step["reports"] == 1:
                self._reporting.append(took)
            elif step["reports"] == 0:
                self._idle += took
        if now - self._opened["wall"] >= self._task.seconds:
            self._closed = self._mark()
            self.ended = True

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Count."""
        self._running.add(trial.trial_id)
        self._in_step["starts"] += 1

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """Count, and note how long the worker waited for this epoch."""
        self._in_step["reports"] += 1
        worker, began = str(result["worker"]), float(result["began"])
        before, ended = self._last.get(worker, ("", 0.0))
        self._workers.add(worker)
        self._last[worker] = trial.trial_id, float(result["ended"])
        if self._opened is not None and before:
            waits = self._between_epochs if before == trial.trial_id else self._between_trials
            waits.append(began - ended)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Count."""
        self._running.discard(trial.trial_id)
        self._in_step["ends"] += 1

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A stand-in has no reason to fail.

        Raises:
            RuntimeError: It did.
        """
        raise RuntimeError(f"{trial} failed: {trial.error_file and Path(trial.error_file).read_text()}")

    @contextlib.contextmanager
    def suggestion(self) -> Iterator[None]:
        """Time one."""
        started = self.clock.read()
        yield
        self.suggesting = self.suggesting + self.clock.read() - started
        self.suggestions += 1

    def _mark(self) -> dict[str, Any]:
        return {
            "wall": time.perf_counter(),
            "clock": self.clock.read(),
            "suggesting": self.suggesting,
            "suggestions": self.suggestions,
            "memory": memory_mib(),
            "worker": self._worker_mib(),
            "servers": {name: (cpu_seconds(pid), memory_mib(pid)) for name, pid in self._servers.items()},
        }

    def _worker_mib(self) -> float | None:
        """What a worker adds to the memory in use, where each is a process."""
        if not self._task.processes or not self._workers:
            return None
        return statistics.median(share_mib(pid) for pid in self._workers)

    def found(self) -> dict[str, Any]:
        """What was seen; times in seconds, those of the driver on each of its clocks."""
        assert self._opened is not None
        opened, closed = self._opened, self._closed
        wall, total = closed["wall"] - opened["wall"], closed["clock"] - opened["clock"] - self._idle
        reports, ends = self._counts["reports"], self._counts["ends"]
        suggesting = closed["suggesting"] - opened["suggesting"]
        suggestions = closed["suggestions"] - opened["suggestions"]
        report = np.mean(self._reporting, axis=0) if self._reporting else total / max(1, reports)
        beside = np.maximum(0.0, total - reports * report - suggesting)
        return {
            "started_in": opened["wall"] - self._made,
            "watched": wall,
            **self._counts,
            "reports_per_second": reports / wall,
            "driver_busy": total[0] / wall,
            "per_report": _by_clock(report),
            "per_suggestion": _by_clock(suggesting / suggestions) if suggestions else None,
            "per_trial_beside": _by_clock(beside / ends) if ends else None,
            "per_report_in_all": _by_clock(total / max(1, reports)),
            "between_epochs": _spread(self._between_epochs),
            "between_trials": _spread(self._between_trials),
            "driver_mib": closed["memory"],
            "worker_share_mib": closed["worker"],
            "servers": {
                name: {
                    "share": (closed["servers"][name][0] - before[0]) / wall,
                    "mib": closed["servers"][name][1],
                }
                for name, before in opened["servers"].items()
            },
        }


def _by_clock(values: np.ndarray) -> dict[str, float]:
    return dict(zip(CLOCKS, map(float, values), strict=True))


def _spread(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    ordered = sorted(values)
    return {"median": statistics.median(ordered), "p90": ordered[int(0.9 * (len(ordered) - 1))]}


class _Both(Callback):
    """The display's callback, then the meter."""

    def __init__(self, shown: Callback, meter: Meter) -> None:
        self._each = (shown, meter)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        for each in self._each:
            each.on_step_end(iteration, trials, **info)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        for each in self._each:
            each.on_trial_start(iteration, trials, trial, **info)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        for each in self._each:
            each.on_trial_result(iteration, trials, trial, result, **info)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        for each in self._each:
            each.on_trial_complete(iteration, trials, trial, **info)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._each[0].on_trial_recover(iteration, trials, trial, **info)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        for each in self._each:
            each.on_trial_error(iteration, trials, trial, **info)


class MeteredDisplay(Display):
    """The product's display, with the meter behind it; it asks for a stop as Ctrl-C does."""

    def __init__(self, meter: Meter, interrupts: Interrupts, epochs: int) -> None:
        super().__init__(Console(file=io.StringIO(), width=140), {"trials": _MOST}, {"trials": epochs})
        self._meter = meter
        self._interrupts = interrupts

    def callback(self, policy: FailurePolicy) -> Callback:
        """As ever."""
        return _Both(super().callback(policy), self._meter)

    def tick(self) -> None:
        """As ever."""
        super().tick()
        if self._meter.ended:
            self._interrupts.exit_code = 130


class MeteredStudy(SearchStudy):
    """The product's study, timed."""

    meter: Meter

    def suggest(self, trial_id: str) -> Suggestion:
        """A suggestion."""
        with self.meter.suggestion():
            return super().suggest(trial_id)


class MeteredOptuna(OptunaSearch):
    """Ray's searcher, timed."""

    meter: Meter

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """A suggestion, numbered as the product's are."""
        with self.meter.suggestion():
            suggestion = super().suggest(trial_id)
        return None if suggestion is None else {**suggestion, "number": self.meter.suggestions - 1}


class _Ended(Stopper):
    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._meter.ended


# --- a round --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def nodes_of_ray(task: Round) -> Iterator[tuple[str, dict[str, int]]]:
    """Start Ray's nodes; yields the address, and name -> process of the head's two servers."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [before])])  # workers inherit it
    share = [len(range(node, task.concurrent, task.nodes)) for node in range(task.nodes)]
    made = Nodes(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": share[0], **_SMALL_NODE})
    try:
        for gpus in share[1:]:
            made.add_node(num_cpus=2, num_gpus=gpus, object_store_memory=80 * MIB)
        head: Any = made.head_node
        started = head.all_processes
        servers = {name: started[name][0].process.pid for name in ("gcs_server", "raylet")}
        yield str(made.address), servers
    finally:
        made.shutdown()
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def run_round(task: Round, folder: Path) -> dict[str, Any]:
    """Run it.

    Args:
        task: What to do.
        folder: An empty one.

    Raises:
        RuntimeError: A trial failed.
        TimeoutError: The trials did not start.
    """
    with nodes_of_ray(task) as (address, servers), ray_running(address, Machine(2, 0), debug=False):
        before = memory_mib()
        meter = Meter(task, servers, folder / _HOLD)
        with contextlib.ExitStack() as stack:
            if not task.processes:
                stack.enter_context(slots_for_workers(_HOSTS))
            stack.enter_context(meter.clock.running())
            if task.plain:
                _run_plain(task, folder, meter)
                written: dict[str, Any] = {}
            else:
                written = _run_product(task, folder, meter, address)
    return {"round": asdict(task), "driver_mib_before": before, **meter.found(), **written}


def _run_product(task: Round, folder: Path, meter: Meter, address: str) -> dict[str, Any]:
    run = Workspace(folder / "run")
    run.path.mkdir(parents=True)
    base = TrialConfig(epochs=task.epochs)
    space = search_space(base)
    MeteredStudy.meter = meter
    batch = Batch(
        kind="trials",
        spec=_spec(task, base, folder),
        total=_MOST,
        concurrent=task.concurrent,
        cpus=0.0,
        gpus=1.0,
        timeout=3600.0,
        study=partial(
            MeteredStudy,
            space,
            run.journal,
            seed=0,
            epochs=task.epochs,
            startup=_STARTUP,
            initial=(published_point(space),),
        ),
        scheduler=partial(StoppingScheduler, AshaSettings(grace=task.grace), task.epochs),
    )
    interrupts = Interrupts(lambda: None)
    interrupts.listen()
    shown = MeteredDisplay(meter, interrupts, task.epochs)
    needs = Needs(TrialResources(0.0, 1.0), task.concurrent, _MOST)
    with (
        joined(address, needs, shown.log, lambda: None) as shown.cluster,
        patch.object(tune.execution.batch_runner, "MacilTrainable", StandIn),
    ):
        run_batch(run, batch, shown, interrupts, debug=False)
    return _written(run)


def _run_plain(task: Round, folder: Path, meter: Meter) -> None:
    base = TrialConfig(epochs=task.epochs)
    MeteredOptuna.meter = meter
    search = MeteredOptuna(space=distributions(search_space(base)), metric=METRIC, mode="max", seed=0)
    # What `quiet_ray` switches off for the product, which writes logs of its own.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "0"
    tune_run(
        StandIn,
        name="trials",
        storage_path=str(folder / "plain"),
        config={SPEC: _spec(task, base, folder).model_dump(mode="json")},
        num_samples=_MOST,
        search_alg=search,
        scheduler=ASHAScheduler(
            time_attr=TIME,
            metric=METRIC,
            mode="max",
            max_t=task.epochs,
            grace_period=task.grace,
            reduction_factor=REDUCTION,
        ),
        max_concurrent_trials=task.concurrent,
        resources_per_trial={"cpu": 0, "gpu": 1},
        reuse_actors=True,
        checkpoint_at_end=True,
        stop=_Ended(meter),
        callbacks=[meter],
        verbose=0,
    )


def _spec(task: Round, base: TrialConfig, folder: Path) -> RunSpec:
    """As large as that of a run; what a stand-in does lies where it says that the store is."""
    todo = {
        "pause": task.pause,
        "epochs": task.epochs,
        "staggered": task.concurrent,
        # Tune gives the trial of a worker that is starting to one that has become free, and drops the other one: where
        # trials are shorter than the start of all workers, there would never be all of them.
        "hold": str(folder / _HOLD),
    }
    write_json_atomic(folder / "standin.json", todo)
    return RunSpec(
        protocol="heldout",
        device="cuda",
        threads=1,
        base=base,
        store=str(folder / "standin.json"),
        store_hash="0" * 32,
        labels_hash="0" * 32,
        data="/data/xd.store",
        split="/runs/scale/split.json",
        split_hash="0" * 32,
    )


def _written(run: Workspace) -> dict[str, Any]:
    """Bytes that the driver wrote: of an epoch, of a trial beside its epochs, and of the study by trial and epoch."""
    epochs = logged = beside = trials = 0
    for folder in run.experiment("trials").iterdir():
        log = folder / "result.json"
        if log.is_file():
            trials += 1
            epochs += log.read_text("utf-8").count("\n")
            logged += log.stat().st_size
            beside += (folder / "params.json").stat().st_size
    study = optuna.load_study(study_name=None, storage=open_journal(run.journal))
    rows = study.get_trials(deepcopy=False)
    return {
        "trials": trials,
        "rows": len(rows),
        "log_bytes_per_epoch": logged / max(1, epochs),
        "params_bytes_per_trial": beside / max(1, trials),
        "journal_bytes": run.journal.stat().st_size,
        "journal_epochs": sum(len(row.intermediate_values) for row in rows),
    }


# --- a worker with PyTorch ------------------------------------------------------------------------------------


class _Trained:
    def memory(self) -> tuple[float, float]:
        """Resident memory and share of it, of a worker that has imported what a training needs; MiB."""
        import_module("tune.execution.trainable")
        return memory_mib(), share_mib()


def worker_memory(count: int) -> dict[str, float]:
    """Memory of so many workers with PyTorch at once, each without data."""
    with ray_running(None, Machine(2, 0), debug=False):
        kind: Any = ray.remote(_Trained).options(num_cpus=0)
        workers = [kind.remote() for _ in range(count)]
        ray.get([worker.memory.remote() for worker in workers])  # all have imported: now they share
        found = ray.get([worker.memory.remote() for worker in workers])
    resident, share = (statistics.median(values) for values in zip(*found, strict=True))
    return {"workers": count, "resident_mib": resident, "share_mib": share}


def main(task: str, result: Path) -> None:
    """Run the round that is described as JSON."""
    spec = json.loads(task)
    if "workers" in spec:
        write_json_atomic(result, worker_memory(spec["workers"]))
        return
    with tempfile.TemporaryDirectory(prefix="macil-scale-") as folder:
        write_json_atomic(result, run_round(replace(Round(1, 0.0), **spec), Path(folder)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
