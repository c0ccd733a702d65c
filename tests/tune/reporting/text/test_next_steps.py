"""What a run says to do next: what works for it, and nothing else."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from macil.__main__ import app
from macil.commands.cli import main
from macil.data import FeatureStore
from macil.io.files import read_json, write_json_atomic
from tests.support.run_folders import RunFolder
from tune.reporting.text.next_steps import next_steps
from tune.results.next_commands import resume_command
from tune.results.run import RunResults, load_run
from tune.storage.location import RunLocation

CONFIRM, NOISE = "search again, and confirm the best on fresh seeds", "measure the noise between seeds"
SCORE, EXPORT = "score a video", "export the model"


@pytest.fixture(autouse=True)
def _no_browser(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a server: nothing would show a page. What is written goes to an empty folder."""
    monkeypatch.setattr("webbrowser._tryorder", [])
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def original(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of one trial whose checkpoint is the model; read only."""
    run = RunFolder(tmp_path_factory.mktemp("runs of #1") / "first", demo_store).begin(
        trials=1, given={"--data": str(demo_store.path), "--asha": False, "--trials": 1}
    )
    run.add("00000", epochs=1)
    shutil.copy(run.path / "trials/00000/checkpoint_000000/trainer.pt", run.path / "model.pt")
    return run.path


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(original, tmp_path / original.parent.name / "first"))


def change(run: Path, **fields: Any) -> RunResults:
    write_json_atomic(run / "run.json", {**read_json(run / "run.json"), **fields})
    return load_run(run)


def steps(results: RunResults) -> dict[str, list[str]]:
    """What for -> the words of its command."""
    return {what: shlex.split(command) for what, command in next_steps(results, Path("report.html"))}


def carry_out(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(app, words[words.index("macil") + 1 :])
    assert not stop.value.code


def test_a_search_on_a_data_folder_scores_one_of_its_files_and_exports(run: Path, demo_layout: Path) -> None:
    commands = steps(change(run, options={"data": str(demo_layout)}))
    assert list(commands) == [SCORE, EXPORT, CONFIRM]
    (file,) = [word for word in commands[SCORE] if word.endswith("__0.npy")]
    assert Path(file).parent == demo_layout / "RGBTest"
    carry_out(commands[SCORE])
    carry_out(commands[EXPORT])
    again = steps(load_run(run))
    assert again[SCORE][-1] == "first-scores-2", "what is there is not in the way"
    assert again[EXPORT][-1] == "first-model-2.safetensors"


def test_what_cannot_be_done_with_a_run_is_not_said(run: Path) -> None:
    (run / "model.pt").unlink()
    assert list(steps(load_run(run))) == [CONFIRM]
    write_json_atomic(
        run / "plan.json", {**read_json(run / "plan.json"), "confirm": {"configurations": 1, "seeds": [1000]}}
    )
    assert steps(load_run(run)) == {}
    assert steps(change(run, given=None)) == {}


def test_data_out_of_reach_leave_what_is_to_be_filled_in(run: Path) -> None:
    commands = steps(change(run, data="s3://bucket/xd.store", options={"data": "s3://bucket/xd.store"}))
    assert commands["score a video of your own"][-4:-2] == ["VISUAL.npy", "AUDIO.npy"]


def test_the_search_is_begun_again_as_it_was_under_a_name_that_is_free(run: Path) -> None:
    (run.parent / "first-confirmed").mkdir()
    words = steps(load_run(run))[CONFIRM]
    assert "--no-asha" in words
    assert words[words.index("--confirm") + 1] == "1", "of one trial no three can be confirmed"
    assert words[words.index("--name") + 1] == "first-confirmed-2"
    assert words[-2:] == ["--storage", str(run.parent)]


def test_a_run_of_a_cluster_names_it(run: Path) -> None:
    words = steps(change(run, address="auto"))[CONFIRM]
    assert words[-3:] == ["--address", "auto", "--shared-storage"]
    location = RunLocation(run, "s3://bucket/runs/first?region=x&scheme=http")
    words = steps(replace(load_run(run), found_at=location))[CONFIRM]
    assert words[-4:] == ["--storage", "s3://bucket/runs?region=x&scheme=http", "--address", "auto"]
    assert shlex.split(resume_command(location.shown, "auto"))[-6:] == ["--resume", "first", *words[-4:]]


def test_a_sweep_scores_with_its_reported_training_and_asks_for_more_seeds(run: Path) -> None:
    (run / "model.pt").unlink()
    params = run / "trials/00000/params.json"
    write_json_atomic(params, {**read_json(params), "row": "full"})
    rows = [{"name": "full", "changes": {}}]
    write_json_atomic(run / "plan.json", {**read_json(run / "plan.json"), "sweep": "table3", "rows": rows})
    results = change(run, sweep="table3", given={"--sweep": "table3"})
    commands = steps(results)
    assert list(commands) == [SCORE, EXPORT, NOISE]
    assert str(run / "trials/00000") in commands[SCORE]
    again = commands[NOISE][commands[NOISE].index("--sweep") :]
    assert again[:4] == ["--sweep", "table3", "--seeds", "3"], "as many as the page says are needed"
    assert commands[NOISE] == steps(change(run, given={"--sweep": "table3", "--asha": True}))[NOISE], (
        "seeds that were let finish are no measure of noise"
    )
    carry_out(commands[EXPORT])
    assert list(steps(change(run, seeds=[0, 1, 2]))) == [SCORE, EXPORT]
    assert list(steps(change(run, seeds=[0], given={"--sweep": "gone.toml"}))) == [SCORE, EXPORT]
