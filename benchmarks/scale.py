"""Many trials at once: what the driver takes, what limits it first, and what 1, 8 and 64 GPUs give.

The driver is the product's (`tune.execution.batch_runner.run_batch` with display, watch, recorder, study, TPE and
ASHA, joined to a cluster of Ray). The trials train nothing (`benchmarks.standin`), and beyond a few dozen their
workers are no processes of their own, since this machine could not hold them; a smaller number is measured both ways.
GPUs are logical ones.

    python -m benchmarks.scale            # six to ten minutes on two cores
    python -m benchmarks.scale --quick
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState, create_trial
from rich.table import Table

from benchmarks.common import describe_machine, finish, json_option, machine_line, make_table
from benchmarks.estimate import (
    EPOCH_SECONDS,
    EPOCHS,
    GPUS,
    GRACE,
    ROWS,
    SEEDS,
    TRIALS,
    Assumed,
    Driver,
    asha_share,
    driver_per_epoch,
    saturates_at,
    simulate_search,
    sweep_seconds,
)
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
from macil.io.wording import duration
from macil.training.checkpoint import save_checkpoint
from macil.training.trainer import Trainer
from tune.algorithms.asking import distributions
from tune.algorithms.space import Space
from tune.execution.session import ROOT, quiet_ray
from tune.planning.space import search_space
from tune.storage.history import TrialHistory

quiet_ray()

from tune.algorithms.study import SearchStudy  # noqa: E402

# Reports a second that are offered in every round, a load at which the driver has time to spare ...
_OFFERED = 50
# ... but for one, where there are more than it can take.
_TOO_MANY = 1000
_AT_ONCE = (2, 8, 32, 128, 512)
_PLAIN = (32,)
_PROCESSES = (32,)
_NODES = 8
_SATURATED = 128
_STUDIES = (10, 100, 1000, 3000)
_RUNNING = (8, 512)
_SUGGESTIONS = 5
# Bytes a second at which a store is copied to a host: a bucket or a shared file system over a network of 10 Gbit/s.
_STAGING = 500e6
# Of a worker's memory beside its share of the data, on a machine of so many MiB.
_GIB = 1024


# --- rounds, each in a process of its own ---------------------------------------------------------------------


def run_alone(task: Mapping[str, Any]) -> dict[str, Any]:
    """A round of `benchmarks.scaleround`.

    Raises:
        click.ClickException: It failed.
    """
    click.echo(f"round {json.dumps(task)}", err=True)
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks.scaleround", json.dumps(task), str(result)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0 or not result.exists():
            raise click.ClickException(f"round {json.dumps(task)} failed:\n{done.stderr[-3000:]}")
        found: dict[str, Any] = json.loads(result.read_text("utf-8"))
    return found


def plan_rounds(quick: bool) -> list[dict[str, Any]]:
    """What is measured, variants side by side."""
    if quick:
        small = {"seconds": 2.0, "epochs": 4, "pause": 0.1}
        return [
            {**small, "concurrent": 2},
            {**small, "concurrent": 4, "nodes": 2},
            {**small, "concurrent": 2, "processes": True},
            {**small, "concurrent": 2, "plain": True},
            {**small, "concurrent": 4, "pause": 0.004},
            {**small, "concurrent": 4, "pause": 0.004, "plain": True},
        ]
    rounds: list[dict[str, Any]] = []
    for concurrent in _AT_ONCE:
        common = {"concurrent": concurrent, "pause": concurrent / _OFFERED}
        rounds.append(common)
        rounds += [{**common, "plain": True}] if concurrent in _PLAIN else []
        rounds += [{**common, "processes": True}] if concurrent in _PROCESSES else []
        rounds += [{**common, "nodes": _NODES}] if concurrent == _SATURATED else []
    saturated = {"concurrent": _SATURATED, "pause": _SATURATED / _TOO_MANY}
    return [*rounds, saturated, {**saturated, "plain": True}]


# --- suggestions ----------------------------------------------------------------------------------------------


def made_up_study(journal: Path, finished: int) -> dict[int, TrialHistory]:
    """Write a study of finished trials, a third of them whole and the others stopped by ASHA; a score of every epoch.

    Returns:
        What the trials' folders would say.
    """
    search, drawn = (
        _open_study(journal, {}),
        optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)),
    )
    rows, histories = [], {}
    for number in range(finished):
        params = drawn.ask(_distributions()).params
        last = EPOCHS if number % 3 == 0 else GRACE
        score = abs(params["momentum"] - 0.9)
        histories[number] = TrialHistory(f"{number:05d}", epochs=last, done=True, saved=True)
        rows.append(
            create_trial(
                state=TrialState.COMPLETE if last == EPOCHS else TrialState.PRUNED,
                params=params,
                distributions=_distributions(),
                value=score if last == EPOCHS else None,
                intermediate_values={epoch: score * epoch / EPOCHS for epoch in range(1, last + 1)},
            )
        )
    search.study.add_trials(rows)
    return histories


def measure_suggestions(
    folder: Path, sizes: Sequence[int], running: Sequence[int], repeats: int
) -> list[dict[str, Any]]:
    """Seconds of a suggestion from studies of so many finished trials, while so many others run.

    Raises:
        click.ClickException: A study is not what it should be.
    """
    whole = folder / "study.journal"
    histories = made_up_study(whole, max(sizes))
    lines = whole.read_bytes().splitlines(keepends=True)
    head = len(lines) - max(sizes)  # then a line a row
    found = []
    for finished in sizes:
        journal = folder / f"study-{finished}.journal"
        journal.write_bytes(b"".join(lines[: head + finished]))
        size = journal.stat().st_size
        started = time.perf_counter()
        search = _open_study(journal, {number: histories[number] for number in range(finished)})
        opening = time.perf_counter() - started
        if search.open_rows or search.rows != finished:
            raise click.ClickException(
                f"of {search.rows} rows {search.open_rows} are open; all {finished} should have ended"
            )
        seconds: dict[str, float] = {}
        begun = 0
        for at_once in running:
            while begun < at_once - 1:  # how these were drawn does not matter
                search.study.add_trial(_running_row(begun))
                begun += 1
            taken = []
            for _ in range(repeats):
                started = time.perf_counter()
                search.suggest(f"trial{begun}")
                taken.append(time.perf_counter() - started)
                begun += 1
            seconds[str(at_once)] = statistics.median(taken)
        found.append({"finished": finished, "opening": opening, "suggestion": seconds, "journal_bytes": size})
    return found


def _open_study(journal: Path, histories: Mapping[int, TrialHistory]) -> SearchStudy:
    return SearchStudy(_space(), journal, seed=0, epochs=EPOCHS, startup=10, histories=histories)


def _space() -> Space:
    return search_space(TrialConfig())


def _distributions() -> dict[str, BaseDistribution]:
    return distributions(_space())


def _running_row(number: int) -> optuna.trial.FrozenTrial:
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number)).ask(_distributions())
    return create_trial(state=TrialState.RUNNING, params=drawn.params, distributions=_distributions())


# --- sizes ----------------------------------------------------------------------------------------------------


def checkpoint_bytes(folder: Path) -> int:
    """A checkpoint of a training at XD-Violence's widths; the size of the data does not enter it."""
    lengths = training_lengths(4)
    store = SyntheticStore(lengths, evaluated_lengths(2, 20), crops=1)
    trainer = Trainer(TrialConfig(epochs=1, batch_size=4), store, device="cpu", threads=1)
    trainer.train_epoch()
    save_checkpoint(trainer, folder / "trainer.pt")
    return (folder / "trainer.pt").stat().st_size


