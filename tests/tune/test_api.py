"""Searches and sweeps from Python: the command line's options, its run and its refusals."""

from __future__ import annotations

import inspect
import logging
import os
import pkgutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch

import tune
from macil.config import TrialConfig
from macil.data.store.feature_store import FeatureStore
from macil.errors import ConfigError, DataError, MacilError, UsageError
from macil.inference.loading import load_trained
from macil.io.remote import Remote, send
from tests.support.repository import ROOT
from tests.support.run_folders import RunFolder
from tune import load_run, run_search, run_sweep
from tune.commands.search import search
from tune.execution.interrupts import Interrupted, Interrupts

SMALL: dict[str, Any] = {"hidden_dim": 16, "feedforward_dim": 16, "batch_size": 24, "max_snippets": 20}
SMALL |= {"cpus_per_trial": 1, "quiet": True, "report": False}
# Options of the command that look at a run, or at a plan, and run nothing; --no-report is `report`.
NO_RUN = {"status", "replay", "print_space", "dry_run", "help", "help_all"}


def rays_environment() -> dict[str, str]:
    return {name: each for name, each in os.environ.items() if name.startswith(("RAY", "TUNE", "PYTHONPATH"))}


def test_importing_the_package_loads_nothing_that_takes_long() -> None:
    script = "import sys, tune; print(sorted({'torch', 'ray', 'optuna', 'pyarrow', 'pydantic'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_public_names_are_functions_and_types_that_say_what_they_do_and_no_modules() -> None:
    modules = {each.name for each in pkgutil.iter_modules(tune.__path__)}
    assert not modules & set(tune.__all__)
    assert set(tune.__all__) <= set(dir(tune))
    assert [name for name in tune.__all__ if not inspect.getdoc(getattr(tune, name))] == []
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        tune.nothing  # type: ignore[attr-defined]  # noqa: B018 (it is what raises)


