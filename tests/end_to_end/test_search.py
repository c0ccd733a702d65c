"""The main job from its command line, as a user runs it: real Ray, real trainings, real signals."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from optuna.trial import TrialState

from macil.commands import cli
from macil.data.store.feature_store import FeatureStore
from macil.io.files import read_json
from macil.training.checkpoint import load_checkpoint
from tests.support.promise import digits, rows
from tests.support.search_command import SMALL, finish, info, lines_of, search_here, start, stop_when
from tests.support.studies import load_study
from tune.algorithms.simulator.curves import read_curves
from tune.algorithms.simulator.recorded import RecordedRun
from tune.algorithms.simulator.simulate import simulate
from tune.commands.search import search
from tune.planning.plan import read_plan
from tune.results.label_access import read_label_accesses
from tune.results.next_commands import report_command
from tune.storage.trial_log import read_log

EPOCHS, GRACE = 6, 2
BROWSER = {"BROWSER": "/bin/echo opened %s"}
SEARCH = [*SMALL, "--epochs", str(EPOCHS), "--grace", str(GRACE), "--trials", "7", "--concurrent", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("my search #1 of $HOME's")


@pytest.fixture(scope="module")
def unbroken(folder: Path, demo_store: FeatureStore) -> tuple[Path, str]:
    """A search that nobody disturbs, and what it printed."""
    command = start(
        "--data", str(demo_store.path), *SEARCH, "--name", "unbroken", cwd=folder, variables=BROWSER
    )
    code, output = finish(command)
    assert code == 0, output
    return folder / "runs" / "unbroken", output


@pytest.mark.ray
def test_a_search_ends_with_leaderboard_report_model_and_next_command(unbroken: tuple[Path, str]) -> None:
    run, output = unbroken
    assert "leaderboard: heldout protocol" in output
    assert str(run / "report" / "report.html") in output
    assert (run / "report" / "report.html").is_file()
    content = info(run)
    assert content["status"] == "finished"
    winner = content["winner"]
    best = max(
        read_log(run / "trials" / winner["trial"] / "result.json").scores.items(),
        key=lambda item: (item[1], -item[0]),
    )
    assert (winner["chosen_epoch"], winner["selection_score"]) == best
    everyone = [score for log in run.glob("trials/*/result.json") for score in read_log(log).scores.values()]
    assert winner["selection_score"] == max(everyone)
    model = load_checkpoint(run / "model.pt")
    assert model["record"]["protocol"] == "refit"
    assert model["epoch"] == winner["chosen_epoch"] == content["refit"]["epochs"]
    assert "\x1b[" not in output, "a log has no terminal codes"
    assert "ray" not in output.replace("/ray", "").lower().split(), "Ray speaks only under --debug"


@pytest.mark.ray
def test_every_command_that_it_prints_at_its_end_works_when_it_is_pasted(
    folder: Path, unbroken: tuple[Path, str]
) -> None:
    run, output = unbroken
    printed = output[output.index("\nreport  ") :].splitlines()[2:]
    commands = dict(line.split(": ", 1) for line in printed)
    again = "search again, and confirm the best on fresh seeds"
    assert list(commands) == ["open the report", "score a video", "export the model", again]
    pasted = "\n".join(["set -e", *list(commands.values())[:3], f"{commands[again]} --dry-run"])
    done = subprocess.run(
        ["bash", "-c", pasted],
        cwd=folder,
        env={**os.environ, **BROWSER},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"opened {(run / 'report/report.html').as_uri()}" in done.stdout
    assert len(read_json(folder / "unbroken-scores/segments.json")["videos"]) == 1
    assert (folder / "unbroken-model.safetensors").is_file()
    assert "7 suggestions of up to 6 epochs" in done.stdout
    assert "the 3 best configurations" in done.stdout
    assert not (run.parent / "unbroken-confirmed").exists()


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
@pytest.mark.usefixtures("shared_ray")
def test_a_killed_search_goes_on_as_if_nothing_had_happened_and_reads_no_test_label(
    folder: Path, unbroken: tuple[Path, str], demo_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
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

    code, output = search_here("--resume", "killed", "--no-report", cwd=folder)
    assert code == 0, output
    monkeypatch.chdir(folder)
    assert output.splitlines()[-1] == f"write the report: {report_command(str(run))}"
    assert not (run / "report").exists()
    assert info(run)["status"] == "finished"
    assert digits(run) == digits(unbroken[0])
    assert rows(run) == rows(unbroken[0])
    assert info(run)["winner"] == info(unbroken[0])["winner"]


@pytest.mark.ray
def test_the_simulator_suggests_and_stops_what_the_run_did(unbroken: tuple[Path, str]) -> None:
    """Told nothing but the tables of the report and the plan."""
    run, _ = unbroken
    plan = read_plan(run)
    assert plan is not None
    assert plan.sampler is not None
    found = simulate(
        plan.space,
        RecordedRun(read_curves(run / "report", plan.space), plan.base.epochs),
        trials=plan.trials,
        startup=plan.startup,
        seed=plan.search_seed or 0,
        sampler=plan.sampler,
        stopping=plan.stopping,
        initial=(plan.first, *plan.enqueued),
    )
    study = load_study(run / "study.journal").trials
    assert [trial.params for trial in found] == [row.params for row in study]
    assert [dict(enumerate(trial.scores, start=1)) for trial in found] == [
        row.intermediate_values for row in study
    ]
    assert [trial.stopped for trial in found] == [row.state == TrialState.PRUNED for row in study]


@pytest.mark.ray
@pytest.mark.nightly
@pytest.mark.usefixtures("shared_ray")
def test_another_sampler_and_stopping_rule_go_on_after_a_kill(folder: Path, demo_store: FeatureStore) -> None:
    """Sobol points and the median rule, with known points from a file that the resume does not need."""
    known = folder / "known.toml"
    known.write_text("[[points]]\nlambda_v2b = 0.5\n", encoding="utf-8")
    others = ["--sampler", "qmc", "--stopping", "median", "--enqueue", str(known)]
    begin = ["--data", str(demo_store.path), *SEARCH, *others, "--no-report"]
    code, output = search_here(*begin, "--name", "whole", cwd=folder)
    assert code == 0, output
    assert "1 known point first; scrambled Sobol points" in output
    run = folder / "runs" / "other"
    command = start(*begin, "--name", "other", cwd=folder)
    stop_when(
        command, lambda: len(lines_of(run / "trials/00004/result.json")) >= 1, signal.SIGKILL, group=False
    )
    command.process.wait()
    known.unlink()
    code, output = search_here("--resume", "other", "--no-report", cwd=folder)
    assert code == 0, output
    assert digits(run) == digits(run.parent / "whole")
    assert rows(run) == rows(run.parent / "whole")
    study = load_study(run / "study.journal").trials
    assert study[1].params["lambda_v2b"] == 0.5
    assert {row.state for row in study} == {TrialState.COMPLETE, TrialState.PRUNED}, (
        "the example should show both"
    )


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
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
    command = start("--data", str(data), *SEARCH, "--no-report", "--name", "permuted", cwd=folder)
    stop_when(
        command, lambda: len(lines_of(run / "trials/00001/result.json")) >= 1, signal.SIGINT, group=True
    )
    code, output = finish(command)
    assert code == 130
    assert "--resume permuted" in output
    assert info(run)["status"] == "interrupted"

    code, output = search_here("--resume", "permuted", "--no-report", cwd=folder)
    assert code == 0, output
    assert not read_label_accesses(run, []), "without a report no test label is read"
    assert digits(run) == digits(unbroken[0])
    assert rows(run) == rows(unbroken[0])


@pytest.mark.ray
@pytest.mark.parametrize(
    ("arguments", "message"),
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
    message: str,
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
    assert message in capsys.readouterr().err
    assert (unbroken[0] / "run.json").read_bytes() == before


@pytest.mark.ray
def test_resuming_a_finished_run_shows_it_again(folder: Path, unbroken: tuple[Path, str]) -> None:
    before = digits(unbroken[0])
    code, output = search_here("--resume", "unbroken", "--trials", "7", cwd=folder)
    assert code == 0, output
    assert "leaderboard" in output
    assert digits(unbroken[0]) == before


SPACE = """
format_version = 1

