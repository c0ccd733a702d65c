"""A group of seeds: measured, stopped, resumed and replayed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from macil.config import TrialConfig
from macil.data.store import FeatureStore
from macil.errors import DataError, DivergedError, UsageError
from macil.lockstep import Lockstep
from macil.training import Trainer, trainer_from_record
from tests.test_training import SMALL, digits

SEEDS = [3, 0, 8]


def group(store: FeatureStore, config: TrialConfig = SMALL, **options: Any) -> Lockstep:
    return Lockstep(config, SEEDS, store, **{"protocol": "heldout", "threads": 1, **options})


def train(lockstep: Lockstep, epochs: int | None = None) -> Lockstep:
    while not lockstep.finished and (epochs is None or lockstep.epoch < epochs):
        lockstep.train_epoch()
    return lockstep


@pytest.fixture(scope="module")
def whole(demo_store: FeatureStore) -> Lockstep:
    return train(group(demo_store))


def test_every_seed_has_the_metrics_it_has_alone(demo_store: FeatureStore) -> None:
    together = train(group(demo_store, protocol="published", precision="fp64"))
    for trainer in together.trainers:
        alone = Trainer(trainer.config, demo_store, precision="fp64", threads=1)
        while not alone.finished:
            alone.train_epoch()
        assert trainer.chosen_epoch == alone.chosen_epoch
        for ours, expected in zip(digits(trainer.history), digits(alone.history), strict=True):
            assert ours.keys() == expected.keys()
            for name, value in ours.items():
                if value is None or expected[name] is None:
                    assert value is expected[name], name
                else:  # test scores are kept in float32: where two tie or swap, an AP moves a little
                    assert value == pytest.approx(
                        expected[name], rel=1e-9, abs=1e-6 if "ap" in name else 1e-9
                    )
        np.testing.assert_allclose(trainer.test_scores["last"], alone.test_scores["last"], atol=1e-6)


def test_a_group_resumes_to_the_same_digits(whole: Lockstep, demo_store: FeatureStore) -> None:
    state = train(group(demo_store), 1).state_dict()
    resumed = group(demo_store)
    resumed.load_state_dict(state)
    train(resumed)
    for one, other in zip(resumed.trainers, whole.trainers, strict=True):
        assert digits(one.history) == digits(other.history)


def test_replaying_one_seed_runs_its_group_and_gives_the_same_digits(
    whole: Lockstep, demo_store: FeatureStore
) -> None:
    member = whole.trainers[1]
    record = json.loads(json.dumps(member.record()))
    assert record["lockstep"] == SEEDS
    again = trainer_from_record(record, demo_store)
    again.train_epoch()
    state = again.state_dict()
    resumed = trainer_from_record(record, demo_store)
    resumed.load_state_dict(state)
    while not resumed.finished:
        resumed.train_epoch()
    assert digits(resumed.history) == digits(member.history)


def test_a_member_alone_cannot_go_on(whole: Lockstep, demo_store: FeatureStore) -> None:
    member = whole.trainers[0]
    with pytest.raises(UsageError, match="lockstep"):
        member.train_epoch()
    with pytest.raises(DataError, match="resume the whole group"):
        trainer_from_record(member.record(), demo_store).load_state_dict(member.state_dict())
    with pytest.raises(DataError, match="lockstep"):
        Trainer(member.config, demo_store, protocol="heldout", threads=1).load_state_dict(member.state_dict())


def test_a_diverged_seed_leaves_the_others_alone(whole: Lockstep, demo_store: FeatureStore) -> None:
    broken = group(demo_store)
    broken.train_epoch()
    with torch.no_grad():
        broken.trainers[1].network.fc_v.weight.fill_(torch.nan)
    results = broken.train_epoch()
    assert isinstance(results[SEEDS[1]], DivergedError)
    assert "epoch 2" in str(broken.diverged[SEEDS[1]])
    state = broken.state_dict()
    resumed = group(demo_store)
    resumed.load_state_dict(state)
    train(resumed)
    for slot in (0, 2):
        assert digits(resumed.trainers[slot].history) == digits(whole.trainers[slot].history)
    assert len(resumed.trainers[1].history) == 1
    assert list(resumed.diverged) == [SEEDS[1]]


def test_groups_that_cannot_be_are_refused(whole: Lockstep, demo_store: FeatureStore) -> None:
    for seeds in ([], [1, 1]):
        with pytest.raises(UsageError, match="different seeds"):
            Lockstep(SMALL, seeds, demo_store)
    with pytest.raises(UsageError, match="not among"):
        Trainer(SMALL, demo_store, lockstep=[5, 6])
    other = Lockstep(SMALL, [1, 2], demo_store, protocol="heldout", threads=1)
    with pytest.raises(DataError, match="this group trains"):
        other.load_state_dict(whole.state_dict())
