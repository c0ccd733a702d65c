"""The comparison of two checkouts sees every digit, and nothing that belongs to the clock or the process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from benchmarks.digits import compare
from macil.data import FeatureStore
from macil.io.files import read_json, write_json_atomic
from tests.support.run_folders import RunFolder, edit_report


@pytest.fixture(scope="module")
def run(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "one", demo_store, "heldout").begin(trials=1)
    folder.add("00000", epochs=2)
    return folder.path


@pytest.fixture
def other(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "other"))


def different(old: Path, new: Path) -> dict[str, list[str]]:
    return {what: unequal for what, _, unequal in compare(old, new) if unequal}


def test_equal_runs_have_many_values_and_no_difference(run: Path, other: Path) -> None:
    edit_report(other / "trials/00000", 1, timestamp=2.0, seconds=9.9, trial_id="another")
    assert different(run, other) == {}
    counts = {what: values for what, values, _ in compare(run, other)}
    assert counts["logs"] > 20
    assert counts["weights and scores"] > 20


def test_a_digit_of_a_log_a_stop_and_a_weight_are_seen(run: Path, other: Path) -> None:
    log = other / "trials/00000/result.json"
    score = json.loads(log.read_text(encoding="utf-8").splitlines()[1])["loss_mil"]
    edit_report(log.parent, 2, loss_mil=score * (1 + 1e-15))
    assert different(run, other) == {"logs": ["trials/00000 epoch 2 loss_mil"]}
    log.write_text(log.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    assert different(run, other)["stops"] == ["trials/00000"]
    newest = max(log.parent.glob("checkpoint_*")) / "trainer.pt"
    content = torch.load(newest, weights_only=True)
    name, weights = next((n, w) for n, w in content["network"].items() if w.is_floating_point())
    content["network"][name] = weights + 1e-6
    torch.save(content, newest)
    assert any(name in each for each in different(run, other)["weights and scores"])


def test_another_winner_is_a_difference(run: Path, other: Path) -> None:
    write_json_atomic(other / "run.json", {**read_json(other / "run.json"), "winner": {"trial": "00007"}})
    assert different(run, other) == {"stops": ["winner"]}
