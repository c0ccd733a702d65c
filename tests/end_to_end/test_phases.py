"""Sweeps, confirmation and refit from the command line: every training once, also when the run is killed."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from macil.commands import cli
from macil.data.store.feature_store import FeatureStore
from macil.training.checkpoint import load_checkpoint, load_network
from tests.support.search_command import SMALL, info, lines_of, search_here, start, stop_when
from tune.commands.search import search
from tune.reporting.write import write_report
from tune.storage.trial_log import read_log


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("phases")


def table_of(run: Path) -> pa.Table:
    """What the report says of the run's trainings."""
    page = write_report(run, figures=False)
    return pa.parquet.read_table(page.parent / "trials.parquet")


def has_files(run: Path, pattern: str, count: int) -> Callable[[], bool]:
    return lambda: len(list(run.glob(pattern))) >= count


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
@pytest.mark.parametrize(
    ("lockstep", "killed"),
    [(False, True), (True, False), pytest.param(True, True, marks=pytest.mark.nightly)],
)
def test_a_sweep_trains_every_row_with_every_seed_once_also_when_killed(
    lockstep: bool, killed: bool, folder: Path, demo_store: FeatureStore
) -> None:
    name = f"sweep-{lockstep}-{killed}"
    run = folder / "runs" / name
    sweep = ["--sweep", "table3", "--seeds", "2", "--epochs", "3", "--no-report", *SMALL]
    begin = ["--data", str(demo_store.path), *sweep, "--name", name, "--concurrent", "1"]
    if killed:
        command = start(*begin, cwd=folder, lockstep=lockstep)
        stop_when(command, has_files(run, "trials/*/result.json", 3), signal.SIGKILL, group=False)
        command.process.wait()
        begin = ["--resume", name, "--no-report"]
    code, output = search_here(*begin, cwd=folder, lockstep=lockstep)
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
    table = table_of(run)
    assert sorted(zip(table["row"].to_pylist(), table["seed"].to_pylist(), strict=True)) == sorted(
        (folder.rsplit("_seed", 1)[0], int(folder.rsplit("_seed", 1)[1])) for folder in expected
    )
    assert set(table["status"].to_pylist()) == {"finished"}


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
@pytest.mark.parametrize("killed", [pytest.param(False, marks=pytest.mark.nightly), True])
def test_the_best_are_confirmed_on_fresh_seeds_before_the_winner_is_named_also_when_killed(
    killed: bool, folder: Path, demo_store: FeatureStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed in the confirmation and again in the refit: the first resume is a process of its own, as the begin was."""
    name = f"confirmed-{killed}"
    run = folder / "runs" / name
    begin = ["--data", str(demo_store.path), *SMALL, "--epochs", "3", "--trials", "4", "--no-asha"]
    begin += ["--confirm", "2", "--confirm-seeds", "2", "--concurrent", "1", "--no-report", "--name", name]
    if killed:
        resume = ["--resume", name, "--no-report"]
        for phase, line, reached in (
            ("confirm", begin, has_files(run, "confirm/*/result.json", 3)),
            ("refit", resume, has_files(run, "refit/*/params.json", 1)),
        ):
            command = start(*line, cwd=folder)
            stop_when(command, reached, signal.SIGKILL, group=False)
            command.process.wait()
            assert info(run)["phase"] == phase
        begin = resume
    code, output = search_here(*begin, cwd=folder)
    assert code == 0, output
    content = info(run)

    # The best two of the search by its scores, and the paper's setting beside them.
    searched = {
        log.parent.name: max(read_log(log).scores.values()) for log in run.glob("trials/*/result.json")
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
    table = table_of(run).to_pylist()
    confirmed = [row for row in table if row["kind"] == "confirm"]
    assert {(row["row"], row["seed"]) for row in confirmed} == {
        (name, seed) for name in everyone for seed in (1000, 1001)
    }
    assert all(row["ap"] is not None for row in confirmed)

    with pytest.raises(SystemExit) as stop:
        cli.main(search, ["--replay", str(run), f"confirm/{winner}_seed1001"])
    assert stop.value.code == 0
    assert "to the last digit" in capsys.readouterr().out


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_a_winner_is_confirmed_and_refitted_on_seeds_in_lockstep(
    folder: Path, demo_store: FeatureStore
) -> None:
    run = folder / "runs" / "together"
    options = [*SMALL, "--epochs", "3", "--trials", "2", "--seeds", "2", "--name", "together"]
    options += ["--confirm", "1", "--confirm-seeds", "2", "--no-report", "--concurrent", "1"]
    code, output = search_here("--data", str(demo_store.path), *options, cwd=folder, lockstep=True)
    assert code == 0, output
    table = table_of(run).to_pylist()
    rows = info(run)["confirm"]["rows"]
    confirmed = {(row["row"], row["seed"]) for row in table if row["kind"] == "confirm"}
    assert confirmed == {(name, seed) for name in {*rows, "00000"} for seed in (1000, 1001)}
    assert len(list(run.glob("confirm/lockstep_*"))) == len({*rows, "00000"})
    refits = [row for row in table if row["kind"] == "refit"]
    assert [(row["seed"], row["status"]) for row in refits] == [(0, "refit"), (1, "refit")]
    assert all(row["ap"] is not None for row in refits)
    assert load_checkpoint(run / "model.pt")["record"]["lockstep"] == [0, 1]
    assert load_network(run / "model.pt").config.seed == 0
