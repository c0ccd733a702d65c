"""A very small data set in the XD-Violence layout, of real files, to be damaged by tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from macil.data.demo.writing import write_demo

NORMAL = "v=a.b-c=d__#1_label_A"
VIOLENT = "Some.Film.1999__#00-10-22_00-10-40_label_B1-0-0"
TEST_NORMAL = "v=zz__#00-00-00_00-01-00_label_A"
TEST_VIOLENT = "Other.Film.2001__#01-00-00_01-00-30_label_G-B2-B6"
TEST_VIOLENT_2 = "v=yy__#1_label_B4-0-0"

TRAIN_ROWS = {NORMAL: (3, 3), VIOLENT: (5, 4)}
TEST_ROWS = {TEST_NORMAL: (2, 2), TEST_VIOLENT: (6, 7), TEST_VIOLENT_2: (4, 4)}
CROPS, VISUAL_DIM, AUDIO_DIM = 3, 6, 4

# Frames: 96 and 64. The first ends past the last whole snippet, as in the real file, and has the .mp4 ending.
ANNOTATIONS = {f"{TEST_VIOLENT}.mp4": [(10, 20), (80, 105)], TEST_VIOLENT_2: [(0, 64)]}


def write_layout(root: Path) -> Path:
    """Write two training and three test videos of three crops; visual rows, audio rows as above."""
    rng = np.random.default_rng(7)
    for rows, visual, audio in (
        (TRAIN_ROWS, "RGB", "vggish-features/train"),
        (TEST_ROWS, "RGBTest", "vggish-features/test"),
    ):
        (root / visual).mkdir(parents=True)
        (root / audio).mkdir(parents=True)
        for name, (length, audio_length) in rows.items():
            for crop in range(CROPS):
                save(root / visual / f"{name}__{crop}.npy", rng.normal(size=(length, VISUAL_DIM)))
            save(root / audio / f"{name}__vggish.npy", rng.normal(size=(audio_length, AUDIO_DIM)))
    annotate(root, ANNOTATIONS)
    return root


def tiny_demo(out: Path) -> Path:
    """Write a demo of 24 training and 6 test videos with annotations and gt.npy, in no time."""
    return write_demo(
        out,
        ground_truth=True,
        train_videos=24,
        test_videos=6,
        min_snippets=2,
        max_snippets=4,
        visual_dim=8,
        audio_dim=8,
        crops=1,
    )


def rename(root: Path, change: Callable[[str], str]) -> None:
    """Change every name as a mirror does: of the feature files, in the annotations and in the lists."""
    for path in [*root.rglob("*.npy")]:
        path.rename(path.with_name(change(path.name)))
    for path in [*root.rglob("*.list"), *root.glob("annotations.txt")]:
        path.write_text("".join(change(line) for line in path.read_text().splitlines(keepends=True)))


def save(path: Path, array: np.ndarray, dtype: str = "float32") -> None:
    np.save(path, array.astype(dtype))


def annotate(root: Path, annotations: dict[str, list[tuple[int, int]]]) -> None:
    lines = [" ".join([name, *(f"{a} {b}" for a, b in pairs)]) for name, pairs in annotations.items()]
    (root / "annotations.txt").write_text("\n".join(lines) + "\n")


def frame_labels() -> dict[str, np.ndarray]:
    """Frame labels of the test videos, written out by hand from ANNOTATIONS."""
    labels = {name: np.zeros(16 * rows) for name, (rows, _) in TEST_ROWS.items()}
    labels[TEST_VIOLENT][10:20] = 1
    labels[TEST_VIOLENT][80:96] = 1
    labels[TEST_VIOLENT_2][:] = 1
    return labels


def save_ground_truth(root: Path, labels: dict[str, np.ndarray]) -> None:
    """Violent videos by name, then normal ones: the order of the published file."""
    order = (TEST_VIOLENT, TEST_VIOLENT_2, TEST_NORMAL)
    np.save(root / "gt.npy", np.concatenate([labels[name] for name in order]))
