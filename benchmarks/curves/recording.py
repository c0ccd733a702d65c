"""The file of a recording: a row a training, epochs as lists, and what all of them share in the schema's metadata.

Scores are kept as logits in whole numbers of 1/256: enough to rank test snippets nearly as they were ranked, in a few
megabytes: of the demo's first 132 trainings the AP that is computed from them differs by at most 0.16 points step-wise,
and by 0.06 points trapezoidal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import expit, logit

from macil.config import TrialConfig
from macil.errors import DataError
from macil.io.files import atomic_path

STEP = 256
# The figures of an epoch that are kept, see macil.training.metrics; `ap` and `ap_trapezoid` are measured under
# `heldout` too, by whoever records.
FIGURES = (
    "selection_score",
    "ap",
    "ap_trapezoid",
    "visual_ap",
    "heldout_ap",
    "heldout_loss",
    "heldout_score",
    "video_accuracy",
    "loss_mil",
    "loss_v2b",
    "loss_v2n",
    "loss_visual",
)
# Under `heldout` the predictions of the training part are kept for so many epochs, the last ones.
TRAIN_EPOCHS = 4
_SCORES = ("test", "heldout", "trained")
_NUMBERS = pa.list_(pa.float32())
SCHEMA = pa.schema(
    [
        ("number", pa.int16()),
        ("seed", pa.int16()),
        ("split_seed", pa.int16()),
        ("config", pa.string()),
        ("epochs", pa.int16()),
        ("error", pa.string()),
        ("seconds", pa.float32()),
        *((name, _NUMBERS) for name in FIGURES),
        *((name, pa.list_(pa.int16())) for name in _SCORES),
    ]
)
_ABOUT = b"about"


@dataclass(frozen=True)
class About:
    """What all trainings of a recording share.

    Attributes:
        store_hash: Of the data.
        protocol: Of the trainings.
        base: The configuration that they depart from.
        searched: The hyperparameters in which they do.
        chance: Share of violent test frames.
        test_lengths: Snippets of each test video, in the order of the store.
        test_sources: Its source, by number.
        test_positive: (snippets,) violent frames of each test snippet.
        snippet_frames: Frames of a snippet.
        train_labels: (V,) of the training videos, in the order of the store.
        heldout: By split seed the places of the held-out ones among them.
        crops: Of each video.
        versions: Of what computed.
    """

    store_hash: str
    protocol: str
    base: Mapping[str, Any]
    searched: Sequence[str]
    chance: float
    test_lengths: Sequence[int]
    test_sources: Sequence[int]
    test_positive: Sequence[int]
    snippet_frames: int
    train_labels: Sequence[int]
    heldout: Mapping[str, Sequence[int]]
    crops: int
    versions: Mapping[str, str]


@dataclass(frozen=True)
class RecordedTraining:
    """One training.

    Attributes:
        number: Of its configuration, 0 for the paper's.
        seed: Of its random numbers.
        split_seed: Of its held-out split; None under `published`.
        config: What was trained.
        epochs: Epochs with a result.
        error: Why it ended before the last one; None if it did not.
        seconds: Of one CPU.
        figures: (epochs,) of each of `FIGURES`, NaN where there is none.
        test: (epochs, snippets) logits of the test snippets, under `published`.
        heldout: (epochs, videos, crops) logits of the held-out videos, under `heldout`.
        trained: (the last `TRAIN_EPOCHS` epochs, videos) logits of the other training videos, under `heldout`.
    """

    number: int
    seed: int
    split_seed: int | None
    config: TrialConfig
    epochs: int
    error: str | None
    seconds: float
    figures: Mapping[str, npt.NDArray[np.float64]]
    test: npt.NDArray[np.float64] | None = None
    heldout: npt.NDArray[np.float64] | None = None
    trained: npt.NDArray[np.float64] | None = None

    @property
    def key(self) -> tuple[int, int]:
        """What makes it that one."""
        return self.number, self.seed


@dataclass(frozen=True)
class Recording:
    """A recording that was read."""

    about: About
    trainings: tuple[RecordedTraining, ...]

    @cached_property
    def test_labels(self) -> npt.NDArray[np.uint8]:
        """(frames,) of the test videos; of a snippet the violent ones first, which no AP depends on."""
        positive = np.array(self.about.test_positive)
        return (np.arange(self.about.snippet_frames) < positive[:, None]).astype(np.uint8).ravel()


def logits(probabilities: npt.ArrayLike) -> npt.NDArray[np.int16]:
    """Logits in whole numbers of 1/`STEP`; 0 and 1 lie 30 from the middle."""
    found = np.clip(logit(np.asarray(probabilities, np.float64)), -30, 30)
    return np.rint(STEP * found).astype(np.int16)


def probabilities(kept: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What logits, as a `RecordedTraining` has them, are logits of."""
    found: npt.NDArray[np.float64] = expit(kept)
    return found


def row_of(training: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the file, of figures and of `logits` by name; what is missing is null."""
    return {name: training.get(name) for name in SCHEMA.names}


def write(path: Path, about: About, tables: Iterable[pa.Table]) -> None:
    """Write a recording, sorted by seed and configuration, in the place of what is there."""
    table = pa.concat_tables([each.cast(SCHEMA) for each in tables]).sort_by(
        [("seed", "ascending"), ("number", "ascending")]
    )
    table = table.replace_schema_metadata({_ABOUT: json.dumps(about.__dict__)})
    with atomic_path(path) as partial:
        pq.write_table(
            table,
            partial,
            compression="zstd",
            compression_level=19,
            use_dictionary=["config", "error"],
            column_encoding={f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in _SCORES},
        )


def read_about(path: Path) -> About:
    """What a recording was made of."""
    return About(**json.loads((pq.read_schema(path).metadata or {})[_ABOUT]))


def read(path: Path) -> Recording:
    """Read a recording.

    Raises:
        DataError: There is none.
    """
    if not path.is_file():
        raise DataError(f"there is no recording {path}; `python -m benchmarks.curves` makes it")
    about = read_about(path)
    rows = pq.read_table(path).to_pylist()
    return Recording(about, tuple(_training(about, row) for row in rows))


def _training(about: About, row: Mapping[str, Any]) -> RecordedTraining:
    epochs, split = row["epochs"], row["split_seed"]
    heldout = 0 if split is None else len(about.heldout[str(split)])
    return RecordedTraining(
        number=row["number"],
        seed=row["seed"],
        split_seed=split,
        config=TrialConfig(**{**about.base, **json.loads(row["config"]), "seed": row["seed"]}),
        epochs=epochs,
        error=row["error"],
        seconds=row["seconds"],
        figures={name: np.array(row[name] or [np.nan] * epochs, np.float64) for name in FIGURES},
        test=_scores(row["test"], (epochs, len(about.test_positive))),
        heldout=_scores(row["heldout"], (epochs, heldout, about.crops)),
        trained=_scores(row["trained"], (-1, len(about.train_labels) - heldout)),
    )


def _scores(kept: Sequence[int] | None, shape: tuple[int, ...]) -> npt.NDArray[np.float64] | None:
    return None if kept is None else np.array(kept, np.float64).reshape(shape) / STEP
