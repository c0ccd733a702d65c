"""Would the numbers notice if nothing real were behind them? Training labels are permuted in the files themselves."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from macil.config import PRESETS
from macil.data import FeatureStore, convert, write_demo
from macil.training.trainer import Trainer

CONFIG = PRESETS["full"].replace(
    epochs=8,
    batch_size=32,
    hidden_dim=32,
    feedforward_dim=32,
    learning_rate=2e-3,
    visual_learning_rate=4e-4,
    lambda_v2b=0.3,
    lambda_v2n=0.3,
)
LABEL = re.compile(r"_label_(.+?)(?=__\d+\.npy$|__vggish\.npy$)")


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(
        tmp_path_factory.mktemp("permuted") / "layout",
        train_videos=80,
        test_videos=30,
        min_snippets=10,
        max_snippets=40,
        visual_dim=64,
        audio_dim=16,
    )


def with_permuted_training_labels(layout: Path, out: Path, seed: int) -> FeatureStore:
    """The same features, with the labels in the names of the training files dealt out anew."""
    training = [path for path in layout.rglob("*.npy") if path.parent.name in ("RGB", "train")]
    stems = sorted({path.name[: match.end()] for path in training if (match := LABEL.search(path.name))})
    labels = [stem.split("_label_")[1] for stem in stems]
    dealt = np.random.default_rng(seed).permutation(labels)
    renamed = {
        stem: f"{stem.split('_label_')[0]}_label_{label}" for stem, label in zip(stems, dealt, strict=True)
    }
    assert len(set(renamed.values())) == len(stems)
    for path in layout.rglob("*"):
        if path.is_dir():
            continue
        name = path.name
        match = LABEL.search(name)
        if path in training and match:
            name = renamed[name[: match.end()]] + name[match.end() :]
        target = out / path.relative_to(layout).parent / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    return FeatureStore.open(convert(out, out.with_name(out.name + "-store")))


def test_permuted_training_labels_send_the_ap_to_the_positive_frame_rate(
    layout: Path, tmp_path: Path
) -> None:
    def final_ap(store: FeatureStore) -> float:
        trainer = Trainer(CONFIG, store, threads=1)
        while not trainer.finished:
            metrics = trainer.train_epoch()
        return float(metrics["ap"])

    honest = FeatureStore.open(convert(layout, tmp_path / "store"))
    rate = float(honest.test_labels().frame_labels.mean())
    permuted = [
        final_ap(with_permuted_training_labels(layout, tmp_path / f"permuted{s}", s)) for s in range(3)
    ]
    assert np.mean(permuted) == pytest.approx(rate, abs=0.06)
    assert final_ap(honest) > rate + 0.12