[learning_rate]
low = 1e-5
high = 1e-2
log = true

[contrast]
choices = [true, false]

[temperature]
low = 0.03
high = 1
log = true
when = { contrast = true }
"""


@pytest.mark.nightly
@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_a_space_of_ones_own_is_searched_and_a_resume_needs_its_file_no_more(
    folder: Path, demo_store: FeatureStore
) -> None:
    file = folder / "space.toml"
    file.write_text(SPACE)
    asked = ["--data", str(demo_store.path), *SMALL, "--epochs", "3", "--trials", "6", "--concurrent", "1"]
    asked += ["--no-asha", "--space", str(file), "--search", "dropout=0..0.5:step=0.1", "--no-report"]
    code, output = search_here(*asked, "--name", "own", cwd=folder)
    assert code == 0, output
    run, killed = folder / "runs" / "own", folder / "runs" / "own-killed"
    command = start(*asked, "--name", killed.name, cwd=folder)
    stop_when(
        command, lambda: len(lines_of(killed / "trials/00003/result.json")) >= 1, signal.SIGKILL, group=False
    )
    command.process.wait()
    file.unlink()
    code, output = search_here("--resume", killed.name, "--no-report", cwd=folder)
    assert code == 0, output
    assert digits(killed) == digits(run)
    assert rows(killed) == rows(run)

    suggested = [trial.params for trial in load_study(run / "study.journal").trials]
    assert suggested[0] == {"learning_rate": 4e-4, "contrast": True, "temperature": 0.1, "dropout": 0.1}
    assert {params["contrast"] for params in suggested} == {True, False}
    for params in suggested:
        assert ("temperature" in params) == params["contrast"]
    recorded = tomllib.loads((run / "space.toml").read_text())
    assert recorded["temperature"]["when"] == {"contrast": True}
    assert recorded["dropout"] == {"low": 0.0, "high": 0.5, "step": 0.1}
    assert info(run)["given"]["--search"] == "dropout=0..0.5:step=0.1"
    assert search_here("--resume", "own", "--search", "dropout=0..0.4", cwd=folder)[0] == 2
