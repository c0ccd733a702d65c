"""What `python tune/search.py` refuses, and that a dry run stops before Ray."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from macil.__main__ import app
from macil.commands import cli
from macil.data.store.feature_store import FeatureStore
from tests.support.repository import REPORT_SCRIPT, SEARCH_SCRIPT
from tune.commands.search import search
from tune.execution.launch import RunTarget, prepare
from tune.execution.pipeline import begin
from tune.planning.options import options_of
from tune.planning.space_file import DEFAULT


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main(search, list(arguments))
    captured = capsys.readouterr()
    output = captured.out + captured.err
    assert "Traceback" not in output
    assert isinstance(stop.value.code, int)
    return stop.value.code, output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--storage", "file"], "is a file; expected a folder"),
        (["--storage", "/proc/x"], "--storage /proc/x: /proc takes nothing new"),
        (["--storage", "nowhere://bucket/runs"], "cannot be opened"),
        (["--storage", "s3://key:secret@bucket/runs"], "a user name or a key"),
        (["--data", "nowhere://bucket/xd.store"], "cannot be opened"),
        (["--address", "auto"], "add --shared-storage if every host sees that folder"),
        (["--shared-storage"], "give --address too"),
        (["--name", "a/b"], "--name 'a/b' is not allowed"),
        (["--name", "empty-run", "--storage", "."], "exists already"),
        (["--name", "empty-run", "--storage", ".", "--overwrite"], "is not a run"),
        (["--resume", "nothing"], "no run of that name"),
        (["--resume", "x", "--overwrite"], "leave out --name and --overwrite"),
        (["--trials", "0"], "--trials 0 is not allowed"),
        (["--seeds", "-1"], "--seeds -1 is not allowed"),
        (["--concurrent", "0"], "--concurrent 0 is not allowed"),
        (["--asha", "--stopping", "median"], "--asha is --stopping asha, and not --stopping median"),
        (["--no-asha", "--stopping", "asha"], "--no-asha is --stopping none, and not --stopping asha"),
        (["--sweep", "table4", "--sampler", "gp"], "--sampler belongs to a search"),
        (["--grace", "21"], "--grace 21 is more than the 16 epochs"),
        (["--grace", "2", "--no-asha"], "--grace belongs to a rule that stops trials"),
        (["--gpus-per-trial", "1000"], "--gpus-per-trial 1000: this machine has"),
        (["--gpus-per-trial", "1.5"], "--gpus-per-trial 1.5 is not allowed"),
        (["--cpus-per-trial", "1000"], "--cpus-per-trial 1000: this machine has"),
        (["--cpus-per-trial", "nan"], "--cpus-per-trial nan is not allowed"),
        (["--hidden-dim", "6"], "hidden_dim = 6 is not divisible by num_heads = 4"),
        (["--momentum", "1.5"], "momentum = 1.5 is not allowed"),
        (["--sweep", "table3", "--trials", "3"], "--trials belongs to a search"),
        (["--sweep", "table4", "--ramp", "0.1"], "--ramp cannot be given with --sweep table4"),
        (
            ["--sweep", "table5"],
            "--sweep table5 is not known; expected table3, table4, figure3, tau, hidden, or a .toml",
        ),
        (["--sweep", "nowhere.toml"], "nowhere.toml does not exist"),
        (["--confirm", "99"], "--confirm 99 is more than the 10 configurations"),
        (["--confirm", "x"], "'x' is not a valid integer"),
        (["--confirm-seeds", "2"], "--confirm-seeds belongs to --confirm"),
        (["--sweep", "tau", "--temperature", "0.1"], "--temperature cannot be given with --sweep tau"),
        (
            ["--replay", "nothing", "00000"],
            "leave out --dry-run (only --storage and --seed and --data may be given)",
        ),
        (["--keep-scores", "some"], "'some' is not one of"),
        (["--no-such-flag"], "No such option"),
        (["--data", ""], "the path is empty"),
        (["--data", "file://host/x"], "names no file of this machine"),
        (["--config", "s3://bucket/c.toml"], "is a URI; expected a path on this machine"),
        *(
            ([flag, ""], f"Invalid value for '{flag}': it is empty")
            for flag in ("--name", "--storage", "--resume", "--status", "--sweep", "--address")
        ),
        (["--protocol", "secret"], "'secret' is not one of"),
        (["--config", "nowhere.toml"], "nowhere.toml does not exist"),
        (["--space", "nowhere.toml"], "nowhere.toml does not exist"),
        (["--search", "ramp=0..1:log"], "--search ramp=0..1:log: low = 0 must be above 0 where log is true"),
        (["--search", "ramp=0.1..1", "--ramp", "0.3"], "--search ramp is fixed too, by --ramp"),
        (["--search", "temperature=0.1..1", "--contrast", "false"], "temperature can have no effect"),
        (["--sweep", "tau", "--search", "ramp=0.1..1"], "--search belongs to a search"),
        (["--sweep", "tau", "--print-space"], "--sweep tau searches nothing"),
        (["--status", "x", "--print-space"], "leave out --print-space"),
        (["--replay", "x", "00000", "--search", "ramp=1..2"], "leave out --search"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty-run").mkdir()
    (tmp_path / "empty-run" / "keep").touch()
    (tmp_path / "file").touch()
    # A dry run refuses the same; should something slip through, no search is started by this test.
    code, output = call(capsys, *arguments, "--dry-run")
    assert code == 2, output
    assert message in output
    assert not (tmp_path / "runs").exists(), "nothing is left behind"


def test_a_file_uri_is_taken_wherever_a_path_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, demo_store: FeatureStore
) -> None:
    (tmp_path / "sweep.toml").write_text("[[rows]]\nname = 'a'\nchanges = {}\n")
    locations = ["--data", demo_store.path.as_uri(), "--storage", (tmp_path / "my runs").as_uri()]
    code, output = call(
        capsys, *locations, "--sweep", (tmp_path / "sweep.toml").as_uri(), "--name", "x", "--dry-run"
    )
    assert code == 0, output
    words = "".join(output.split()).replace("│", "")
    assert f"data{demo_store.path}" in words
    assert f"folder{tmp_path}/myruns/x" in words
    code, output = call(capsys, "--resume", (tmp_path / "gone").as_uri())
    assert (code, f"{(tmp_path / 'gone').as_uri()}: there is no run of that name" in output) == (2, True), (
        output
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nowhere", "nowhere does not exist"),
        ("empty", "is an empty folder"),
        ("file", "is a file; expected a folder"),
    ],
)
def test_a_path_without_data_is_a_fault_of_the_data_here_and_in_macil(
    data: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    code, output = call(capsys, "--data", data, "--dry-run")
    assert code == 1, output
    assert message in output
    with pytest.raises(SystemExit) as stop:
        cli.main(app, ["check", data])
    assert stop.value.code == 1
    assert not (tmp_path / "runs").exists(), "nothing is left behind"


def test_a_replay_of_no_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, output = call(capsys, "--replay", "nothing", "00000")
    assert code == 2, output
    assert "no run 'nothing'" in output


def test_a_start_that_fails_before_anything_is_trained_gives_its_name_back(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MACIL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "photo.jpg").touch()
    for _ in range(2):
        code, output = call(capsys, "--data", "data", "--name", "mine")
        assert code == 1, output
        assert "error:" in output
        assert output.endswith("nothing was trained and nothing is kept: the name mine is free again\n")
        assert list((tmp_path / "runs").iterdir()) == []


def test_a_resume_that_fails_leaves_the_run_and_its_reason(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MACIL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "photo.jpg").touch()
    given = options_of({"data": tmp_path / "data"})
    launch = prepare(given, RunTarget(name="mine", storage=str(tmp_path / "runs")))
    launch.run.path.mkdir(parents=True)
    begin(launch.run, launch.plan, given)
    code, output = call(capsys, "--resume", "mine")
    assert code == 1, output
    assert "when that is put right, go on: " in output
    failure = launch.run.info.failure
    assert launch.run.info.status == "failed"
    assert failure is not None
    assert failure.resumable
    assert failure.reason in " ".join(output.split())


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "no such place"])
def test_an_address_where_no_cluster_answers_is_refused(
    address: str, capsys: pytest.CaptureFixture[str], demo_store: FeatureStore
) -> None:
    code, output = call(capsys, "--data", str(demo_store.path), "--address", address, "--shared-storage")
    assert code == 2, output
    assert f"--address {address}: no Ray cluster answers there" in output


def test_a_dry_run_prints_the_plan_and_starts_nothing(demo_store: FeatureStore, tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv[0] = sys.argv.pop(1); sys.path.insert(0, '')\n"
        "import runpy\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop: status = stop.code\n"
        "import sys; print('RAY', 'ray' in sys.modules, 'STATUS', status)"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            str(SEARCH_SCRIPT),
            "--dry-run",
            "--data",
            str(demo_store.path),
            "--ramp",
            "0.2",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert "RAY False STATUS 0" in done.stdout, done.stdout + done.stderr
    assert "search lambda_v2b" in done.stdout
    assert "search ramp" not in done.stdout, "what is fixed leaves the space"
    assert "fixed ramp" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("flag", "stopping"), [("--asha", "ASHA"), ("--no-asha", "none")])
def test_the_older_flags_for_stopping_go_on_working(
    flag: str, stopping: str, capsys: pytest.CaptureFixture[str], demo_store: FeatureStore
) -> None:
    code, output = call(capsys, "--data", str(demo_store.path), flag, "--dry-run")
    assert code == 0, output
    (line,) = [line for line in output.splitlines() if "stopping" in line]
    assert stopping in line


@pytest.mark.parametrize("script", [SEARCH_SCRIPT, REPORT_SCRIPT], ids=lambda script: script.name)
def test_a_package_of_somebody_else_called_tune_is_refused(script: Path, tmp_path: Path) -> None:
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune" / "__init__.py").write_text("", encoding="utf-8")
    command = [sys.executable, str(script), "--help"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    # On the path it hides nothing; loaded before, it would.
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
    (tmp_path / "sitecustomize.py").write_text("import tune\n", encoding="utf-8")
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith(
        f"error: Python has loaded another package called tune, from {tmp_path.resolve() / 'tune'}, before"
    )
    assert "Traceback" not in refused.stderr


def listed(text: str) -> list[str]:
    """The first name of every option in a help text."""
    return re.findall(r"^  (?:-h, )?(--[\w-]+)", text.partition("Examples:")[0], re.MULTILINE)


def test_help_lists_common_options_and_help_all_every_one_once(capsys: pytest.CaptureFixture[str]) -> None:
    code, common = call(capsys, "--help")
    assert code == 0
    code, everything = call(capsys, "--help-all")
    assert code == 0
    options = [max(parameter.opts, key=len).replace("_", "-") for parameter in search.params]
    assert sorted(listed(everything)) == sorted([*options, "--help"])
    assert len(listed(common)) == len(set(listed(common))) <= 30
    assert set(listed(common)) < set(listed(everything))
    titles = ["Data", "What is trained", "What is searched", "How trials are compared", "The run", "Machines"]
    assert re.findall(r"^(\w.*):$", common, re.MULTILINE) == [*titles, "Hyperparameters", "Help", "Examples"]
    assert "_" not in "".join(listed(everything))


def test_the_examples_of_help_are_command_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(search, cli.SectionedCommand)
    _, text = call(capsys, "--help")
    shown = text.partition("Examples:\n")[2]
    lines = [words.split() for _, words in search.examples]
    assert len(lines) == 5
    assert [search.make_context("search", list(line)).params["sweep"] for line in lines].count("table4") == 1
    assert all(" ".join(line) in shown for line in lines)


def test_print_space_prints_what_would_be_searched_as_a_file_and_starts_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call(capsys, "--print-space") == (0, DEFAULT.read_text())
    changed = ["--search", "learning_rate=1e-5..1e-2:log", "--search", "contrast=true,false", "--ramp", "0.2"]
    code, printed = call(capsys, *changed, "--data", "nowhere", "--print-space")
    assert code == 0, printed
    (tmp_path / "own.toml").write_text(printed)
    assert call(capsys, "--space", "own.toml", "--ramp", "0.2", "--print-space") == (0, printed)
    assert "ramp" not in printed
    assert "when = { contrast = true }" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"own.toml"}
