"""`--status` tells where a run stands, whatever state it is in, from its folder alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from macil.commands import cli
from macil.data.store.feature_store import FeatureStore
from macil.io.files import write_json_atomic
from macil.io.remote import Remote, send
from macil.io.wording import now
from tests.support.run_folders import EPOCHS, RunFolder
from tests.support.search_command import lines_of
from tune.commands.search import search
from tune.commands.status import read_last
from tune.results.next_commands import report_command, resume_command

HERE = os.uname().nodename


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, demo_store: FeatureStore) -> Path:
    """A search of 8 trials: two finished, one stopped early, two failed, two under way on two hosts, one not begun."""
    run = RunFolder(tmp_path_factory.mktemp("status") / "search", demo_store)
    run.begin("running", trials=8, phase="trials", created=now(), updated=now(), demo=True)
    run.add("00000")
    run.add("00001", lambda_v2b=2.0)
    run.add("00002", "stopped", 1, lambda_v2b=3.0)
    run.add("00003", "failed", 1, lambda_v2b=3.5)
    run.add("00004", "diverged", 1, lambda_v2b=0.5)
    run.add("00005", "killed", 2, lambda_v2b=0.6)
    run.add("00006", "killed", 1, lambda_v2b=0.7)
    plan = json.loads((run.path / "plan.json").read_text())
    plan |= {"protocol": "heldout", "trials": 8, "seeds": [0], "base": {"epochs": EPOCHS}}
    write_json_atomic(run.path / "plan.json", plan)
    return run.path


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    """The same, held by this process, which lives."""
    copy = shutil.copytree(original, tmp_path / "search")
    held_by(copy, os.getpid())
    for number, host in ((5, "gpu-1"), (6, "gpu-2")):
        trained_on(copy / f"trials/0000{number}", host, seconds_ago=90 * (number - 4))
    return copy


def held_by(run: Path, process: int, host: str = HERE) -> None:
    (run / ".lock").write_text(f"process {process} on {host}")


def trained_on(trial: Path, host: str, seconds_ago: float) -> None:
    lines = [{**line, "hostname": host, "timestamp": int(time.time() - seconds_ago)} for line in logs(trial)]
    (trial / "result.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def logs(trial: Path) -> list[dict[str, Any]]:
    return lines_of(trial / "result.json")


def change(run: Path, **fields: Any) -> None:
    write_json_atomic(run / "run.json", {**json.loads((run / "run.json").read_text()), **fields})


def status(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, str], str]:
    """Exit status, the first table, and everything that was printed."""
    with pytest.raises(SystemExit) as stop:
        cli.main(search, ["--status", *arguments])
    printed = capsys.readouterr()
    output = printed.out + printed.err
    table = dict(re.findall(r"^│ (\w[\w ]*?) +│ (.*?) +│$", output, re.MULTILINE))
    return int(str(stop.value.code or 0)), table, output


def test_a_run_that_runs_shows_counts_epochs_and_where_its_trials_are(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, table, output = status(capsys, "search", "--storage", str(run.parent))
    assert code == 0
    assert table["status"] == "running"
    assert table["phase"] == "trials"
    assert table["trials"] == "3 of 8 done (1 stopped early), 2 running, 2 failed, 1 not begun"
    assert table["refit"] == "0 of 1 done, 1 not begun"
    # Of 27 epochs: 3 + 3 + 1 + 1 + 1 + 2 + 1 done; 2 + 2 + 2 of those that ended early are never trained.
    assert table["epochs"].startswith("12 done, at most 9 to go; roughly ")
    assert ", 2 at once)" in table["epochs"]
    assert re.fullmatch(r"trial 0000\d, selection_score -?\d\.\d{4}, epoch [123]", table["best so far"])
    assert "24 train videos, 10 test videos; demo data, made up" in output
    assert "running: 2 on 2 hosts" in output
    rows = [re.split(r" *│ *", line.strip(" │")) for line in output.splitlines() if "gpu-" in line]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        ("00005", "2/3", "gpu-1"),
        ("00006", "1/3", "gpu-2"),
    ]
    assert re.fullmatch(r"\d\d+ s ago", rows[0][4])
    assert rows[1][4] == "3 min ago"
    assert "--resume" not in output


def test_a_killed_run_is_told_from_one_that_runs(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True)
    held_by(run, int(gone.stdout))
    code, table, output = status(capsys, str(run))
    assert code == 0
    assert table["status"] == "killed"
    assert table["trials"] == "3 of 8 done (1 stopped early), 2 to go on with, 2 failed, 1 not begun"
    assert f"go on: {resume_command(str(run), None)}" in output
    assert "running:" not in output


@pytest.mark.parametrize("how", ["interrupted", "failed"])
def test_a_run_that_was_stopped_says_how_to_go_on(
    how: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(run, status=how)
    _, table, output = status(capsys, str(run))
    assert table["status"] == how
    assert "last change" in table["begun"]
    assert f"go on: {resume_command(str(run), None)}" in output


def test_a_finished_run_says_where_to_look_further(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(run, status="finished", phase="report")
    _, table, output = status(capsys, f"file://{run}")
    assert table["status"] == "finished"
    assert "phase" not in table
    assert table["epochs"] == "12 done"
    assert f"write the report: {report_command(str(run))}" in output
    change(run, winner={"trial": "00001", "confirmed": {"mean": 0.125, "n": 3}})
    _, named, _ = status(capsys, str(run))
    assert "best so far" not in named, "fresh seeds may have chosen another"
    assert named["winner"].startswith("trial 00001, selection_score ")
    assert named["winner"].endswith(" in the search, 0.1250 on fresh seeds")
    (run / "report").mkdir()
    (run / "report" / "report.html").touch()
    assert f"report: {run}/report/report.html" in status(capsys, str(run))[2]
    assert "--resume" not in output


def test_a_run_on_another_host_that_is_silent_for_long_is_doubted(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_by(run, 1, "elsewhere")
    _, table, output = status(capsys, str(run))
    assert table["status"] == "running"
    assert "may have been killed" not in output
    change(run, updated="2026-01-01T00:10:00+00:00")
    _, _, output = status(capsys, str(run))
    assert "may have been killed" not in output, "its trials have epochs of late"
    for number, host in ((5, "gpu-1"), (6, "gpu-2")):
        trained_on(run / f"trials/0000{number}", host, seconds_ago=7300)
    _, table, output = status(capsys, str(run))
    assert table["status"] == "running"
    assert "nothing was written for 2 h 02 min; the search may have been killed on another host" in output


def test_a_run_that_was_never_begun_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / ".lock").write_text("process 1 on elsewhere")
    code, _, output = status(capsys, "early", "--storage", str(tmp_path))
    assert code == 0
    assert output.startswith("run early: not begun")


def test_a_run_of_which_nothing_is_trained_yet_can_be_shown(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run / "trials")
    change(run, data=None, dataset=None)
    _, table, _ = status(capsys, str(run))
    assert table["trials"] == "0 of 8 done, 8 not begun"
    assert table["epochs"] == f"0 done, at most {9 * EPOCHS} to go"
    assert table["best so far"] == "no trial has a score yet"
    assert table["data"] == "not read yet"


def test_the_phases_of_confirmation_and_refit_are_counted(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = json.loads((run / "plan.json").read_text())
    write_json_atomic(run / "plan.json", {**plan, "confirm": {"configurations": 2, "seeds": [1000, 1001]}})
    _, table, _ = status(capsys, str(run))
    assert table["confirmation"] == "0 of 4 done, 4 not begun"
    change(
        run,
        phase="confirm",
        confirm={"rows": ["00000", "00001"], "reference": "00002", "seeds": [1000, 1001]},
    )
    shutil.copytree(run / "trials" / "00000", run / "confirm" / "00000_seed1000")
    _, table, _ = status(capsys, str(run))
    assert table["phase"] == "confirmation"
    assert table["confirmation"] == "1 of 6 done, 5 not begun"


def test_the_last_sign_of_life_survives_a_line_that_is_being_written(run: Path) -> None:
    trial = run / "trials" / "00005"
    with (trial / "result.json").open("a") as log:
        log.write('{"epoch": 3, "hostname": "gpu-9", "timest')
    last = read_last(trial, time.time())
    assert last.host == "gpu-1"
    assert last.age is not None
    assert 80 < last.age < 120
    assert read_last(run / "trials" / "nowhere", time.time()).age is None
    (trial / "result.json").write_text('{"epoch": 1}\n')
    assert read_last(trial, time.time()).age is None


def test_a_run_that_does_not_exist_is_refused_as_everywhere(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, output = status(capsys, "serach", "--storage", str(run.parent))
    assert code == 2
    assert output.startswith("error: no run 'serach'")
    assert "search" in output.partition("runs in")[2]


@pytest.mark.parametrize(
    ("others", "named"),
    [
        (["--trials", "3"], "--trials"),
        (["--address", "auto", "--resume", "search"], "--resume, --address"),
        (["--no-asha"], "--asha"),
        (["--lambda-v2b", "1.5", "--dry-run"], "--dry-run, --lambda-v2b"),
    ],
)
def test_no_other_option_is_allowed(
    others: list[str], named: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, output = status(capsys, str(run), *others)
    assert code == 2
    assert output.startswith(f"error: --status shows a run and changes nothing; leave out {named} ")


def test_a_status_needs_no_ray(run: Path) -> None:
    code = (
        "import atexit, sys; atexit.register(lambda: print('ray' in sys.modules))\n"
        "from macil.commands import cli; from tune.commands.search import search\n"
        f"cli.main(search, ['--status', {str(run)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "running: 2" in done.stdout


def test_without_a_name_every_run_has_a_line(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = run.with_name("damaged")
    damaged.mkdir()
    (damaged / "run.json").write_text("{")
    newer = run.with_name("newer")
    newer.mkdir()
    (newer / "run.json").write_text('{"format_version": 99}')
    code, _, output = status(capsys, "--storage", str(run.parent))
    assert code == 0
    assert f"runs in {run.parent}: 3" in output
    lines = {line.split("│")[1].strip(): line for line in output.splitlines() if line.startswith("│")}
    assert re.search(
        r"│ running +│ +-?\d\.\d{4} │ 3 of 8 done \(1 stopped early\) │ [\d.]+ s ago", lines["search"]
    )
    assert "damaged: " in lines["damaged"]
    assert "cannot be read: " in lines["newer"]
    monkeypatch.chdir(damaged)
    code, _, output = status(capsys)
    assert (code, output) == (0, "there is no run in ./runs\n")


def test_runs_in_a_bucket_are_listed_likewise(
    run: Path,
    bucket: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("MACIL_CACHE", str(tmp_path / "cache"))
    send(run, Remote(f"{bucket}/runs/search"), ["run.json", "plan.json", "config.toml"])
    code, _, output = status(capsys, "--storage", f"{bucket}/runs")
    assert code == 0
    assert f"runs in {bucket}/runs: 1" in output
    assert "│ 0 of 8 done │" in output


def test_a_failed_run_says_why_and_proposes_only_what_may_help(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(run, status="failed", failure={"reason": "the disk was full", "resumable": True})
    _, table, output = status(capsys, str(run))
    assert table["reason"] == "the disk was full"
    assert f"go on: {resume_command(str(run), None)}" in output
    change(run, failure={"reason": "every trial failed", "resumable": False})
    _, table, output = status(capsys, str(run))
    assert table["reason"] == "every trial failed"
    assert f"nothing is left to go on with; write the report: {report_command(str(run))}" in output
    assert "--resume" not in output


def test_a_failed_run_of_an_earlier_version_tells_what_its_trials_say(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(run, status="failed", trials=2)
    for trial in (run / "trials").iterdir():
        if trial.name not in ("00003", "00004"):
            shutil.rmtree(trial)
    _, table, output = status(capsys, str(run))
    assert "1 trial: " in table["reason"]
    assert "nothing is left to go on with" in output
