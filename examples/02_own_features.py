"""Features of your own: a folder, a check of it, a store, and a search on it.

    python examples/02_own_features.py [TRIALS [EPOCHS]]

Here random numbers stand for what your extractors give. Widths and lengths are read from the files: 24 and 8 are as
good as 1024 and 128.
"""

import sys
from pathlib import Path

import numpy as np

from macil.data import FeatureStore, convert
from tune import run_search

trials = int(sys.argv[1]) if len(sys.argv) > 1 else 4
epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 5
folder = Path("own-features")
rng = np.random.default_rng(0)


def write_video(split: str, name: str, snippets: int, violent: slice | None) -> None:
    """One video: (T, 24) visual and (T, 8) audio features; a row is a snippet of 16 frames."""
    visual = rng.standard_normal((snippets, 24), dtype=np.float32)
    audio = rng.standard_normal((snippets, 8), dtype=np.float32)
    if violent is not None:
        visual[violent, :4] += 2.0
        audio[violent, :2] += 2.0
    rgb = folder / ("RGB" if split == "train" else "RGBTest")
    vggish = folder / "vggish-features" / split
    for parent in (rgb, vggish):
        parent.mkdir(parents=True, exist_ok=True)
    np.save(rgb / f"{name}__0.npy", visual)  # __1.npy, __2.npy … for further crops
    np.save(vggish / f"{name}__vggish.npy", audio)


# The name says the label of a training video: label_A is normal, any other is violent.
annotations = []
for number in range(40):
    label = "A" if number % 2 else "B1"
    violent = None if label == "A" else slice(5, 12)
    write_video("train", f"film{number:02d}__#0-00-10_0-00-30_label_{label}", 20, violent)
for number in range(12):
    label = "A" if number % 2 else "B1"
    violent = None if label == "A" else slice(8, 16)
    name = f"clip{number:02d}__#0-00-10_0-00-30_label_{label}"
    write_video("test", name, 25, violent)
    if violent:
        annotations.append(f"{name} {16 * violent.start} {16 * violent.stop}")  # violent frames, half open
(folder / "annotations.txt").write_text("\n".join(annotations) + "\n")

# Every fault of the folder at once: `python -m macil check own-features` says the same.
store = FeatureStore.open(convert(folder, "own.store"))
print(f"{len(store.videos('train').names)} training videos, {len(store.videos('test').names)} test videos")

found = run_search(
    store,
    name="own",
    trials=trials,
    epochs=epochs,
    batch_size=16,
    hidden_dim=16,
    feedforward_dim=16,
    report=False,
)
print(
    f"best: trial {found.winner.name}, {found.winner.config.learning_rate=:g}, {found.winner.config.lambda_v2b=:.2f}"
)
