"""Contrastive terms that are exactly 0: counted as the epochs have them, and put into words."""

from __future__ import annotations

import pytest

from macil.config import TrialConfig
from macil.data.store.feature_store import FeatureStore
from macil.training.silent_terms import silence_text, silent_epochs
from macil.training.trainer import Trainer

SMALL = TrialConfig(epochs=2, hidden_dim=16, num_heads=2, feedforward_dim=16, max_snippets=8, batch_size=1)


@pytest.mark.parametrize(
    ("config", "expected"),
    [(SMALL, (2, 2)), (SMALL.replace(contrast=False, batch_size=64), (0, 0))],
    ids=["batches of one bag have no pairs", "without contrast there are no terms"],
)
def test_a_training_says_which_of_its_epochs_were_silent(
    config: TrialConfig, expected: tuple[int, int], demo_store: FeatureStore
) -> None:
    trainer = Trainer(config, demo_store, protocol="refit", device="cpu", threads=1)
    while not trainer.finished:
        trainer.train_epoch()
    assert silent_epochs(trainer.history) == expected


def test_only_both_terms_at_zero_are_silence() -> None:
    pairs = [(0.0, 0.0), (0.0, 0.1), (1e-30, 0.0), (0.0, 0.0), (None, None)]
    assert silent_epochs({"loss_v2b": a, "loss_v2n": b} for a, b in pairs) == (2, 4)


@pytest.mark.parametrize(
    ("silent", "epochs", "text"),
    [(1, 1, "in 1 of 1 epoch"), (3, 20, "in 3 of 20 epochs"), (20, 20, "in all 20 epochs")],
)
def test_it_is_grammatical(silent: int, epochs: int, text: str) -> None:
    assert silence_text(silent, epochs) == f"exactly 0 {text}"