def store_bytes() -> float:
    """A store of XD-Violence's size: visual features of every crop and audio features, in float32."""
    snippets = int(training_lengths(TRAIN_VIDEOS).sum()) + int(
        evaluated_lengths(TEST_VIDEOS, TEST_SNIPPETS).sum()
    )
    return 4.0 * snippets * (CROPS * 1024 + 128)


def memory_limits(results: Mapping[str, Any]) -> dict[str, Any]:
    """How many workers fit this machine, by their share of its memory."""
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    total = next(int(line.split()[1]) for line in lines if line.startswith("MemTotal:")) / 1024
    trained = results["worker"]["share_mib"]
    light = [each["worker_share_mib"] for each in results["rounds"] if each["worker_share_mib"]]
    # Ray's servers and agents, and the system.
    left = total - 2 * _GIB
    return {
        "memory_mib": total,
        "trained_mib": trained,
        "trained_fit": int(left / trained),
        "standin_mib": light[-1] if light else None,
        "standins_fit": int(left / light[-1]) if light else None,
    }


# --- what follows ---------------------------------------------------------------------------------------------


def driver_of(results: Mapping[str, Any]) -> Driver:
    """The driver's costs out of what was measured: of the product, with stand-ins on one node.

    A report is that of the quicker round of the same number of trials: on a busy machine the driver waits for others.
    """
    own = [
        each
        for each in results["rounds"]
        if not (each["round"]["plain"] or each["round"]["processes"]) and each["round"]["nodes"] == 1
    ]
    report: dict[int, float] = {}
    for each in own:
        concurrent, seconds = each["round"]["concurrent"], each["per_report"]["seconds"]
        report[concurrent] = min(seconds, report.get(concurrent, seconds))
    trials = [each["per_trial_beside"]["seconds"] for each in own if each["per_trial_beside"] is not None]
    suggestion = {each["finished"]: max(each["suggestion"].values()) for each in results["suggestions"]}
    return Driver(report, statistics.median(trials), suggestion)


