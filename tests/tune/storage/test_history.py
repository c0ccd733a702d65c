from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from macil.config import TrialConfig
from macil.data.store.feature_store import FeatureStore
from macil.training.checkpoint import save_checkpoint
from macil.training.files import checkpoint_folders
from macil.training.trainer import Trainer
from tune.storage.checkpoints import KEPT, highest_number, last_good, prune, put
from tune.storage.history import read_history, read_listed, read_numbered
from tune.storage.names import LOG_FILE, SCORES_FILE, TRAINER_FILE
from tune.storage.trial_log import trim_log

TINY = TrialConfig(
    epochs=4, batch_size=24, hidden_dim=16, feedforward_dim=16, max_snippets=20, learning_rate=2e-3
)


def line(epoch: int, score: float | None = 0.5, **more: Any) -> str:
    return json.dumps({"training_iteration": epoch, "selection_score": score, "done": False, **more}) + "\n"


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LOG_FILE).write_text(text)
    return folder


@pytest.fixture(scope="module")
def trained(demo_store: FeatureStore) -> Trainer:
    trainer = Trainer(TINY, demo_store, protocol="heldout", threads=1)
    trainer.train_epoch()
    trainer.train_epoch()
    return trainer


def checkpoint(folder: Path, number: int, trainer: Trainer) -> Path:
    target = folder / f"checkpoint_{number:06d}"
    target.mkdir(parents=True)
    save_checkpoint(trainer, target / TRAINER_FILE)
    np.savez(target / SCORES_FILE, allow_pickle=False, **trainer.test_scores)
    return target


@pytest.mark.parametrize(
    ("text", "epochs"),
    [
        ("", 0),
        (line(1) + line(2), 2),
        (line(1) + line(2) + '{"training_iter', 2),
        (line(1) + line(2) + line(4), 2),
        (line(2), 0),
        (line(1) + "not json\n" + line(2), 2),
        (line(1) + "[1, 2]\n" + line(2), 2),
    ],
)
def test_epochs_count_up_to_the_first_gap(tmp_path: Path, text: str, epochs: int) -> None:
    write(tmp_path / "00000", text)
    assert read_history(tmp_path, "00000").epochs == epochs
    trim_log(tmp_path / "00000" / LOG_FILE, epochs)
    kept = (tmp_path / "00000" / LOG_FILE).read_text()
    assert [json.loads(each)["training_iteration"] for each in kept.splitlines()] == [*range(1, epochs + 1)]
    assert kept == "" or kept.endswith("\n")


def test_a_trial_has_ended_when_its_last_epoch_is_saved(tmp_path: Path, trained: Trainer) -> None:
    folder = write(tmp_path / "00000", line(1) + line(2, done=True))
    assert not read_history(tmp_path, "00000").ended
    saved = checkpoint(folder, 0, trained)
    assert read_history(tmp_path, "00000").ended
    (saved / SCORES_FILE).write_bytes(b"PK half")
    assert not read_history(tmp_path, "00000").ended
    write(folder, line(1) + line(2) + line(3, done=True))
    assert not read_history(tmp_path, "00000").saved, "the checkpoint is of the epoch before"


def test_a_diverged_trial_has_ended_without_a_checkpoint(tmp_path: Path) -> None:
    write(tmp_path / "00000", line(1) + line(2, None, diverged=True, done=True, reason="NaN"))
    history = read_history(tmp_path, "00000")
    assert history.ended
    assert history.reason == "NaN"
    assert history.scores == {1: 0.5, 2: None}


def test_pasts_by_number_and_of_a_list(tmp_path: Path) -> None:
    for name in ("00000", "00002", "lockstep_x", "row_seed0"):
        write(tmp_path / name, line(1))
    assert sorted(read_numbered(tmp_path)) == [0, 2]
    assert read_numbered(tmp_path / "nowhere") == {}
    points: list[dict[str, Any]] = [{"row": {"name": "row"}, "seed": 0}, {"row": {"name": "row"}, "seed": 1}]
    assert [history.epochs for history in read_listed(tmp_path, points)] == [1, 0]


def test_a_group_is_as_far_as_its_last_seed_that_goes_on(tmp_path: Path) -> None:
    point = {"row": {"name": "row"}, "seeds": [0, 1, 2]}
    write(tmp_path / "row_seed0", line(1, 0.25) + line(2, 0.5) + line(3))
    write(tmp_path / "row_seed1", line(1, 0.75) + line(2, 1.0))
    write(tmp_path / "row_seed2", line(1, None, diverged=True, done=True))
    (history,) = read_listed(tmp_path, [point])
    assert (history.name, history.epochs) == ("lockstep_row_seeds0-1-2", 2)
    assert not history.done
    assert not history.diverged
    assert history.scores == {1: 0.5, 2: 0.75}, "the mean of those that have one"


def test_the_last_good_checkpoint_is_used_and_a_damaged_one_put_aside(
    tmp_path: Path, trained: Trainer
) -> None:
    messages: list[str] = []
    assert last_good(tmp_path, messages.append) is None
    assert messages == []
    first, second = (checkpoint(tmp_path, number, trained) for number in (9, 10))
    state = last_good(tmp_path, messages.append)
    assert state is not None
    assert state["epoch"] == 2
    assert messages == ["went on from checkpoint_000010, epoch 2"]
    weights = second / TRAINER_FILE
    weights.write_bytes(weights.read_bytes()[:-100])
    messages.clear()
    assert last_good(tmp_path, messages.append) is not None
    assert f"{weights} cannot be read" in messages[0]
    assert "went on from checkpoint_000009" in messages[0]
    assert highest_number(path.name for path in tmp_path.iterdir()) == 10, (
        "a later one must not take its name"
    )
    (first / TRAINER_FILE).unlink()
    messages.clear()
    assert last_good(tmp_path, messages.append) is None
    assert "trained again from its first epoch" in messages[0]
    assert checkpoint_folders(tmp_path) == []


def test_a_checkpoint_is_there_as_a_whole_or_not_at_all(tmp_path: Path, trained: Trainer) -> None:
    source = checkpoint(tmp_path / "scratch", 0, trained)
    target = tmp_path / "trial" / "checkpoint_000003"
    put(source, target)
    assert sorted(path.name for path in target.iterdir()) == [SCORES_FILE, TRAINER_FILE]
    with zipfile.ZipFile(target / SCORES_FILE) as archive:
        assert archive.testzip() is None
    (source / "unreadable").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OSError, match="unreadable"):
        put(source, tmp_path / "trial" / "checkpoint_000004")
    assert [path.name for path in (tmp_path / "trial").iterdir()] == ["checkpoint_000003"]


def test_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"checkpoint_{number:06d}").mkdir()
    (tmp_path / "damaged_checkpoint_000000").mkdir()
    prune(tmp_path)
    assert KEPT == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint_000002",
        "checkpoint_000003",
        "damaged_checkpoint_000000",
    ]