def test_the_keywords_are_the_options_of_the_command() -> None:
    options = {str(parameter.name).removesuffix("_file") for parameter in search.params} - NO_RUN
    keywords = set(inspect.signature(run_search).parameters)
    assert keywords == options - {"asha", "no_report", "sweep"} | {"report", "quiet"}
    of_a_sweep = set(inspect.signature(run_sweep).parameters)
    assert {"data", "sweep", "seeds", "epochs", "name"} <= of_a_sweep
    assert not {"trials", "confirm", "space"} & of_a_sweep


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"trails": 3}, UsageError, "there is no option 'trails'; did you mean 'trials'?"),
        ({"base": TrialConfig()}, UsageError, "there is no option 'base'"),
        ({"trials": "3"}, UsageError, "--trials '3' is not allowed"),
        ({"trials": 0}, UsageError, "--trials 0 is not allowed"),
        ({"storage": 3}, UsageError, "--storage 3 is not allowed"),
        ({"preset": "heavy"}, UsageError, "--preset heavy is not known; expected two-stream"),
        ({"preset": "full", "config": TrialConfig()}, UsageError, "--preset and --config both"),
        ({"hidden_dim": 6}, ConfigError, "not divisible by num_heads = 4"),
        ({"sweep": "table4"}, UsageError, "run_sweep"),
        ({"address": "auto"}, UsageError, "add --shared-storage"),
        ({"resume": "nothing"}, UsageError, "there is no run of that name"),
        ({"space": "nowhere.toml"}, UsageError, "nowhere.toml does not exist"),
        ({"search": {"ramp": "0..1:log"}}, UsageError, "--search ramp=0..1:log"),
    ],
)
def test_what_cannot_be_is_refused_by_the_types_of_the_package(
    options: dict[str, Any],
    error: type[MacilError],
    message: str,
    demo_store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as refused:
        run_search(demo_store, **{"gpus_per_trial": 1000, **options})  # should it slip through, nothing runs
    assert message in str(refused.value)
    assert not (tmp_path / "runs").exists(), "nothing is left behind"


def test_data_and_options_of_a_search_that_a_sweep_cannot_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        run_search(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="--trials belongs to a search"):
        run_sweep(None, "table3", trials=3)


def test_a_run_is_refused_where_ctrl_c_would_not_be_heard(demo_store: FeatureStore, tmp_path: Path) -> None:
    refused: list[str] = []

    def call() -> None:
        try:
            run_search(demo_store, storage=str(tmp_path), trials=1)
        except UsageError as error:
            refused.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert len(refused) == 1
    assert "main thread alone" in refused[0]
    assert list(tmp_path.iterdir()) == []


def test_a_second_ctrl_c_ends_the_run_and_not_a_process_that_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said: list[str] = []
    interrupts = Interrupts(lambda: said.append("last words"), own_process=False)
    interrupts.tuning = True
    interrupts._handle(signal.SIGINT, None)  # saves, and says so
    interrupts.tuning = False  # nothing to give up on any more
    with pytest.raises(Interrupted) as stop:
        interrupts._handle(signal.SIGINT, None)
    assert (stop.value.exit_code, said) == (130, ["last words"])
    assert "stopping: saving the run" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_a_search_gives_its_tables_and_a_winner_whose_network_is_the_runs_model(
    demo_store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    before = rays_environment(), logging.getLogger("ray").level
    found = run_search(
        demo_store,
        name="first",
        storage=tmp_path,
        trials=2,
        epochs=1,
        search={"learning_rate": "1e-4..1e-3:log"},
        **SMALL,
    )
    assert capsys.readouterr().out == ""
    assert ray.is_initialized(), "a Ray that was there is left running"
    assert (rays_environment(), logging.getLogger("ray").level) == before
    assert found.path == tmp_path / "first"
    assert sorted(found.trials["kind"].to_pylist()) == ["refit", "search", "search"]
    frame = found.epochs.to_pandas()
    assert set(frame["epoch"]) == {1}
    winner = found.winner
    assert winner is not None
    assert winner.name in {"00000", "00001"}
    assert winner.config.hidden_dim == 16
    assert 1e-4 <= winner.config.learning_rate <= 1e-3
    assert winner.epochs == 1
    network, model = winner.load(), load_trained(found.path / "model.pt").network
    assert network.config == winner.refit_config
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(value, model.state_dict()[name])
    assert not network.training
    assert torch.is_tensor(network.fc_v.weight)

    again = run_search(demo_store, resume="first", storage=tmp_path, quiet=True, report=False)
    assert again.trials == found.trials
    with pytest.raises(UsageError, match="--search-seed 3 cannot be changed by --resume"):
        run_search(demo_store, resume="first", storage=tmp_path, search_seed=3)


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_a_sweep_of_a_file_gives_a_row_a_training_and_no_winner(
    demo_store: FeatureStore, tmp_path: Path
) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        "".join(
            f'[[rows]]\nname = "{name}"\nchanges = {{ hidden_dim = {width} }}\n'
            for name, width in (("a", 8), ("b", 16))
        )
    )
    small = {name: value for name, value in SMALL.items() if name != "hidden_dim"}
    found = run_sweep(demo_store, own, name="rows", storage=tmp_path, epochs=1, **small)
    assert found.winner is None
    assert sorted(found.trials["row"].to_pylist()) == ["a", "b"]
    assert found.protocol == "published"


@pytest.mark.nightly
@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_ctrl_c_saves_the_run_and_is_raised_and_the_run_goes_on(
    demo_store: FeatureStore, tmp_path: Path
) -> None:
    import ray

    log = tmp_path / "stopped" / "trials" / "00000" / "result.json"

    def press() -> None:
        while not log.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    presser = threading.Thread(target=press, daemon=True)
    presser.start()
    options: dict[str, Any] = {"storage": tmp_path, "trials": 1, "epochs": 60, **SMALL}
    with pytest.raises(KeyboardInterrupt):
        run_search(demo_store, name="stopped", **options)
    presser.join()
    assert signal.getsignal(signal.SIGINT) is before
    assert ray.is_initialized()
    assert load_run("stopped", tmp_path).status == "interrupted"
    resumed = run_search(demo_store, resume="stopped", **options)
    assert resumed.status == "finished"
    assert resumed.winner is not None
    assert resumed.epochs.filter(pc.field("kind") == "search").num_rows == 60


def test_the_winners_network_is_fetched_from_a_bucket(
    demo_store: FeatureStore, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MACIL_CACHE", str(tmp_path / "cache"))
    run = RunFolder(tmp_path / "runs" / "first", demo_store).begin(
        trials=1, winner={"trial": "00000", "chosen_epoch": 2}
    )
    trainer = run.add("00000")
    trainer.save(run.path / "model.pt")
    names = [path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()]
    send(run.path, Remote(f"{bucket}/runs/first"), names)
    found = load_run(f"{bucket}/runs/first")
    assert not (found.path / "model.pt").exists()
    assert found.winner is not None
    network = found.winner.load()
    assert network.config == trainer.config
    np.testing.assert_array_equal(network.fc_v.weight.detach(), trainer.network.fc_v.weight.detach())