def estimate(results: Mapping[str, Any], assumed: Assumed) -> dict[str, Any]:
    """What the measured costs of the driver mean for clusters."""
    driver = driver_of(results)
    searches = [
        {"gpus": gpus, "epoch": epoch, **simulate_search(gpus, epoch, driver, assumed)}
        for epoch in EPOCH_SECONDS
        for gpus in GPUS
    ]
    sweeps = [
        {"gpus": gpus, "epoch": epoch, **sweep_seconds(gpus, epoch, driver, assumed)}
        for epoch in EPOCH_SECONDS
        for gpus in GPUS
    ]
    simulated = searches[len(GPUS) + 1]
    share = simulated["share"]
    return {
        "driver": {
            "report": driver.report,
            "trial": driver.trial,
            "suggestion": driver.suggestion,
        },
        "assumed": asdict(assumed),
        "asha_share_by_rungs": asha_share(),
        "asha_share_simulated": share,
        "asha_gpus": simulated["gpus"],
        "driver_per_epoch": {str(gpus): driver_per_epoch(gpus, driver, share) for gpus in (1, 8, 64, 512)},
        "saturates_at": {str(epoch): saturates_at(epoch, driver, share) for epoch in EPOCH_SECONDS},
        "searches": searches,
        "sweeps": sweeps,
    }


# --- command --------------------------------------------------------------------------------------------------


