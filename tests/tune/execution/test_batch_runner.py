from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from optuna.trial import TrialState
from rich.console import Console

from macil.config import TrialConfig
from macil.data.split import Split, make_split
from macil.data.store.feature_store import FeatureStore
from macil.io.files import write_json_atomic
from macil.training.checkpoint import load_checkpoint
from macil.training.member import Member
from macil.training.metrics import EpochMetrics
from macil.training.trainer import Trainer, trainer_from_record
from tests.support.studies import load_study
from tune.algorithms.space import Space
from tune.algorithms.stopping.asha import AshaSettings
from tune.algorithms.study import REASON, SearchStudy
from tune.execution.batch_runner import Batch, run_batch
from tune.execution.interrupts import Interrupts
from tune.execution.progress import Display
from tune.execution.tune_scheduler import StoppingScheduler
from tune.planning.run_spec import RunSpec
from tune.planning.space import search_space
from tune.results.ranking import choose_winner
from tune.results.run import load_run
from tune.storage.names import SCORES_FILE, TRAINER_FILE
from tune.storage.run_folder import Workspace

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("shared_ray")]

SMALL = TrialConfig(
    epochs=4, batch_size=24, hidden_dim=16, feedforward_dim=16, max_snippets=20, learning_rate=2e-3
)


def test_an_end_is_told_with_its_silent_epochs_where_all_were_seen() -> None:
    class Ended:
        trial_id = relative_logdir = "00000"

    def ending(first: int, *terms: float) -> str:
        text = io.StringIO()
        shown = Display(Console(file=text, width=200), {"trials": 1}, {"trials": 3})
        shown._kind = "trials"
        for epoch, term in enumerate(terms, start=first):
            line = {"training_iteration": epoch, "loss_v2b": term, "loss_v2n": term}
            shown.update(Ended(), "running", line)  # type: ignore[arg-type]
        shown.update(Ended(), "finished")  # type: ignore[arg-type]
        return text.getvalue()

    assert "contrastive terms exactly 0 in 2 of 3 epochs" in ending(1, 0.0, 0.0, 0.5)
    assert "contrastive" not in ending(1, 0.5, 0.5, 0.5)
    assert "contrastive" not in ending(2, 0.0, 0.0), "what was before a resume is not known"


@pytest.fixture
def run(tmp_path: Path, demo_store: FeatureStore) -> Workspace:
    workspace = Workspace(tmp_path / "run")
    workspace.path.mkdir()
    make_split(demo_store).save(workspace.split)
    return workspace


def spec(run: Workspace, store: FeatureStore, base: TrialConfig = SMALL) -> RunSpec:
    return RunSpec(
        protocol="heldout",
        device="cpu",
        threads=1,
        base=base,
        store=str(store.path),
        store_hash=store.content_hash,
        split=str(run.split),
        split_hash=Split.load(run.split).hash,
    )


def batch(spec: RunSpec, **own: Any) -> Batch:
    common = {
        "total": len(own.get("points", ())),
        "concurrent": 1,
        "cpus": 1.0,
        "gpus": 0.0,
        "timeout": 600.0,
    }
    return Batch(kind="trials", spec=spec, **{**common, **own})


def rows_batch(spec: RunSpec, rows: list[dict[str, Any]], concurrent: int = 1) -> Batch:
    points = [{"row": {"name": f"row{number}", "changes": row}, "seed": 0} for number, row in enumerate(rows)]
    return batch(spec, points=points, concurrent=concurrent)


def search_batch(run: Workspace, spec: RunSpec, space: Space, total: int) -> Batch:
    study = partial(SearchStudy, space, run.journal, seed=0, epochs=4, startup=3)
    return batch(
        spec, total=total, study=study, scheduler=partial(StoppingScheduler, AshaSettings(grace=2), 4)
    )


def execute(run: Workspace, batch: Batch, *, epochs: int = 4) -> str:
    text = io.StringIO()
    display = Display(
        Console(file=text, width=200),
        {"trials": batch.total, "refit": 1},
        {"trials": epochs, "refit": epochs},
    )
    run_batch(run, batch, display, Interrupts(lambda: None), debug=False)
    return text.getvalue()


def logged(run: Workspace, trial: str) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in (run.path / "trials" / trial / "result.json").read_text().splitlines()
    ]


