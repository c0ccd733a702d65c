"""Where a trial's worker writes: the same promises in a folder and in a bucket."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from macil.config import TrialConfig
from macil.data.store.feature_store import FeatureStore
from macil.io.remote import Remote
from macil.training.checkpoint import save_checkpoint
from macil.training.trainer import Trainer
from tune.storage.checkpoints import KEPT
from tune.storage.names import SCORES_FILE, TRAINER_FILE
from tune.storage.trial_storage import BucketStorage, FolderStorage, TrialStorage


@pytest.fixture(scope="module")
def trainer(demo_store: FeatureStore) -> Trainer:
    config = TrialConfig(hidden_dim=16, feedforward_dim=16, batch_size=24, max_snippets=20, epochs=5)
    return Trainer(config, demo_store)


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> TrialStorage:
    if request.param == "folder":
        return FolderStorage(tmp_path / "run/trials/00001")
    return BucketStorage(Remote(request.getfixturevalue("bucket")).child("run", "trials", "00001"))


def files(storage: TrialStorage) -> dict[str, bytes]:
    """Every file in a storage, by name."""
    if isinstance(storage, BucketStorage):
        remote = Remote(str(storage))
        return {name: remote.read(name) for name in remote.files()}
    folder = Path(str(storage))
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }


def damage(storage: TrialStorage, name: str) -> None:
    if isinstance(storage, BucketStorage):
        Remote(str(storage)).write(name, b"damaged")
    else:
        (Path(str(storage)) / name).write_bytes(b"damaged")


@pytest.fixture
def checkpoint(trainer: Trainer, tmp_path: Path) -> Path:
    """A checkpoint of the next epoch, on this worker's disk."""
    trainer.train_epoch() if not trainer.finished else None
    folder = tmp_path / "scratch"
    folder.mkdir()
    save_checkpoint(trainer, folder / TRAINER_FILE)
    (folder / SCORES_FILE).write_bytes(b"scores")
    return folder


def test_an_empty_storage_has_nothing_to_go_on_from(storage: TrialStorage) -> None:
    messages: list[str] = []
    assert storage.last_good(messages.append) is None
    assert storage.newest_number() == -1
    assert messages == []


def test_the_newest_checkpoint_is_gone_on_from_and_older_ones_are_removed(
    storage: TrialStorage, checkpoint: Path, trainer: Trainer
) -> None:
    for number in range(4):
        storage.put(checkpoint, f"checkpoint_{number:06d}")
    assert storage.newest_number() == 3
    folders = {name.partition("/")[0] for name in files(storage)}
    assert folders == {f"checkpoint_{number:06d}" for number in range(4)[-KEPT:]}
    messages: list[str] = []
    state = storage.last_good(messages.append)
    assert state is not None
    assert state["epoch"] == trainer.epoch
    assert messages == [f"went on from checkpoint_000003, epoch {trainer.epoch}"]


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_used(
    storage: TrialStorage, checkpoint: Path
) -> None:
    for number in (9, 10):
        storage.put(checkpoint, f"checkpoint_{number:06d}")
    damage(storage, f"checkpoint_000010/{TRAINER_FILE}")
    messages: list[str] = []
    assert storage.last_good(messages.append) is not None
    assert "checkpoint_000010" in messages[0]
    assert "went on from checkpoint_000009" in messages[0]
    assert storage.newest_number() == 10, "a later one must not take its name"
    assert files(storage)[f"damaged_checkpoint_000010/{TRAINER_FILE}"] == b"damaged"
    assert not any(name.startswith("checkpoint_000010/") for name in files(storage))
    damage(storage, f"checkpoint_000009/{TRAINER_FILE}")
    assert storage.last_good(messages.append) is None
    assert "trained again from its first epoch" in messages[-1]


def test_a_checkpoint_without_its_weights_is_none(storage: TrialStorage, checkpoint: Path) -> None:
    """They are put last: a worker that was killed before leaves the rest."""
    storage.put(checkpoint, "checkpoint_000000")
    if isinstance(storage, BucketStorage):
        Remote(str(storage)).write(f"checkpoint_000001/{SCORES_FILE}", b"scores")
        assert storage.last_good(lambda _: None) is not None
        assert storage.newest_number() == 1


def test_a_group_puts_each_seed_over_what_it_had(storage: TrialStorage, checkpoint: Path) -> None:
    other = storage.sibling("10_seed1")
    other.put_over(checkpoint, "checkpoint_000000")
    (checkpoint / SCORES_FILE).write_bytes(b"later")
    other.put_over(checkpoint, "checkpoint_000000")
    found = files(other)
    assert found[f"checkpoint_000000/{SCORES_FILE}"] == b"later"
    assert f"checkpoint_000000/{TRAINER_FILE}" in found
    assert other.name == "10_seed1"
    assert files(storage) == {}


def test_small_files_are_whole_json(storage: TrialStorage) -> None:
    storage.write_json("record.json", {"a": 1})
    storage.write_json("record.json", {"a": 2})
    assert {name: json.loads(content) for name, content in files(storage).items()} == {
        "record.json": {"a": 2}
    }
