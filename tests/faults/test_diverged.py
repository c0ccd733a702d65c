"""Trainings that go to NaN, to infinity or to constant scores: ended at that epoch by name, without a number."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from macil.__main__ import app
from macil.config import TrialConfig
from macil.data import FeatureStore, convert
from macil.data.split import make_split
from macil.errors import DivergedError
from macil.evaluation.evaluator import Evaluator
from macil.evaluation.protocols import Protocol
from macil.model import TwoStreamNetwork, VisualNetwork
from macil.training.checkpoint import save_checkpoint
from macil.training.trainer import Trainer
from tests.support.fuzzing import Outcome, call
from tests.support.layouts import annotate, save

WIDTHS = (8, 4)
SMALL = TrialConfig(
    epochs=4,
    hidden_dim=16,
    num_heads=2,
    feedforward_dim=16,
    batch_size=12,
    max_snippets=20,
    learning_rate=1e-3,
)
FLAGS = ["--epochs", 4, "--hidden-dim", 16, "--num-heads", 2, "--feedforward-dim", 16, "--batch-size", 12]
FLAGS += ["--max-snippets", 20, "--threads", 1]

TRAINED = [f"v=t{i}__#1_label_{'A' if i % 2 else 'B1-0-0'}" for i in range(24)]
TESTED = [f"v=x{i}__#1_label_{'A' if i % 2 else 'B1-0-0'}" for i in range(6)]


def make_store(
    root: Path, factors: dict[str, float] | None = None, same: Collection[str] = ()
) -> FeatureStore:
    """Videos of two crops of random features: those of `factors` so much larger, those of `same` all ones."""
    rng = np.random.default_rng(3)
    layout = root / "layout"
    for names, visual, audio in (
        (TRAINED, "RGB", "vggish-features/train"),
        (TESTED, "RGBTest", "vggish-features/test"),
    ):
        (layout / visual).mkdir(parents=True)
        (layout / audio).mkdir(parents=True)
        for name in names:
            arrays = [rng.normal(size=(6, width)) for width in (WIDTHS[0], WIDTHS[0], WIDTHS[1])]
            if name in same:
                arrays = [np.ones_like(array) for array in arrays]
            arrays = [array * (factors or {}).get(name, 1.0) for array in arrays]
            for crop in (0, 1):
                save(layout / visual / f"{name}__{crop}.npy", arrays[crop])
            save(layout / audio / f"{name}__vggish.npy", arrays[2])
    annotate(layout, {name: [(0, 40)] for name in TESTED if "_label_A" not in name})
    return FeatureStore.open(convert(layout, root / "store"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return make_store(tmp_path_factory.mktemp("plain"))


def require_diverged(trainer: Trainer, reason: str) -> None:
    """It ends with this reason, at an epoch that leaves no number and no scores."""
    before: tuple[int, dict[str, np.ndarray]] = (0, {})
    with pytest.raises(DivergedError) as caught:  # noqa: PT012
        while not trainer.finished:
            before = len(trainer.history), dict(trainer.test_scores)
            trainer.train_epoch()
    assert str(caught.value).startswith(f"diverged in epoch {before[0] + 1}: ")
    assert reason in str(caught.value)
    assert len(trainer.history) == before[0]
    assert trainer.test_scores.keys() == before[1].keys()
    assert all(trainer.test_scores[name] is before[1][name] for name in before[1])
    for metrics in trainer.history:
        assert all(np.isfinite(value) for value in metrics.values() if isinstance(value, float))


@pytest.mark.parametrize("protocol", ["published", "heldout", "refit"])
def test_a_learning_rate_that_explodes_ends_the_training(protocol: Protocol, plain: FeatureStore) -> None:
    config = SMALL.replace(learning_rate=1.0, visual_learning_rate=1.0, epochs=30)
    require_diverged(Trainer(config, plain, protocol=protocol, threads=1), "")


@pytest.mark.parametrize("protocol", ["published", "heldout", "refit"])
def test_features_too_large_for_the_loss_end_the_training_at_the_first_epoch(
    protocol: Protocol, tmp_path: Path
) -> None:
    store = make_store(tmp_path, dict.fromkeys(TRAINED, 1e30))
    trainer = Trainer(SMALL, store, protocol=protocol, threads=1)
    require_diverged(trainer, "the loss is no finite number")
    assert trainer.history == []


@pytest.mark.parametrize("protocol", ["published", "heldout", "refit"])
def test_scores_of_the_test_videos_that_are_no_numbers_end_the_training(
    protocol: Protocol, tmp_path: Path
) -> None:
    """The training itself is sound."""
    store = make_store(tmp_path, {TESTED[2]: 1e37})
    trainer = Trainer(SMALL, store, protocol=protocol, threads=1)
    require_diverged(trainer, "scores are no finite numbers")
    assert trainer.history == []


def test_scores_of_heldout_videos_that_are_no_numbers_end_the_training(
    plain: FeatureStore, tmp_path: Path
) -> None:
    heldout = make_split(plain).heldout
    store = make_store(tmp_path, {heldout[0]: 1e37})
    assert make_split(store).heldout == heldout
    require_diverged(Trainer(SMALL, store, protocol="heldout", threads=1), "scores are no finite numbers")


def test_predictions_of_heldout_videos_that_are_all_the_same_end_the_training(
    plain: FeatureStore, tmp_path: Path
) -> None:
    """A search could not select by them."""
    store = make_store(tmp_path, same=make_split(plain).heldout)
    require_diverged(Trainer(SMALL, store, protocol="heldout", threads=1), "every score is")
    Trainer(SMALL, store, protocol="published", threads=1).train_epoch()


@pytest.mark.parametrize("protocol", ["published", "heldout", "refit"])
def test_features_that_make_all_scores_equal_end_the_training(protocol: Protocol, tmp_path: Path) -> None:
    store = make_store(tmp_path, same=[*TRAINED, *TESTED])
    require_diverged(Trainer(SMALL, store, protocol=protocol, threads=1), "every score is")


@pytest.mark.parametrize(
    ("value", "reason"), [(torch.inf, "the loss is no finite number"), (torch.nan, "loss")]
)
@pytest.mark.parametrize("which", ["network", "visual_network"])
def test_a_weight_that_is_no_number_ends_the_training(
    which: str, value: float, reason: str, plain: FeatureStore
) -> None:
    trainer = Trainer(SMALL, plain, protocol="heldout", threads=1)
    trainer.train_epoch()
    with torch.no_grad():
        next(getattr(trainer, which).parameters()).fill_(value)
    require_diverged(trainer, reason)
    assert len(trainer.history) == 1


@pytest.mark.parametrize("protocol", ["published", "heldout", "refit"])
@pytest.mark.parametrize(("value", "reason"), [(torch.nan, "no finite numbers"), (0.0, "every score is 0.5")])
def test_scores_of_the_visual_network_count_as_well(
    value: float, reason: str, protocol: Protocol, plain: FeatureStore
) -> None:
    """Its AP would be reported beside the other."""
    evaluator = Evaluator(
        plain, protocol, make_split(plain) if protocol == "heldout" else None, torch.device("cpu")
    )
    network = TwoStreamNetwork(SMALL, *WIDTHS).eval()
    visual = VisualNetwork(SMALL, WIDTHS[0]).eval()
    assert evaluator.evaluate(network, visual).degenerate is None
    with torch.no_grad():
        for parameter in visual.parameters():
            parameter.fill_(value)
    found = evaluator.evaluate(network, visual)
    assert found.degenerate is not None
    assert found.degenerate.startswith("of the visual network, ")
    assert reason in found.degenerate
    assert found.selection_metric is None
    assert found.figures == {}


@pytest.mark.parametrize("protocol", ["published", "heldout", "refit"])
def test_the_command_ends_with_the_epoch_and_tells_no_number(
    protocol: str, plain: FeatureStore, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    rates = ["--learning-rate", 1, "--visual-learning-rate", 1, "--epochs", 30]
    arguments = ["train", plain.path, "--out", out, *FLAGS, *rates, "--protocol", protocol]

    def require_refused(ended: Outcome) -> None:
        assert ended.code == 1
        assert ended.err.splitlines()[-1].startswith("error: diverged in epoch ")
        assert "AP" not in ended.out
        assert "nan" not in ended.output.lower()

    ended = call(app, *arguments)
    require_refused(ended)
    epochs = [json.loads(line) for line in (out / "epochs.jsonl").read_text().splitlines()]
    assert f"diverged in epoch {len(epochs) + 1}:" in ended.err
    # What it had before stays, and a resume comes to the same end.
    assert (out / "last.pt").exists() == bool(epochs)
    if epochs:
        again = call(app, "train", plain.path, "--out", out, "--resume")
        require_refused(again)
        assert again.err.splitlines()[-1] == ended.err.splitlines()[-1]


@pytest.mark.parametrize(("value", "reason"), [(torch.nan, "no finite numbers"), (0.0, "every score is 0.5")])
def test_evaluate_tells_no_ap_of_a_network_that_diverged(
    value: float, reason: str, plain: FeatureStore, tmp_path: Path
) -> None:
    trainer = Trainer(SMALL, plain, threads=1)
    trainer.train_epoch()
    with torch.no_grad():
        for parameter in trainer.network.parameters():
            parameter.fill_(value)
    save_checkpoint(trainer, tmp_path / "broken.pt")
    for more in ([], ["--json"]):
        ended = call(app, "evaluate", tmp_path / "broken.pt", plain.path, *more)
        assert (ended.code, ended.out) == (1, "")
        assert f"{tmp_path / 'broken.pt'} gives no result" in ended.err
        assert reason in ended.err


def test_a_sound_training_is_none_of_this(plain: FeatureStore) -> None:
    trainer = Trainer(SMALL, plain, protocol="heldout", threads=1)
    while not trainer.finished:
        metrics: dict[str, Any] = trainer.train_epoch()
    assert metrics["epoch"] == 4
