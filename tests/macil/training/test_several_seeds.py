"""A trainer of several seeds: measured, stopped, resumed and replayed."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from macil.data.store.feature_store import FeatureStore
from macil.errors import DataError, DivergedError, UsageError
from macil.training.checkpoint import load_checkpoint, load_network, save_checkpoint
from macil.training.trainer import Trainer, trainer_from_record
from tests.macil.training.test_trainer import SMALL, digits, train

SEEDS = [3, 0, 8]


def group(store: FeatureStore, **options: Any) -> Trainer:
    return Trainer(SMALL, store, **{"seeds": SEEDS, "protocol": "heldout", "threads": 1, **options})


@pytest.fixture(scope="module")
def whole(demo_store: FeatureStore) -> Trainer:
    return train(group(demo_store))


def test_every_seed_has_the_metrics_it_has_alone(demo_store: FeatureStore) -> None:
    together = train(group(demo_store, protocol="published", precision="fp64"))
    assert len(together.members) == len(SEEDS)
    for member in together.members:
        alone = train(Trainer(member.config, demo_store, precision="fp64", threads=1))
        assert member.chosen_epoch == alone.chosen_epoch
        for ours, expected in zip(digits(member.history), digits(alone.history), strict=True):
            assert ours.keys() == expected.keys()
            for name, value in ours.items():
                if value is None or expected[name] is None:
                    assert value is expected[name], name
                else:  # test scores are kept in float32: where two tie or swap, an AP moves a little
                    assert value == pytest.approx(
                        expected[name], rel=1e-9, abs=1e-6 if "ap" in name else 1e-9
                    )
        np.testing.assert_allclose(member.test_scores["last"], alone.test_scores["last"], atol=1e-6)


def test_what_is_one_seeds_is_the_first_ones(whole: Trainer) -> None:
    first = whole.members[0]
    assert (first.seed, whole.config, whole.epoch) == (SEEDS[0], first.config, SMALL.epochs)
    assert whole.history is first.history
    assert whole.test_scores is first.test_scores
    assert whole.chosen_epoch == first.chosen_epoch
    assert whole.network is first.network
    assert whole.visual_network is first.visual_network
    assert whole.record() == whole.record(first)
    assert [whole.record(member)["config"]["seed"] for member in whole.members] == SEEDS


def test_several_seeds_resume_to_the_same_digits(
    whole: Trainer, demo_store: FeatureStore, tmp_path: Path
) -> None:
    save_checkpoint(train(group(demo_store), 1), tmp_path / "last.pt")
    resumed = group(demo_store)
    resumed.load_state_dict(load_checkpoint(tmp_path / "last.pt"))
    assert resumed.epoch == 1
    train(resumed)
    for one, other in zip(resumed.members, whole.members, strict=True):
        assert digits(one.history) == digits(other.history)
        np.testing.assert_array_equal(one.test_scores["last"], other.test_scores["last"])


def test_replaying_one_seed_takes_the_others_along_and_gives_the_same_digits(
    whole: Trainer, demo_store: FeatureStore, tmp_path: Path
) -> None:
    member = whole.members[1]
    record = json.loads(json.dumps(whole.record(member)))
    assert record["lockstep"] == SEEDS
    again = trainer_from_record(record, demo_store)
    assert [one.seed for one in again.members] == [member.seed]
    assert digits([again.train_epoch()]) == digits(member.history[:1])
    save_checkpoint(again, tmp_path / "last.pt")
    assert load_network(tmp_path / "last.pt").config.seed == member.seed
    resumed = trainer_from_record(record, demo_store)
    resumed.load_state_dict(load_checkpoint(tmp_path / "last.pt"))
    assert digits(train(resumed).history) == digits(member.history)


def test_one_of_several_seeds_cannot_go_on_alone(whole: Trainer, demo_store: FeatureStore) -> None:
    member = whole.members[0]
    state = whole.state_of(member)
    with pytest.raises(DataError, match="resume the whole group"):
        trainer_from_record(state["record"], demo_store).load_state_dict(state)
    with pytest.raises(DataError, match="lockstep"):
        Trainer(member.config, demo_store, protocol="heldout", threads=1).load_state_dict(state)
    with pytest.raises(DataError, match=r"holds the seeds \[3, 0, 8\], this training has \[3\]"):
        Trainer(member.config, demo_store, protocol="heldout", threads=1).load_state_dict(whole.state_dict())
    with pytest.raises(DataError, match=r"holds the seeds \[3\], this training has \[3, 0, 8\]"):
        group(demo_store).load_state_dict(state)


@pytest.mark.parametrize("slot", [0, 1])
def test_a_diverged_seed_leaves_the_others_alone(slot: int, whole: Trainer, demo_store: FeatureStore) -> None:
    broken = group(demo_store)
    broken.train_epoch()
    with torch.no_grad():
        broken.members[slot].network.get_parameter("fc_v.weight").fill_(torch.nan)
    with pytest.raises(DivergedError, match="epoch 2") if slot == 0 else contextlib.nullcontext():
        assert broken.train_epoch()["epoch"] == 2
    assert "epoch 2" in str(broken.members[slot].error)
    assert not broken.finished
    resumed = group(demo_store)
    resumed.load_state_dict(broken.state_dict())
    while not resumed.finished:
        with pytest.raises(DivergedError, match="epoch 2") if slot == 0 else contextlib.nullcontext():
            resumed.train_epoch()
    for ours, expected in zip(resumed.members, whole.members, strict=True):
        epochs = 1 if ours.seed == SEEDS[slot] else SMALL.epochs
        assert digits(ours.history) == digits(expected.history)[:epochs]
        assert (ours.error is None) == (epochs == SMALL.epochs)


def test_a_training_whose_every_seed_has_diverged_is_finished(demo_store: FeatureStore) -> None:
    broken = group(demo_store)
    with torch.no_grad():
        for member in broken.members:
            member.network.get_parameter("fc_v.weight").fill_(torch.nan)
    with pytest.raises(DivergedError, match="epoch 1"):
        broken.train_epoch()
    assert broken.finished
    with pytest.raises(UsageError, match="every seed of this training has diverged"):
        broken.train_epoch()


def test_seeds_that_cannot_be_are_refused(whole: Trainer, demo_store: FeatureStore) -> None:
    seeds: list[int]
    for seeds in ([], [1, 1]):
        with pytest.raises(UsageError, match="different seeds"):
            Trainer(SMALL, demo_store, seeds=seeds)
    with pytest.raises(UsageError, match="not among"):
        Trainer(SMALL, demo_store, lockstep=[5, 6])
    other = group(demo_store, seeds=[1, 2])
    with pytest.raises(DataError, match=r"this training has \[1, 2\]"):
        other.load_state_dict(whole.state_dict())
