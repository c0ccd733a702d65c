"""The examples run as they are written, with few trials and epochs."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from macil.commands import cli
from tests.support.repository import ROOT
from tune.commands.search import search

EXAMPLES = ROOT / "examples"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like the root of the repository, for what an example writes there."""
    for part in ("deploy", "examples", "macil", "tune"):
        (tmp_path / part).symlink_to(ROOT / part)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*command: str | Path, cwd: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_lists_every_example() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(.+?)\]\((.+?)\)", text, re.MULTILINE)
    assert all(name == link for name, link in listed)
    assert sorted(name for name, _ in listed) == sorted(
        path.name for path in EXAMPLES.iterdir() if path.name[0].isdigit()
    )


@pytest.mark.nightly
@pytest.mark.ray
def test_five_minutes_with_the_demo(folder: Path, without_ray: Callable[[], None]) -> None:
    without_ray()
    output = call("bash", "examples/01_demo.sh", "--trials", "2", "--epochs", "1", cwd=folder)
    assert "run demo" in output
    assert "timelines" in output
    assert (folder / "runs/demo/report/report.html").is_file()
    assert (folder / "demo-scores/segments.json").is_file()
    assert len(list((folder / "runs/demo/replays").iterdir())) == 1


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_features_of_ones_own_are_checked_converted_and_searched(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["examples/02_own_features.py", "1", "1"])
    runpy.run_path(str(EXAMPLES / "02_own_features.py"), run_name="__main__")
    output = capsys.readouterr().out
    assert "40 training videos, 12 test videos" in output
    assert "best: trial 00000" in output
    assert (folder / "runs/own/model.pt").is_file()


@pytest.mark.usefixtures("folder")
def test_the_space_of_ones_own_is_one_that_can_be_searched(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(search, ["--space", "examples/03_own_space.toml", "--trials", "20", "--print-space"])
    output = capsys.readouterr().out
    assert stop.value.code == 0, output
    assert re.findall(r"^\[(\w+)\]$", output, re.MULTILINE) == [
        "learning_rate",
        "hidden_dim",
        "dropout",
        "contrast",
        "temperature",
    ]


@pytest.mark.nightly
@pytest.mark.ray
def test_a_search_from_a_script_that_starts_its_own_ray(
    folder: Path, without_ray: Callable[[], None]
) -> None:
    without_ray()
    output = call(sys.executable, "examples/04_script.py", "2", "1", cwd=folder)
    assert "'trial_id': '0000" in output
    assert " weights" in output
    assert "'row': 'two-stream'" in output
    assert "finished\nrefused: --trials 0 is not allowed" in output


def test_the_slurm_job_asks_for_options_that_there_are(
    folder: Path, tmp_path: Path, demo_layout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`sbatch` is taken down, and its search planned; tests/cluster/test_slurm.py runs deploy/slurm.sh itself."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sbatch").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    (programs / "sbatch").chmod(0o755)
    command = f"PATH={programs}:$PATH bash examples/05_slurm.sh {demo_layout} {tmp_path / 'runs'}"
    words = call("bash", "-c", command, cwd=folder).splitlines()
    options = words[words.index("deploy/slurm.sh") + 1 :]
    with pytest.raises(SystemExit) as stop:
        cli.main(search, [*options, "--address", "127.0.0.1:6379", "--dry-run"])
    output = capsys.readouterr().out
    assert stop.value.code == 0, output
    assert "60 suggestions" in output
