"""What the search around the trainings costs: between epochs, between trials, and over a thousand trials.

The trials are those of `python tune/search.py`: its plan, study, epoch log and display, on made-up data.
Before anything is timed, and again for every timed trial, its epochs are compared with those of a `Trainer` alone;
they must be equal to the last digit.

    python -m benchmarks.search
"""

from __future__ import annotations

import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import optuna
from rich.console import Console
from rich.table import Table

from benchmarks.common import describe_machine, finish, json_option, machine_line, make_table
from macil.data import FeatureStore, convert, write_demo
from macil.io.files import read_json
from macil.training.trainer import trainer_from_record
from tune.execution.session import quiet_ray, ray_running
from tune.planning.options import Options
from tune.planning.resolve import resolve_plan
from tune.planning.resources import Machine, this_machine
from tune.storage.run_folder import Workspace

quiet_ray()

from ray.tune.experiment import Trial  # noqa: E402

from tune.algorithms.journal import open_journal  # noqa: E402
from tune.algorithms.study import SearchStudy, Suggestion  # noqa: E402
from tune.execution.batch_runner import run_batch  # noqa: E402
from tune.execution.batches import trials_batch  # noqa: E402
from tune.execution.interrupts import Interrupts  # noqa: E402
from tune.execution.pipeline import begin  # noqa: E402
from tune.execution.progress import Display  # noqa: E402
from tune.execution.run_data import describe_data  # noqa: E402

# Wall times are all that may differ between a trial and its training alone.
_TIMES = ("seconds",)
# As wide as the demo data set, so that a checkpoint is as large, with epochs of a fraction of a second.
_DEMO: dict[str, Any] = {"train_videos": 24, "test_videos": 12}
# Trainings of milliseconds: what is measured is everything else.
_SHORT = {"epochs": 1, "batch_size": 24, "hidden_dim": 16, "feedforward_dim": 16, "max_snippets": 20}


# --- watching a search ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mark:
    """The driver when a trial ended: clocks in seconds, memory in MiB."""

    wall: float
    cpu: float
    suggesting: float
    memory: float


class WatchedDisplay(Display):
    """Notes when the driver learns of an epoch and of the end of a trial."""

    def __init__(self, trials: int, epochs: int) -> None:
        super().__init__(Console(file=io.StringIO(), width=140), {"trials": trials}, {"trials": epochs})
        self.epochs_at: dict[str, list[float]] = {}
        self.ended_at: dict[str, float] = {}
        self.marks: list[Mark] = []

    def update(self, trial: Trial, state: str, result: dict[str, Any] | None = None, note: str = "") -> None:
        """Note the time, then show."""
        now, name = time.perf_counter(), str(trial.relative_logdir)
        if state != "running":
            self.ended_at[name] = now
            self.marks.append(Mark(now, time.process_time(), WatchedStudy.seconds, _memory()))
        elif result is not None:
            self.epochs_at.setdefault(name, []).append(now)
        super().update(trial, state, result, note)


class WatchedStudy(SearchStudy):
    """Adds up the time that suggestions take; nearly all of it is Optuna's."""

    seconds = 0.0

    def suggest(self, trial_id: str) -> Suggestion:
        """A suggestion, timed."""
        started = time.thread_time()
        try:
            return super().suggest(trial_id)
        finally:
            WatchedStudy.seconds += time.thread_time() - started


@dataclass(frozen=True)
class Timeline:
    """One trial, in seconds: `began` is the start of its first step, `ended` when it was saved and in the study.

    `steps` are what its worker took for each epoch, `arrived` is when the driver had each.
    """

    name: str
    worker: int
    began: float
    arrived: list[float]
    ended: float
    steps: list[float]

    @property
    def seconds(self) -> float:
        """From the first step to the end."""
        return self.ended - self.began

    @property
    def training(self) -> float:
        """Within steps."""
        return sum(self.steps)


@dataclass(frozen=True)
class Search:
    """A search that was run."""

    run: Workspace
    shown: WatchedDisplay
    timelines: list[Timeline] = field(default_factory=list)


def run_search(folder: Path, store: FeatureStore, options: Options, machine: Machine) -> Search:
    """Run the trials of a search as the main job does, up to the refit; Ray must be running."""
    plan = resolve_plan(options, machine)
    run = Workspace(folder)
    run.path.mkdir(parents=True)
    begin(run, plan, options)
    describe_data(run, plan, store)
    batch = trials_batch(run, plan, store)
    assert isinstance(batch.study, partial)
    batch = replace(batch, study=partial(WatchedStudy, *batch.study.args, **batch.study.keywords))
    shown = WatchedDisplay(plan.trials, plan.base.epochs)
    run_batch(run, batch, shown, Interrupts(lambda: None), debug=False)
    return Search(run, shown, [_timeline(run, shown, name) for name in shown.epochs_at])