@click.command(help=__doc__.split("\n\n")[0] if __doc__ else None)
@click.option(
    "--quick", is_flag=True, help="Everything once, in small: shows that it works, measures nothing."
)
@json_option
def main(quick: bool, json_path: Path | None) -> None:
    """Measure, compute, print."""
    machine = describe_machine()
    rounds = [run_alone(task) for task in plan_rounds(quick)]
    studies, running, repeats = ((10, 20), (2, 4), 1) if quick else (_STUDIES, _RUNNING, _SUGGESTIONS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results: dict[str, Any] = {
            "machine": machine,
            "rounds": rounds,
            "suggestions": measure_suggestions(folder, studies, running, repeats),
            "worker": run_alone({"workers": 2}),
            "checkpoint_bytes": checkpoint_bytes(folder),
            "store_bytes": store_bytes(),
        }
    results["memory"] = memory_limits(results)
    results["estimate"] = estimate(results, Assumed(stage=results["store_bytes"] / _STAGING))
    tables = [
        _driver_table(f"{machine_line(machine)}\n", rounds),
        _waits_table(rounds),
        _suggestions_table(results["suggestions"]),
        _gpus_table(results["estimate"]),
    ]
    finish(tables, describe(results), results, json_path)


def _who(task: Mapping[str, Any]) -> str:
    who = "plain Tune" if task["plain"] else "macil-tune"
    how = "processes" if task["processes"] else "stand-ins"
    return f"{who}, {how}" + (f", {task['nodes']} nodes" if task["nodes"] > 1 else "")


def _driver_table(title: str, rounds: Iterable[Mapping[str, Any]]) -> Table:
    table = make_table(
        f"{title}The driver; ms of its time (of it on a CPU, of it waiting for the disk)",
        ["driver, workers"],
        [
            "trials\nat once",
            "epoch\ns",
            "reports\na second",
            "driver\nbusy",
            "a report",
            "a suggestion",
            "a trial\nbeside",
            "memory\nMiB",
            "GCS\nCPU %, MiB",
            "raylet\nCPU %, MiB",
        ],
    )
    for each in rounds:
        task = each["round"]
        table.add_row(
            _who(task),
            str(task["concurrent"]),
            f"{task['pause']:.3g}",
            f"{each['reports_per_second']:.1f}",
            f"{each['driver_busy']:.0%}",
            *(_on_clocks(each[of]) for of in ("per_report", "per_suggestion", "per_trial_beside")),
            f"{each['driver_mib']:.0f}",
            *(
                f"{100 * server['share']:.1f}, {server['mib']:.0f}"
                for server in (each["servers"]["gcs_server"], each["servers"]["raylet"])
            ),
        )
    return table


def _waits_table(rounds: Iterable[Mapping[str, Any]]) -> Table:
    table = make_table(
        "What a worker waits for the driver; ms, median and 90th percentile",
        ["driver, workers"],
        ["trials\nat once", "all run\nafter, s", "between\nepochs", "between\ntrials", "trials\nended"],
    )
    for each in rounds:
        waits = (each["between_epochs"], each["between_trials"])
        table.add_row(
            _who(each["round"]),
            str(each["round"]["concurrent"]),
            f"{each['started_in']:.1f}",
            *("-" if wait is None else f"{_ms(wait['median'])}, {_ms(wait['p90'])}" for wait in waits),
            str(each["ends"]),
        )
    return table


def _suggestions_table(suggestions: list[dict[str, Any]]) -> Table:
    running = list(suggestions[0]["suggestion"])
    table = make_table(
        "Suggestions of TPE by the study's size, ms",
        [],
        ["finished\ntrials", *(f"{each}\nrunning" for each in running), "journal\nMB", "opening\ns"],
    )
    for each in suggestions:
        table.add_row(
            str(each["finished"]),
            *(_ms(each["suggestion"][of]) for of in running),
            f"{each['journal_bytes'] / 1e6:.2f}",
            f"{each['opening']:.2f}",
        )
    return table


def _gpus_table(found: Mapping[str, Any]) -> Table:
    table = make_table(
        f"From these and from assumptions: Table 4 x {SEEDS} seeds ({ROWS} rows in lockstep), and a search of "
        f"{TRIALS:,} trials with ASHA and a refit",
        [],
        [
            "seconds\nan epoch",
            "GPUs",
            "Table 4 x 5\nseeds",
            "GPUs\nused",
            "search",
            "of it\nbefore",
            "refit",
            "epochs\nof all",
            "GPUs\nat work",
            "driver\nbusy",
        ],
    )
    for search, sweep in zip(found["searches"], found["sweeps"], strict=True):
        table.add_row(
            f"{search['epoch']:g}",
            str(search["gpus"]),
            duration(sweep["seconds"]),
            str(sweep["used"]),
            duration(search["seconds"]),
            duration(search["before"]),
            duration(search["refit"]),
            f"{search['share']:.0%}",
            f"{search['used']:.0%}",
            f"{search['driver_share']:.0%}",
        )
    return table


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{1e3 * seconds:.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.1f}"


def _on_clocks(times: Mapping[str, float] | None) -> str:
    return "-" if times is None else f"{_ms(times['seconds'])} ({_ms(times['cpu'])}, {_ms(times['fsync'])})"


def compare_with_plain(rounds: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The product's driver beside plain Tune's with the same trials: ratios of time, and of reports a second."""
    own = {_contest(each): each for each in rounds if not each["round"]["plain"]}
    pairs = []
    for plain in rounds:
        if not plain["round"]["plain"]:
            continue
        ours = own[_contest(plain)]
        pair = {
            f"{of}_{clock}": ours[of][clock] / plain[of][clock]
            for of in ("per_report", "per_report_in_all")
            for clock in ("seconds", "cpu")
        }
        faster = ours["reports_per_second"] / plain["reports_per_second"]
        pairs.append({**plain["round"], **pair, "reports_per_second": faster})
    return pairs


def _contest(found: Mapping[str, Any]) -> str:
    return json.dumps({**found["round"], "plain": None}, sort_keys=True)


def describe(results: Mapping[str, Any]) -> Iterator[str]:
    """The rest, in sentences."""
    rounds, memory, found = results["rounds"], results["memory"], results["estimate"]
    own = [each for each in rounds if not each["round"]["plain"]]
    pairs = compare_with_plain(rounds)
    ratios = "; ".join(
        f"{pair['concurrent']} trials, epochs of {pair['pause']:.3g} s: {pair['per_report_seconds']:.2f} for a report "
        f"({pair['per_report_cpu']:.2f} on the CPU), {pair['per_report_in_all_seconds']:.2f} for everything"
        for pair in pairs
    )
    yield (
        f"Time beside plain Tune's (default loggers, OptunaSearch in memory, ASHA, reused workers): {ratios}. "
        f"Where more is offered than either can take, {pairs[-1]['reports_per_second']:.2f} times as many reports."
    )
    busy = own[-1]
    yield (
        f"With more reports than it can take, the driver of {busy['round']['concurrent']} trials handled "
        f"{busy['reports_per_second']:.0f} a second, with {busy['ends'] / busy['watched']:.1f} trials' ends; its "
        f"CPU time alone would allow {1 / busy['per_report_in_all']['cpu']:.0f}."
    )
    most = max(own, key=lambda each: each["round"]["concurrent"])
    study = results["suggestions"][-1]
    of_trial = most["log_bytes_per_epoch"] * EPOCHS + most["params_bytes_per_trial"]
    yield (
        f"Written by the driver: {most['log_bytes_per_epoch']:.0f} bytes an epoch into the trial's log and "
        f"{most['params_bytes_per_trial']:.0f} a trial beside, {of_trial / 1e3:.0f} kB for a trial of {EPOCHS} epochs; "
        f"into the study {study['journal_bytes'] / study['finished'] / 1e3:.1f} kB a trial. By the worker: a "
        f"checkpoint of {results['checkpoint_bytes'] / 1e6:.1f} MB and test scores; two of them are kept."
    )
    yield (
        f"Memory: a worker with PyTorch and no data holds {memory['trained_mib']:.0f} MiB, so {memory['trained_fit']} "
        f"fit this machine of {memory['memory_mib'] / _GIB:.0f} GiB; of a stand-in's process, "
        f"{memory['standin_mib']:.0f} MiB, {memory['standins_fit']}."
    )
    yield (
        f"ASHA trains {found['asha_share_by_rungs']:.1%} of all epochs by its rungs, "
        f"{found['asha_share_simulated']:.1%} in a simulated search on {found['asha_gpus']} GPUs."
    )
    limits = ", ".join(f"{trials:,} at {float(epoch):g} s" for epoch, trials in found["saturates_at"].items())
    yield (
        f"The driver does one thing at a time. With ASHA and {TRIALS:,} finished trials it is busy all the time from "
        f"so many trials at once on, by the length of an epoch: {limits}."
    )
    assumed = found["assumed"]
    yield (
        "Limits and GPUs are arithmetic on the driver's measured times. A goal, unmeasured, is an epoch of 0.3 s (50 "
        f"in 15 s on one H200), and {assumed['lockstep']:g} epochs' time for {SEEDS} seeds in lockstep. Assumed: "
        f"machines are up; {assumed['start']:g} s to the first step; {assumed['compile']:g} s to compile a width on a "
        "worker; "
        f"{assumed['stage']:.0f} s to copy a store of {results['store_bytes'] / 1e9:.1f} GB to each host at "
        f"{_STAGING / 1e6:.0f} MB/s; {assumed['between']:g} s between trials beside the driver's time."
    )


if __name__ == "__main__":
    main()