def digits(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The metrics of each epoch, without wall times and what Tune adds."""
    names = [field.name for field in fields(EpochMetrics) if field.name != "seconds"]
    return [{name: row[name] for name in names} for row in rows]


def assert_saved_last(folder: Path, trainer: Trainer | Member) -> None:
    """The newest checkpoint of a trial's folder is the state of the trainer, or of one of its seeds."""
    newest = max(folder.glob("checkpoint_*"))
    state = load_checkpoint(newest / TRAINER_FILE)
    assert state["epoch"] == trainer.epoch
    for name, weights in trainer.network.state_dict().items():
        assert torch.equal(state["network"][name], weights)
    with np.load(newest / SCORES_FILE) as scores:
        assert set(scores) == set(trainer.test_scores)
        for name in scores:
            assert np.array_equal(scores[name], trainer.test_scores[name])


def test_a_reused_worker_gives_the_digits_of_a_fresh_trainer(
    run: Workspace, demo_store: FeatureStore
) -> None:
    changes: list[dict[str, Any]] = [{}, {"ramp": 3.0, "momentum": 0.8}, {"distill": False, "seed": 5}, {}]
    execute(run, rows_batch(spec(run, demo_store), changes))

    pids = set()
    for number, change in enumerate(changes):
        rows = logged(run, f"row{number}_seed0")
        pids |= {row["pid"] for row in rows}
        # The grid's seed is the trial's own, over the row's.
        trainer = Trainer(SMALL.replace(**{**change, "seed": 0}), demo_store, protocol="heldout", threads=1)
        history = [trainer.train_epoch() for _ in range(SMALL.epochs)]
        assert digits(rows) == digits(history)

        folder = run.path / "trials" / f"row{number}_seed0"
        assert json.loads((folder / "record.json").read_text()) == trainer.record()
        assert_saved_last(folder, trainer)
    assert len(pids) == 1, "one trial at a time should need one worker"


def test_a_diverged_trial_fails_with_its_reason_and_is_never_told_as_a_number(
    run: Workspace, demo_store: FeatureStore
) -> None:
    base = SMALL.replace(learning_rate=1.0)
    space: Space = {"ramp": search_space(TrialConfig())["ramp"]}
    output = execute(run, search_batch(run, spec(run, demo_store, base), space, 2))
    study = load_study(run.journal)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.FAIL]
    for number, trial in enumerate(study.trials):
        rows = logged(run, f"{number:05d}")
        assert rows[-1]["diverged"] is True
        assert rows[-1]["selection_score"] is None
        assert trial.user_attrs[REASON] == rows[-1]["reason"]
        assert (run.path / "trials" / f"{number:05d}" / "error.txt").read_text().strip() == rows[-1]["reason"]
        assert "diverged in epoch" in rows[-1]["reason"]
    assert output.count("failed after") == 2
    with pytest.raises(Exception, match="no trial has a result"):
        choose_winner(load_run(run.path))


@pytest.mark.parametrize(
    ("epochs", "saved_before"), [(20, False), pytest.param(160, True, marks=pytest.mark.nightly)]
)
def test_a_trial_whose_worker_is_killed_gives_the_same_digits(
    epochs: int, saved_before: bool, run: Workspace, demo_store: FeatureStore
) -> None:
    """Before its first checkpoint it begins anew; later it goes on from one that is some epochs old."""
    base = SMALL.replace(epochs=epochs)
    folder = run.path / "trials" / "row0_seed0"
    over = threading.Event()
    killed: list[int] = []

    def kill_the_worker() -> None:
        enough = None if saved_before else 5
        while not over.is_set() and not killed:
            log = folder / "result.json"
            lines = log.read_text().splitlines() if log.exists() else []
            if enough is None and list(folder.glob(f"checkpoint_*/{SCORES_FILE}")):
                enough = len(lines) + 3
            if enough is not None and len(lines) >= enough:
                killed.append(json.loads(lines[0])["pid"])
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.005)

    thread = threading.Thread(target=kill_the_worker)
    thread.start()
    output = execute(run, rows_batch(spec(run, demo_store, base), [{}]), epochs=epochs)
    over.set()
    thread.join()

    rows = logged(run, "row0_seed0")
    assert "trying again from its last checkpoint" in output
    assert [row["epoch"] for row in rows] == list(range(1, epochs + 1)), "every epoch once"
    assert rows[0]["pid"] == killed[0] != rows[-1]["pid"], "what was logged stays as it was"
    assert not (folder / "error.txt").exists()
    trainer = Trainer(base, demo_store, protocol="heldout", threads=1)
    history = [trainer.train_epoch() for _ in range(epochs)]
    assert digits(rows) == digits(history)
    assert_saved_last(folder, trainer)
    saves = int(max(folder.glob("checkpoint_*")).name.removeprefix("checkpoint_")) + 1
    assert saves < epochs / 4, "a save costs more than an epoch here"


def group_of(run: Workspace, store: FeatureStore, base: TrialConfig, seeds: list[int]) -> Batch:
    point = {"row": {"name": "row0", "changes": {"ramp": 0.3}}, "seeds": seeds}
    return batch(spec(run, store, base), points=[point])