def _timeline(run: Workspace, shown: WatchedDisplay, name: str) -> Timeline:
    log = (run.experiment("trials") / name / "result.json").read_text("utf-8")
    lines = [json.loads(line) for line in log.splitlines()]
    steps = [line["time_this_iter_s"] for line in lines]
    arrived = shown.epochs_at[name]
    return Timeline(name, lines[0]["pid"], arrived[0] - steps[0], arrived, shown.ended_at[name], steps)


def train_alone(search: Search, name: str, store: FeatureStore) -> list[float]:
    """Train a trial again with a `Trainer` alone, in this process.

    Returns:
        Seconds of each epoch.

    Raises:
        click.ClickException: A digit differs.
    """
    folder = search.run.experiment("trials") / name
    trainer = trainer_from_record(read_json(folder / "record.json"), store)
    seconds = []
    for line in map(json.loads, (folder / "result.json").read_text("utf-8").splitlines()):
        started = time.perf_counter()
        metrics = trainer.train_epoch()
        seconds.append(time.perf_counter() - started)
        differing = [key for key in metrics.keys() - set(_TIMES) if metrics[key] != line[key]]
        if differing:
            raise click.ClickException(
                f"trial {name}, epoch {line['epoch']}: {', '.join(sorted(differing))} differ; nothing is reported"
            )
    return seconds


def _memory() -> float:
    """Resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- the three measurements -----------------------------------------------------------------------------------


def by_worker(timelines: Iterable[Timeline]) -> list[list[Timeline]]:
    """The trials of each worker, in order."""
    workers: dict[int, list[Timeline]] = {}
    for each in sorted(timelines, key=lambda timeline: timeline.began):
        workers.setdefault(each.worker, []).append(each)
    return list(workers.values())


def turnarounds(timelines: Iterable[Timeline]) -> list[float]:
    """Seconds between the last epoch of a trial and the first step of the next on the same worker."""
    return [
        after.began - before.arrived[-1]
        for trials in by_worker(timelines)
        for before, after in pairwise(trials)
    ]


def utilisation(timelines: Iterable[Timeline]) -> float:
    """Share of the workers' time, from a worker's first step to the end of its last trial, spent in steps."""
    workers = by_worker(timelines)
    training = sum(trial.training for trials in workers for trial in trials)
    return training / sum(trials[-1].ended - trials[0].began for trials in workers)


def measure_trials(
    folder: Path, store: FeatureStore, machine: Machine, rounds: int, trials: int, epochs: int
) -> dict[str, Any]:
    """One trial at a time on one CPU, in turns with the same trainings alone."""
    options = Options(
        data=str(store.path),
        stopping="none",
        concurrent=1,
        cpus_per_trial=1.0,  # threads that share a busy machine wait for each other
        hyperparameters={"epochs": epochs, "batch_size": 16},
    )
    check = run_search(folder / "check", store, options.model_copy(update={"trials": 2}), machine)
    for each in check.timelines:
        train_alone(check, each.name, store)
    overheads: list[float] = []
    between: list[float] = []
    under_tune: list[float] = []
    alone: list[float] = []
    shares: list[float] = []
    used: list[float] = []
    for number in range(rounds):
        # The worker's first trial warms it up.
        search = run_search(
            folder / f"round{number}",
            store,
            options.model_copy(update={"trials": trials + 1, "search_seed": number}),
            machine,
        )
        timed = search.timelines[1:]
        between += turnarounds(search.timelines)
        used.append(utilisation(timed))
        shares += [(each.seconds - each.training) / each.seconds for each in timed]
        overheads += [(each.seconds - each.training) / len(each.steps) for each in timed]
        under_tune += [each.seconds / len(each.steps) for each in timed]
        alone += [sum(train_alone(search, each.name, store)) / epochs for each in timed]
    return {
        "trials": len(overheads),
        "epochs": epochs,
        "epoch_alone": _spread(alone),
        "epoch_under_tune": _spread(under_tune),
        "ratio": statistics.median(
            together / single for together, single in zip(under_tune, alone, strict=True)
        ),
        "overhead_per_epoch": _spread(overheads),
        "overhead_share": _spread(shares),
        "turnaround": _spread(between),
        "utilisation": _spread(used),
    }


def measure_search(
    folder: Path, store: FeatureStore, machine: Machine, trials: int, epochs: int
) -> dict[str, Any]:
    """A search as it comes: as many trials at once as there is room for, stopped by ASHA."""
    options = Options(
        data=str(store.path), trials=trials, hyperparameters={"epochs": epochs, "batch_size": 16}
    )
    search = run_search(folder / "search", store, options, machine)
    between = turnarounds(search.timelines)
    return {
        "trials": len(search.timelines),
        "epochs": sum(len(each.steps) for each in search.timelines),
        "stopped": sum(len(each.steps) < epochs for each in search.timelines),
        "workers": len(by_worker(search.timelines)),
        "turnaround": _spread(between),
        "utilisation": utilisation(search.timelines),
    }


def measure_driver(folder: Path, machine: Machine, trials: int) -> dict[str, Any]:
    """Many trials of one short epoch: the driver's time and memory as they become more.

    Raises:
        click.ClickException: A trial is missing in the study.
    """
    tiny = write_demo(folder / "tiny", **_DEMO, max_snippets=30, visual_dim=64, audio_dim=16)
    store = FeatureStore.open(convert(tiny, folder / "tiny.store"))
    options = Options(data=str(store.path), trials=trials, stopping="none", hyperparameters=_SHORT)
    search = run_search(folder / "many", store, options, machine)
    study = optuna.load_study(study_name=None, storage=open_journal(search.run.journal))
    rows = study.get_trials(deepcopy=False)
    if [row.value is not None for row in rows] != [True] * trials:
        raise click.ClickException(f"the study has {len(rows)} of {trials} trials, or some without a value")
    marks = search.shown.marks
    step = max(1, trials // 10)
    ends = range(step, trials + 1, step)
    return {
        "trials": trials,
        "tenths": [_stretch(marks, end - step, end) for end in ends],
        "journal_bytes": search.run.journal.stat().st_size,
    }


def _stretch(marks: list[Mark], begin: int, end: int) -> dict[str, float]:
    """What trials `begin` to `end` cost; of the first ones without the start of Ray's workers."""
    first = max(1, begin)
    before, after, count = marks[first - 1], marks[end - 1], max(1, end - first)
    return {
        "trial": end,
        "wall_per_trial": (after.wall - before.wall) / count,
        "driver_per_trial": (after.cpu - before.cpu) / count,
        "suggesting_per_trial": (after.suggesting - before.suggesting) / count,
        "memory_mib": after.memory,
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "smallest": min(values), "largest": max(values)}


