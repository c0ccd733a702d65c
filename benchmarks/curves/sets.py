"""What is recorded: three sets of trainings on two data sets that share no image and no recording."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from macil.config import TrialConfig
from macil.data.cache import default_cache
from macil.data.demo.digits import DigitsDemo, Story
from macil.data.demo.writing import write_videos
from macil.data.opening import resolve
from macil.data.store.feature_store import FeatureStore
from macil.evaluation.protocols import Protocol
from tune.algorithms.space import Space, from_unit
from tune.planning.options import Options
from tune.planning.resolve import resolve_plan
from tune.planning.space import published_point, search_space

RECORDINGS = Path(__file__).with_name("recordings")

# Another story than the demo's, with the images and the speakers that the demo does not have: longer videos, another
# event that happens once or twice, sound and image further apart, more of everything else.
REAL_AV = Story(
    key=5,
    train=100,
    test=100,
    event=(1, 4, 6),
    images=(range(600, 1200), range(1500, 1797)),
    speakers=(1, 3, 5),
    snippets=(12, 30),
    events=(1, 2),
    event_length=(3, 7),
    shift=(-4, 4),
    ordinaries=(2, 5),
    ordinary_length=(2, 6),
    distractors=(0, 2),
    distractor_length=(1, 2),
    visual_noise=24,
    audio_noise=64,
)


@dataclass(frozen=True)
class RecordedSet:
    """Trainings of one data set under one protocol.

    Attributes:
        name: Of its file, without the ending.
        data: Opens the data.
        protocol: See `macil.training.trainer.Trainer`.
        epochs, batch_size: Of every training.
        random: Random configurations of the default space, beside the paper's setting.
        seeds: Trainings of each configuration, with the seeds 0, 1, …
        splits: Under `heldout` seed s has the split of the seed s modulo this number.
    """

    name: str
    data: Callable[[], FeatureStore]
    protocol: Protocol
    epochs: int
    batch_size: int
    random: int
    seeds: int = 12
    splits: int = 3

    @property
    def file(self) -> Path:
        """The recording."""
        return RECORDINGS / f"{self.name}.parquet"

    @property
    def base(self) -> TrialConfig:
        """What is not searched."""
        return TrialConfig(epochs=self.epochs, batch_size=self.batch_size)

    @property
    def space(self) -> Space:
        """The default space."""
        return search_space(self.base)

    @property
    def configurations(self) -> list[TrialConfig]:
        """The paper's setting, then random ones."""
        return configurations(self.base, 1 + self.random)


def configurations(base: TrialConfig, count: int, seed: int = 0) -> list[TrialConfig]:
    """The paper's point of the default search space, then random ones.

    Args:
        base: What is not searched.
        count: Of them all.
        seed: Of the random ones; the first of two lengths are the same.
    """
    space, rng = search_space(base), np.random.default_rng(seed)
    points = [from_unit(space, rng.random(len(space))) for _ in range(count - 1)]
    return [base.replace(**params) for params in (published_point(space), *points)]


def demo_base() -> TrialConfig:
    """What a search on the embedded demo starts from."""
    return resolve_plan(Options(), None).base


def real_av() -> FeatureStore:
    """The other data set, written and converted once into the cache."""
    folder = default_cache() / f"real-av-{REAL_AV.key}"
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
        write_videos(partial, DigitsDemo(REAL_AV), progress=True)
        try:
            partial.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(partial)
    return resolve(folder)


def recorded_sets() -> dict[str, RecordedSet]:
    """By name."""
    demo = demo_base()
    sets = (
        RecordedSet("demo-published", lambda: resolve(None), "published", demo.epochs, demo.batch_size, 32),
        RecordedSet("demo-heldout", lambda: resolve(None), "heldout", demo.epochs, demo.batch_size, 32),
        RecordedSet("real-av-heldout", real_av, "heldout", 16, 32, 24),
    )
    return {each.name: each for each in sets}