@pytest.mark.nightly
def test_a_lockstep_group_has_a_row_for_each_seed_and_survives_its_worker(
    run: Workspace, demo_store: FeatureStore
) -> None:
    seeds, base = [3, 0], SMALL.replace(epochs=40)
    logs = [run.path / "trials" / f"row0_seed{seed}" / "result.json" for seed in seeds]
    over = threading.Event()
    killed: list[int] = []

    def kill_the_worker() -> None:
        while not over.is_set() and not killed:
            lines = logs[0].read_text().splitlines() if logs[0].exists() else []
            if len(lines) >= 6:
                killed.append(json.loads(lines[0])["pid"])
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.005)

    thread = threading.Thread(target=kill_the_worker)
    thread.start()
    output = execute(run, group_of(run, demo_store, base, seeds), epochs=40)
    over.set()
    thread.join()
    assert killed
    assert "trying again from its last checkpoint" in output

    group = Trainer(base.replace(ramp=0.3), demo_store, seeds=seeds, protocol="heldout", threads=1)
    while not group.finished:
        group.train_epoch()
    for member in group.members:
        seed, folder = member.seed, run.path / "trials" / f"row0_seed{member.seed}"
        assert digits(logged(run, folder.name)) == digits(member.history)
        assert_saved_last(folder, member)
        params = json.loads((folder / "params.json").read_text())
        assert (params["seed"], params["row"], params["ramp"]) == (seed, "row0", 0.3)
        # Its record runs the group again.
        record = json.loads((folder / "record.json").read_text())
        again = trainer_from_record(record, demo_store)
        assert digits([again.train_epoch()]) == digits(member.history[:1])

    write_json_atomic(run.path / "run.json", {"format_version": 1, "status": "finished", "trials": 2})
    results = load_run(run.path)
    assert results.trials["seed"].to_pylist() == [0, 3]
    assert results.trials["status"].to_pylist() == ["finished", "finished"]
    assert len(set(results.trials["trial_id"].to_pylist())) == 2
    assert not results.problems


def test_a_group_whose_every_seed_diverges_fails_with_their_reasons(
    run: Workspace, demo_store: FeatureStore
) -> None:
    output = execute(run, group_of(run, demo_store, SMALL.replace(learning_rate=1.0), [3, 0]))
    for seed in (3, 0):
        rows = logged(run, f"row0_seed{seed}")
        assert rows[-1]["diverged"] is True
        error = (run.path / "trials" / f"row0_seed{seed}" / "error.txt").read_text()
        assert error.strip() == rows[-1]["reason"]
        assert "diverged in epoch" in error
    assert "every seed has diverged" in output


def test_a_trial_that_asha_stops_has_the_checkpoint_of_its_last_epoch(
    run: Workspace, demo_store: FeatureStore
) -> None:
    """The report needs its scores; no worker knows beforehand that this is the last."""
    space = search_space(SMALL, fixed=["hidden_dim"])
    execute(run, search_batch(run, spec(run, demo_store), space, 6))
    ends = []
    for trial in load_study(run.journal).trials:
        rows = logged(run, f"{trial.number:05d}")
        assert rows[-1]["done"] is True
        ends.append(rows[-1]["epoch"])
        trainer = Trainer(SMALL.replace(**trial.params), demo_store, protocol="heldout", threads=1)
        assert digits(rows) == digits([trainer.train_epoch() for _ in rows])
        assert_saved_last(run.path / "trials" / f"{trial.number:05d}", trainer)
    assert len(ends) == 6
    assert min(ends) < 4 == max(ends), "the example should show both"


def test_rows_of_a_sweep_may_be_stopped_by_asha(run: Workspace, demo_store: FeatureStore) -> None:
    """Each row is begun once, in order; the rungs follow from what was logged."""
    rates = [2e-3, 1e-5, 4e-3, 1e-6]
    listed = rows_batch(spec(run, demo_store), [{"learning_rate": rate} for rate in rates])
    execute(run, replace(listed, scheduler=partial(StoppingScheduler, AshaSettings(grace=1), 4)))
    rung: list[float] = []
    ends = []
    for number in range(len(rates)):
        rows = logged(run, f"row{number}_seed0")
        assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
        at_rung = rows[0]["selection_score"]
        stopped = bool(rung) and at_rung < np.percentile(rung, 100 * 2 / 3)
        rung.append(at_rung)
        ends.append(len(rows))
        assert (len(rows) < 4) >= stopped, "whoever falls behind at the first rung goes no further"
        assert not stopped or len(rows) == 1
        assert rows[-1]["done"] is True
    assert min(ends) < 4 == max(ends), "the example should show both"


def test_an_exception_of_the_trial_is_retried_once_and_then_kept(
    run: Workspace, demo_store: FeatureStore
) -> None:
    broken = spec(run, demo_store).model_copy(update={"store": str(run.path / "nowhere")})
    output = execute(run, rows_batch(broken, [{}]))
    error = (run.path / "trials" / "row0_seed0" / "error.txt").read_text()
    assert error.count("Failure #") == 2
    assert "nowhere" in output
    assert output.count("trying again") == 1
    assert "failed after 0/4 epochs" in output