# --- command --------------------------------------------------------------------------------------------------


@click.command(help=__doc__.split("\n\n")[0] if __doc__ else None)
@click.option("--trials", type=click.IntRange(10), default=1000, show_default=True, help="Short trials.")
@click.option(
    "--epochs", type=click.IntRange(2), default=10, show_default=True, help="Epochs of a timed trial."
)
@click.option(
    "--rounds", type=click.IntRange(1), default=3, show_default=True, help="Rounds of two timed trials."
)
@click.option(
    "--searched", type=click.IntRange(2), default=8, show_default=True, help="Trials at once, with ASHA."
)
@json_option
def main(trials: int, epochs: int, rounds: int, searched: int, json_path: Path | None) -> None:
    """Check, time, print."""
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as name, ray_running(None, this_machine(), debug=False) as available:
        folder = Path(name)
        store = FeatureStore.open(convert(write_demo(folder / "demo", **_DEMO), folder / "demo.store"))
        results: dict[str, Any] = {
            "machine": machine,
            "one_at_a_time": measure_trials(folder, store, available, rounds, 2, epochs),
            "search": measure_search(folder, store, available, searched, epochs),
            "many": measure_driver(folder, available, trials),
        }
    title = f"{machine_line(machine)}\n"
    remark = "The epochs of every trial timed one at a time equal those of a Trainer alone to the last digit."
    finish([_trials_table(title, results), _driver_table(results["many"])], [remark], results, json_path)


def _trials_table(title: str, results: Mapping[str, Any]) -> Table:
    single, search = results["one_at_a_time"], results["search"]
    table = make_table(
        f"{title}{single['trials']} trials of {single['epochs']} epochs, one at a time; "
        f"{search['trials']} trials on {search['workers']} workers, {search['stopped']} stopped by ASHA",
        ["what"],
        ["median", "min", "max"],
    )
    rows = {
        "epoch alone, ms": (single["epoch_alone"], 1e3),
        "epoch under Tune, ms": (single["epoch_under_tune"], 1e3),
        "of it outside of the training, ms": (single["overhead_per_epoch"], 1e3),
        "share of a trial outside of the training, %": (single["overhead_share"], 1e2),
        "turnaround, one at a time, ms": (single["turnaround"], 1e3),
        "turnaround, all workers, ms": (search["turnaround"], 1e3),
        "utilisation, one at a time, %": (single["utilisation"], 1e2),
    }
    for what, (spread, scale) in rows.items():
        table.add_row(what, *(f"{scale * spread[of]:.1f}" for of in ("median", "smallest", "largest")))
    table.add_row("utilisation, all workers, %", f"{1e2 * search['utilisation']:.1f}", "", "")
    table.add_row("epoch under Tune / alone, side by side", f"{single['ratio']:.3f}", "", "")
    return table


def _driver_table(many: Mapping[str, Any]) -> Table:
    table = make_table(
        f"The driver over {many['trials']:,} trials of one short epoch; CPU ms a trial",
        [],
        ["to trial", "wall", "driver", "of it\nsuggesting", "all else", "memory\nMiB"],
    )
    for row in many["tenths"]:
        else_ = row["driver_per_trial"] - row["suggesting_per_trial"]
        times = (row["wall_per_trial"], row["driver_per_trial"], row["suggesting_per_trial"], else_)
        table.add_row(str(row["trial"]), *(f"{1e3 * each:.1f}" for each in times), f"{row['memory_mib']:.0f}")
    return table


if __name__ == "__main__":
    main()
