"""Bags, batches and steps that a plan says: those that the engine trains with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from macil.config import TrialConfig
from macil.data.split import make_split
from macil.data.store.feature_store import FeatureStore
from macil.training.trainer import Trainer
from tune.planning.bags import LATER, bags_at_hand, bags_of
from tune.planning.options import Options
from tune.planning.plan import Plan
from tune.planning.resolve import resolve_plan
from tune.planning.resources import Machine


def plan(**options: Any) -> Plan:
    return resolve_plan(Options(**options), Machine(2, 0))


def test_it_counts_bags_as_the_engine_does(demo_store: FeatureStore) -> None:
    config = TrialConfig(hidden_dim=16, num_heads=2, feedforward_dim=16)
    heldout, whole = (
        Trainer(config, demo_store, protocol=protocol, device="cpu", threads=1).engine.bags
        for protocol in ("heldout", "refit")
    )
    resolved = plan(data="d", hyperparameters={"batch_size": 24})
    (text,) = bags_of(resolved, demo_store, make_split(demo_store))
    videos, steps = len(heldout) // 5, -(-len(heldout) // 24)
    assert text.startswith(
        f"{len(heldout)} bags ({videos} training videos of 5 crops); batches of 24: {steps} steps"
    )
    assert text.endswith(f"refit: {len(whole)} bags, 5 steps")


def test_one_step_an_epoch_is_told(demo_store: FeatureStore) -> None:
    text, note = bags_of(plan(data="d", protocol="published"), demo_store, None)
    assert text == "120 bags (24 training videos of 5 crops); batches of 128: 1 step an epoch"
    assert note.startswith("a batch of 128 holds all 120 bags, so an epoch is one step")


def test_rows_of_a_sweep_may_have_batches_of_their_own(demo_store: FeatureStore, tmp_path: Path) -> None:
    file = tmp_path / "sizes.toml"
    rows = "".join(f'[[rows]]\nname = "{size}"\nchanges = {{ batch_size = {size} }}\n' for size in (200, 50))
    file.write_text(f'name = "sizes"\ntitle = "sizes"\n{rows}')
    text, note = bags_of(plan(data="d", sweep=str(file)), demo_store, None)
    assert text.endswith("batches of 50: 3 steps an epoch, batches of 200: 1 step an epoch")
    assert note.startswith("a batch of 200 holds all")


def test_before_a_run_they_are_reported_where_the_data_are_at_hand(
    demo_store: FeatureStore, demo_layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MACIL_CACHE", str(tmp_path / "cache"))
    at_hand = plan(data=str(demo_store.path))
    assert bags_at_hand(at_hand) == bags_of(at_hand, demo_store, make_split(demo_store))
    for data in (str(demo_layout), "s3://bucket/xd.store", None):
        assert bags_at_hand(plan(data=data)) == [LATER]
    assert not (tmp_path / "cache").exists(), "nothing is made for it"
