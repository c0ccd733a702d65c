"""The main job from its command line, as a user runs it: real Ray, real trainings, real signals."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from optuna.trial import TrialState

from macil import cli
from macil.checkpoint import load_checkpoint, load_network
from macil.data.store import FeatureStore
from macil.metrics import EpochMetrics
from tune.scheduler import logged_scores
from tune.search import search
from tune.searcher import load_study

SCRIPT = Path(__file__).parent.parent / "tune" / "search.py"
SMALL = ["--hidden-dim", "16", "--feedforward-dim", "16", "--batch-size", "24", "--max-snippets", "20"]
EPOCHS, GRACE = 6, 2
SEARCH = [*SMALL, "--epochs", str(EPOCHS), "--grace", str(GRACE), "--trials", "7", "--concurrent", "1"]


@dataclass
class Command:
    """A running command; its output goes to a file, since processes of a killed Ray hold a pipe open for minutes."""

    process: subprocess.Popen[str]
    log: Path


# What a GPU decides, without one: a configuration's seeds are one trial.
LOCKSTEP = f"""
import dataclasses, sys
sys.path.insert(0, {str(SCRIPT.parent.parent)!r})
import tune.search
resolve = tune.search.resolve_plan
tune.search.resolve_plan = lambda *given: dataclasses.replace(resolve(*given), lockstep=True)
tune.search.main()
"""


def start(*arguments: str, cwd: Path, lockstep: bool = False) -> Command:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    log = cwd / f"{uuid.uuid4().hex}.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *(["-c", LOCKSTEP] if lockstep else [str(SCRIPT)]), *arguments],
            cwd=cwd,
            env=environment | {"OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    return Command(process, log)


def finish(command: Command) -> tuple[int, str]:
    code = command.process.wait(timeout=240)
    output = command.log.read_text()
    assert "Traceback" not in output, output
    return code, output


def stop_when(command: Command, reached: Callable[[], bool], number: signal.Signals, *, group: bool) -> None:
    """Send a signal as soon as the run has got so far."""
    deadline = time.monotonic() + 120
    while not reached():
        assert command.process.poll() is None, f"ended before it could be stopped:\n{command.log.read_text()}"
        assert time.monotonic() < deadline, "the run did not get so far in two minutes"
        time.sleep(0.002)
    (os.killpg if group else os.kill)(command.process.pid, number)


def lines_of(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def digits(run: Path) -> dict[str, list[dict[str, Any]]]:
    """Every epoch of every trial, without wall times; and where each trial was stopped."""
    names = [field.name for field in fields(EpochMetrics) if field.name != "seconds"] + ["done"]
    return {
        log.parent.name: [{name: line[name] for name in names} for line in lines_of(log)]
        for log in sorted(run.glob("*/*/result.json"))
    }


def rows(run: Path) -> list[tuple[Any, ...]]:
    study = load_study(run / "study.journal")
    return [(t.number, t.state, t.params, t.values, t.intermediate_values) for t in study.trials]


def info(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "run.json").read_text())
    return content


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def unbroken(folder: Path, demo_store: FeatureStore) -> tuple[Path, str]:
    """A search that nobody disturbs, and what it printed."""
    code, output = finish(start("--data", str(demo_store.path), *SEARCH, "--name", "unbroken", cwd=folder))
    assert code == 0, output
    return folder / "runs" / "unbroken", output


@pytest.mark.ray
def test_a_search_ends_with_leaderboard_report_model_and_next_command(unbroken: tuple[Path, str]) -> None:
    run, output = unbroken
    assert "leaderboard: heldout protocol" in output
    assert str(run / "report" / "report.html") in output
    assert f"python tune/report.py {run}" in output
    assert (run / "report" / "report.html").is_file()
    content = info(run)
    assert content["status"] == "finished"
    winner = content["winner"]
    best = max(
        logged_scores(run / "trials" / winner["trial"] / "result.json"), key=lambda item: (item[1], -item[0])
    )
    assert (winner["chosen_epoch"], winner["selection_score"]) == best
    everyone = [score for log in run.glob("trials/*/result.json") for _, score in logged_scores(log)]
    assert winner["selection_score"] == max(everyone)
    model = load_checkpoint(run / "model.pt")
    assert model["record"]["protocol"] == "refit"
    assert model["epoch"] == winner["chosen_epoch"] == content["refit"]["epochs"]
    assert "\x1b[" not in output, "a log has no terminal codes"
    assert "ray" not in output.replace("/ray", "").lower().split(), "Ray speaks only under --debug"


@pytest.mark.ray
def test_the_study_and_asha_follow_from_the_epoch_log(unbroken: tuple[Path, str]) -> None:
    run, _ = unbroken
    study = load_study(run / "study.journal")
    assert [trial.number for trial in study.trials] == list(range(7))
    recorded: list[float] = []
    stopped = 0
    for trial in study.trials:
        log = lines_of(run / "trials" / f"{trial.number:05d}" / "result.json")
        scores = {line["epoch"]: line["selection_score"] for line in log}
        assert trial.intermediate_values == scores, "including the last epoch"
        assert trial.value == log[-1]["selection_score"]
        # One trial at a time: the rung holds what came before, and the best third goes on.
        expected_stop = bool(recorded) and scores[GRACE] < np.percentile(recorded, 100 * 2 / 3)
        recorded.append(scores[GRACE])
        assert len(log) == (GRACE if expected_stop else EPOCHS)
        assert trial.state == (TrialState.PRUNED if expected_stop else TrialState.COMPLETE)
        stopped += expected_stop
    assert 0 < stopped < 7, "the example should show both"


@pytest.mark.ray
def test_a_killed_search_goes_on_as_if_nothing_had_happened_and_reads_no_test_label(
    folder: Path, unbroken: tuple[Path, str], demo_store: FeatureStore
) -> None:
    """Killed at an arbitrary moment and resumed, on the same data without its test labels: the same to the last bit."""
    data = folder / "unlabelled"
    shutil.copytree(demo_store.path, data)
    (data / "labels.arrow").unlink()
    run = folder / "runs" / "killed"
    command = start("--data", str(data), *SEARCH, "--name", "killed", cwd=folder)
    stop_when(
        command, lambda: len(lines_of(run / "trials/00003/result.json")) >= 1, signal.SIGKILL, group=False
    )
    command.process.wait()
    assert info(run)["status"] == "running", "nobody could say otherwise"

    code, output = finish(start("--resume", "killed", cwd=folder))
    assert code == 0, output
    assert digits(run) == digits(unbroken[0])
    assert rows(run) == rows(unbroken[0])
    assert info(run)["winner"] == info(unbroken[0])["winner"]


@pytest.mark.ray
def test_permuted_test_labels_leave_every_heldout_number_and_choice_as_it_was(
    folder: Path, unbroken: tuple[Path, str], demo_store: FeatureStore
) -> None:
    data = folder / "permuted"
    shutil.copytree(demo_store.path, data)
    with pa.ipc.open_file(data / "labels.arrow") as reader:
        table = reader.read_all()
    order = np.random.default_rng(0).permutation(len(table))
    shuffled = [
        table.column(name) if name == "name" else table.column(name).take(order)
        for name in table.column_names
    ]
    with pa.ipc.new_file(data / "labels.arrow", table.schema) as writer:
        writer.write_table(pa.table(shuffled, schema=table.schema))
    # Interrupted on the way as well: Ctrl-C goes to the whole process group of a terminal.
    run = folder / "runs" / "permuted"
    command = start("--data", str(data), *SEARCH, "--name", "permuted", cwd=folder)
    stop_when(
        command, lambda: len(lines_of(run / "trials/00001/result.json")) >= 1, signal.SIGINT, group=True
    )
    code, output = finish(command)
    assert code == 130
    assert "--resume permuted" in output
    assert info(run)["status"] == "interrupted"

    code, output = finish(start("--resume", "permuted", cwd=folder))
    assert code == 0, output
    assert digits(run) == digits(unbroken[0])
    assert rows(run) == rows(unbroken[0])


@pytest.mark.ray
@pytest.mark.parametrize("lockstep", [False, True])
def test_a_sweep_trains_every_row_with_every_seed_once_also_when_killed(
    lockstep: bool, folder: Path, demo_store: FeatureStore
) -> None:
    name = f"sweep-{lockstep}"
    run = folder / "runs" / name
    sweep = ["--sweep", "table3", "--seeds", "2", "--epochs", "3", *SMALL]
    command = start("--data", str(demo_store.path), *sweep, "--name", name, cwd=folder, lockstep=lockstep)
    stop_when(command, lambda: len(list(run.glob("trials/*/result.json"))) >= 3, signal.SIGKILL, group=False)
    command.process.wait()
    code, output = finish(start("--resume", name, cwd=folder, lockstep=lockstep))
    assert code == 0, output
    assert ("in lockstep on one GPU" in output) == lockstep
    assert len(list(run.glob("trials/lockstep_*"))) == (4 if lockstep else 0)
    expected = {
        f"{row}_seed{seed}" for row in ("two-stream", "two-stream+sd", "light", "full") for seed in (0, 1)
    }
    logs = {log.parent.name: lines_of(log) for log in run.glob("trials/*/result.json")}
    assert set(logs) == expected
    for name, log in logs.items():
        assert [line["epoch"] for line in log] == [1, 2, 3]
        assert log[-1]["ap_trapezoid"] is not None
        assert (log[-1]["visual_ap"] is None) == (name.split("_")[0] in ("two-stream", "light"))
    assert not (run / "study.journal").exists()
    assert not (run / "refit").exists()
    table = pa.parquet.read_table(run / "report" / "trials.parquet")
    assert sorted(zip(table["row"].to_pylist(), table["seed"].to_pylist(), strict=True)) == sorted(
        (folder.rsplit("_seed", 1)[0], int(folder.rsplit("_seed", 1)[1])) for folder in expected
    )
    assert set(table["status"].to_pylist()) == {"finished"}


@pytest.mark.ray
def test_the_best_are_confirmed_on_fresh_seeds_before_the_winner_is_named_also_when_killed(
    folder: Path, demo_store: FeatureStore
) -> None:
    run = folder / "runs" / "confirmed"
    options = [
        *SMALL,
        "--epochs",
        "3",
        "--trials",
        "4",
        "--no-asha",
        "--confirm",
        "2",
        "--confirm-seeds",
        "2",
    ]
    command = start("--data", str(demo_store.path), *options, "--name", "confirmed", cwd=folder)
    stop_when(command, lambda: len(list(run.glob("confirm/*/result.json"))) >= 3, signal.SIGKILL, group=False)
    command.process.wait()
    assert info(run)["phase"] == "confirm"
    code, output = finish(start("--resume", "confirmed", cwd=folder))
    assert code == 0, output
    content = info(run)

    # The best two of the search by its scores, and the paper's setting beside them.
    searched = {
        log.parent.name: max(score for _, score in logged_scores(log))
        for log in run.glob("trials/*/result.json")
    }
    best = sorted(searched, key=lambda name: -searched[name])[:2]
    assert content["confirm"] == {"rows": best, "reference": "00000", "seeds": [1000, 1001]}
    everyone = [*best, *({"00000"} - set(best))]
    logs = {log.parent.name: lines_of(log) for log in run.glob("confirm/*/result.json")}
    assert set(logs) == {f"{name}_seed{seed}" for name in everyone for seed in (1000, 1001)}
    means = {}
    for name in everyone:
        recorded = json.loads((run / "trials" / name / "params.json").read_text())
        for seed in (1000, 1001):
            log = logs[f"{name}_seed{seed}"]
            assert [line["epoch"] for line in log] == [1, 2, 3], "every epoch once"
            params = json.loads((run / "confirm" / f"{name}_seed{seed}" / "params.json").read_text())
            own = {"seed": seed, "row": name, "trial_id": params["trial_id"]}
            assert params == {key: value for key, value in recorded.items() if key != "number"} | own
        means[name] = sum(logs[f"{name}_seed{seed}"][-1]["selection_score"] for seed in (1000, 1001)) / 2
    winner = max(everyone, key=lambda name: means[name])
    assert content["winner"]["trial"] == winner
    assert content["winner"]["confirmed"] == {
        "mean": pytest.approx(means[winner]),
        "n": 2,
        "searched": searched[winner],
    }
    assert load_checkpoint(run / "model.pt")["epoch"] == content["winner"]["chosen_epoch"]
    table = pa.parquet.read_table(run / "report" / "trials.parquet").to_pylist()
    confirmed = [row for row in table if row["kind"] == "confirm"]
    assert {(row["row"], row["seed"]) for row in confirmed} == {
        (name, seed) for name in everyone for seed in (1000, 1001)
    }
    assert all(row["ap"] is not None for row in confirmed)

    code, output = finish(start("--replay", "confirmed", f"confirm/{winner}_seed1001", cwd=folder))
    assert code == 0, output
    assert "to the last digit" in output


@pytest.mark.ray
def test_a_winner_is_refitted_on_seeds_in_lockstep(folder: Path, demo_store: FeatureStore) -> None:
    run = folder / "runs" / "together"
    options = [*SMALL, "--epochs", "3", "--trials", "2", "--seeds", "2", "--name", "together"]
    code, output = finish(start("--data", str(demo_store.path), *options, cwd=folder, lockstep=True))
    assert code == 0, output
    table = pa.parquet.read_table(run / "report" / "trials.parquet").to_pylist()
    refits = [row for row in table if row["kind"] == "refit"]
    assert [(row["seed"], row["status"]) for row in refits] == [(0, "refit"), (1, "refit")]
    assert all(row["ap"] is not None for row in refits)
    assert load_checkpoint(run / "model.pt")["record"]["lockstep"] == [0, 1]
    assert load_network(run / "model.pt").config.seed == 0


@pytest.mark.ray
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--resume", "unbroken", "--epochs", "9"], "--epochs 9 cannot be changed by --resume"),
        (["--resume", "unbroken", "--lambda_v2b", "1.0"], "--lambda-v2b 1.0 cannot be changed"),
        (["--resume", "unbroken", "--sweep", "table3"], "--sweep table3 cannot be changed"),
        (["--name", "unbroken"], "--resume unbroken to go on"),
        (["--resume", "unbroken"], "in use by"),
    ],
)
def test_a_run_in_use_or_begun_otherwise_is_refused(
    arguments: list[str],
    said: str,
    unbroken: tuple[Path, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(unbroken[0].parent.parent)
    before = (unbroken[0] / "run.json").read_bytes()
    with (unbroken[0] / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SystemExit) as stop:
            cli.main(search, arguments)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err
    assert (unbroken[0] / "run.json").read_bytes() == before


@pytest.mark.ray
def test_resuming_a_finished_run_shows_it_again(folder: Path, unbroken: tuple[Path, str]) -> None:
    before = digits(unbroken[0])
    code, output = finish(start("--resume", "unbroken", "--trials", "7", cwd=folder))
    assert code == 0, output
    assert "leaderboard" in output
    assert digits(unbroken[0]) == before
