"""Configurations that count as the same training are; the check is training them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from macil.config import TrialConfig
from macil.data.store.feature_store import FeatureStore
from macil.training.equivalence import training_key
from macil.training.trainer import Trainer

SMALL = TrialConfig(
    epochs=3, batch_size=24, hidden_dim=16, feedforward_dim=16, max_snippets=20, learning_rate=2e-3
)
SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"lambda_v2b": 1.0, "ramp": 0.1}, {"lambda_v2b": 1.5, "ramp": 0.1}),
    ({"ramp": 3.0, "lambda_v2b": 1.0}, {"ramp": 2.0, "lambda_v2b": 1.0}),
    ({"contrast": False}, {"contrast": False, "temperature": 0.5, "ramp": 2.0, "stream_swap": False}),
    ({"contrast": False}, {"lambda_v2b": 0.0, "lambda_v2n": 0.0}),
    ({"ramp": 0.0}, {"contrast": False}),
    ({"distill": False}, {"distill": False, "momentum": 0.5, "visual_learning_rate": 0.1}),
    ({"momentum": 1.0}, {"momentum": 1.0, "momentum_epochs": 7}),
    ({"dropout_everywhere": True}, {"dropout_everywhere": False}),
]
OTHER: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"lambda_v2b": 0.1}, {"lambda_v2b": 0.2}),
    ({"ramp": 0.1}, {"ramp": 0.2}),
    ({"temperature": 0.1}, {"temperature": 0.2}),
    ({"momentum": 0.9}, {"momentum": 0.8}),
    ({"seed": 0}, {"seed": 1}),
    ({"contrast": False}, {}),
]


def scores(store: FeatureStore, changes: dict[str, Any]) -> np.ndarray:
    trainer = Trainer(SMALL.replace(**changes), store, protocol="heldout", device="cpu", threads=1)
    while not trainer.finished:
        trainer.train_epoch()
    return trainer.test_scores["last"]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_equal_keys_are_equal_trainings(
    one: dict[str, Any], other: dict[str, Any], demo_store: FeatureStore
) -> None:
    assert training_key(SMALL.replace(**one)) == training_key(SMALL.replace(**other))
    # A weight of zero adds zeros to the gradient, which may round another way: equal but for that.
    np.testing.assert_allclose(scores(demo_store, one), scores(demo_store, other), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_other_keys_are_other_trainings(
    one: dict[str, Any], other: dict[str, Any], demo_store: FeatureStore
) -> None:
    assert training_key(SMALL.replace(**one)) != training_key(SMALL.replace(**other))
    assert np.abs(scores(demo_store, one) - scores(demo_store, other)).max() > 1e-5


def test_more_epochs_tell_more_apart() -> None:
    one, other = SMALL.replace(lambda_v2b=1.0), SMALL.replace(lambda_v2b=1.5)
    for epochs in range(1, 14):
        same = training_key(one.replace(epochs=epochs)) == training_key(other.replace(epochs=epochs))
        # λ(t) = 0.1 t with t from 0: the eleventh epoch is the last with λ = 1.0.
        assert same == (epochs <= 11)
