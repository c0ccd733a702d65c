"""A made-up data set in the XD-Violence layout, for trying everything without the real one.

It says nothing about XD-Violence. It was fixed by the arithmetic below before anything was trained on it.

What a snippet is made of (in units of the noise of one feature, visual/audio):
- noise: 1 a feature; a crop shares 70 % of its variance with the other crops of its snippet;
- scene: a level per source and per video, and a slow drift, in a space of a few nuisance directions;
- activities: ordinary things along directions of their own, in every video;
- violence: `VISUAL_CUE` or `AUDIO_CUE` along a direction that is partly common to all categories, partly the category's
  and partly a nuisance direction; visual and audio some snippets apart, its strength varying by video and by moment;
- distractors: in all videos, visual-only or audio-only events, which share `DISTRACTOR_OVERLAP` with violence.

Signal to noise. An event is visible at about 3/4 of its cue: 3.0 * 0.75 = 2.2 against noise and nuisance of sqrt(1
+ 0.34^2 (1.5^2 + 1)) = 1.17 along its direction, a d' of 1.9 for the best linear detector of one snippet's visual
features and 1.6 for its audio, before distractors and before the shift between the streams (the labels are the
union of both). Untrained check, three seeds of 120 test videos: one detector that is given the true directions,
averaged over categories, reaches a frame-level AP of 0.57 on visual, 0.46 on audio, 0.64 on both, 0.72 on both
averaged over five snippets; chance is the share of violent frames, 0.19. A training has to learn them: with n event
snippets to learn from, the noise of a mean along 1024 directions is sqrt(1024 / n) against a signal of 2.2, so a
few hundred snippets leave a cosine of about 0.8 to the true direction, and no label says which snippets they are.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
from pydantic import model_validator

from macil.data.demo.video import DemoVideo
from macil.data.xd.annotations import SNIPPET_FRAMES, Interval
from macil.data.xd.folders import SPLITS, SplitName
from macil.data.xd.names import VIOLENT_CODES
from macil.errors import UsageError
from macil.io.formats import FileFormat

GENERATOR_VERSION = 1

VISUAL_CUE, AUDIO_CUE = 3.0, 2.5
DISTRACTOR_OVERLAP = 0.6
COMMON_SHARE, CATEGORY_SHARE, NUISANCE_SHARE = 0.75, 0.57, 0.34
SOURCE_LEVEL, VIDEO_LEVEL, DRIFT = 1.0, 1.1, 1.0
CROP_SHARE = 0.7

_NUISANCES = 16
_ACTIVITIES = 8
_DISTRACTORS = 4
_CATEGORIES = tuple(VIOLENT_CODES)

# The shares of violent videos in XD-Violence: 1905 of 3954 and 500 of 800.
_VIOLENT_SHARE: dict[SplitName, float] = {"train": 0.48, "test": 0.625}


class DemoSize(FileFormat):
    """How much to make; the defaults suit two cores. Part of `macil.data.demo.writing.DemoFile`.

    Raises:
        UsageError: A number is out of range; all are named.
    """

    WHAT: ClassVar[str] = "the size of a demo"

    train_videos: int = 80
    test_videos: int = 40
    min_snippets: int = 16
    max_snippets: int = 40
    visual_dim: int = 1024
    audio_dim: int = 128
    crops: int = 5
    seed: int = 0

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        # Two videos are the least that have both labels.
        limits = {
            "train_videos": (2, 100_000),
            "test_videos": (2, 100_000),
            "min_snippets": (1, 100_000),
            "max_snippets": (max(self.min_snippets, 1), 100_000),
            "visual_dim": (8, 16_384),
            "audio_dim": (8, 16_384),
            "crops": (1, 10),
            "seed": (0, 2**32 - 1),
        }
        bad = [
            f"{name.replace('_', '-')} {getattr(self, name)} is not between {low} and {high}"
            for name, (low, high) in limits.items()
            if not low <= getattr(self, name) <= high
        ]
        if bad:
            raise UsageError("demo: " + "; ".join(bad))
        return self

    @property
    def nbytes(self) -> int:
        """Bytes of features, about."""
        snippets = (self.train_videos + self.test_videos) * (self.min_snippets + self.max_snippets) // 2
        return 4 * snippets * (self.crops * self.visual_dim + self.audio_dim)


class DemoGenerator:
    """Draws the videos of a demo; each depends on the size's fields and on its number, not on those drawn before."""

    def __init__(self, size: DemoSize) -> None:
        self._size = size
        self.visual_shape, self.audio_dim = (size.crops, size.visual_dim), size.audio_dim
        self._visual = _Modality(self._rng("visual world"), size.visual_dim, VISUAL_CUE)
        self._audio = _Modality(self._rng("audio world"), size.audio_dim, AUDIO_CUE)
        self.videos = tuple(video for split in SPLITS for video in self._decide_split(split))

    def draw(self, video: DemoVideo) -> tuple[np.ndarray, np.ndarray]:
        """Return visual features (crops, T, Dv), non-negative as I3D's are, and audio features (Ta, Da), float32."""
        rng = self._rng("features", video.split, video.index)
        source = self._rng("source", str(video.source))
        distractors = _place_distractors(rng, video.length)
        visual = self._visual.draw(rng, source, video, video.length, video.visual_events, distractors[0])
        audio = self._audio.draw(rng, source, video, video.audio_length, video.audio_events, distractors[1])
        return self._draw_crops(rng, *visual), (0.5 * sum(audio) + 0.5 * _noise(rng, audio[0].shape)).astype(
            np.float32
        )

    def _draw_crops(self, rng: np.random.Generator, scene: np.ndarray, event: np.ndarray) -> np.ndarray:
        shared = np.sqrt(CROP_SHARE) * _noise(rng, scene.shape)
        crops = np.empty((self._size.crops, *scene.shape), np.float32)
        for c in range(self._size.crops):
            # The centre shows the event whole, a corner a part of it.
            shown = 1.0 if c == 0 else rng.uniform(0.6, 1.0)
            own = np.sqrt(1 - CROP_SHARE) * _noise(rng, scene.shape)
            crops[c] = np.maximum(0.5 + 0.3 * (scene + shown * event + shared + own), 0)
        return crops

    def _rng(self, purpose: str, split: str = "", index: int = 0) -> np.random.Generator:
        key = list(f"{purpose}/{split}".encode())
        return np.random.default_rng([GENERATOR_VERSION, self._size.seed, index, *key])

    def _decide_split(self, split: SplitName) -> list[DemoVideo]:
        rng = self._rng("split", split)
        count = self._size.train_videos if split == "train" else self._size.test_videos
        violent = np.arange(count) < min(max(round(_VIOLENT_SHARE[split] * count), 1), count - 1)
        rng.shuffle(violent)
        sources = _share_sources(rng, count) + (0 if split == "train" else 1_000_000)
        return [self._decide_video(split, i, int(sources[i]), bool(violent[i])) for i in range(count)]

    def _decide_video(self, split: SplitName, index: int, source: int, violent: bool) -> DemoVideo:
        rng = self._rng("plan", split, index)
        size = self._size
        length = int(rng.integers(size.min_snippets, size.max_snippets + 1))
        # As in the real data, audio may have a row more or less.
        audio_length = max(1, length + int(rng.choice((-1, 0, 1), p=(0.03, 0.94, 0.03))))
        categories = tuple(
            str(c) for c in rng.permutation(_CATEGORIES)[: rng.choice((1, 2, 3), p=(0.7, 0.2, 0.1))]
        )
        visual_events, audio_events = _place_events(rng, length) if violent else ((), ())
        name = _make_name(rng, self._rng("name", str(source)), source, index, categories if violent else ())
        return DemoVideo(
            split,
            index,
            source,
            name,
            categories if violent else (),
            length,
            audio_length,
            visual_events,
            audio_events,
        )


class _Modality:
    """The directions of one modality, unit length, and how strong a cue is along them."""

    def __init__(self, rng: np.random.Generator, dim: int, cue: float) -> None:
        self._cue = cue
        self._nuisances = _unit(rng.standard_normal((min(_NUISANCES, dim // 4), dim)))
        self._activities = _unit(rng.standard_normal((_ACTIVITIES, dim)))
        common, own = _unit(rng.standard_normal(dim)), _unit(rng.standard_normal((len(_CATEGORIES), dim)))
        violence = COMMON_SHARE * common + CATEGORY_SHARE * own + NUISANCE_SHARE * self._nuisances[0]
        self._violence = dict(zip(_CATEGORIES, _unit(violence), strict=True))
        others = _unit(rng.standard_normal((_DISTRACTORS, dim)))
        self._distractors = _unit(DISTRACTOR_OVERLAP * common + np.sqrt(1 - DISTRACTOR_OVERLAP**2) * others)

    def draw(
        self,
        rng: np.random.Generator,
        source: np.random.Generator,
        video: DemoVideo,
        length: int,
        events: Sequence[Interval],
        distractors: Sequence[Interval],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return scene and event signals (T, D), without the noise of the features."""
        count = len(self._nuisances)
        level = SOURCE_LEVEL * source.standard_normal(count) + VIDEO_LEVEL * rng.standard_normal(count)
        weights = level + DRIFT * _drift(rng, length, count)
        # einsum and not matmul: a BLAS library's last bits depend on its number of threads.
        scene = np.einsum("tk,kd->td", weights, self._nuisances)
        for direction in self._activities[rng.random(_ACTIVITIES) < 0.3]:
            scene += np.outer(2 * rng.uniform(0.5, 1.5) * _activity(rng, length), direction)
        event = np.zeros_like(scene)
        for interval in distractors:
            event += np.outer(
                self._strength(rng, interval, length), self._distractors[rng.integers(_DISTRACTORS)]
            )
        gain = rng.uniform(0.6, 1.4)
        for interval in events:
            direction = self._violence[video.categories[rng.integers(len(video.categories))]]
            event += np.outer(gain * self._strength(rng, interval, length), direction)
        return scene, event

    def _strength(self, rng: np.random.Generator, interval: Interval, length: int) -> np.ndarray:
        """Strength of an event in each snippet: none outside, at its edges by the frames covered, uneven inside."""
        starts = SNIPPET_FRAMES * np.arange(length)
        covered = np.minimum(interval[1], starts + SNIPPET_FRAMES) - np.maximum(interval[0], starts)
        return self._cue * rng.uniform(0.3, 1.2, length) * np.clip(covered / SNIPPET_FRAMES, 0, 1)


def _place_events(rng: np.random.Generator, length: int) -> tuple[tuple[Interval, ...], tuple[Interval, ...]]:
    """Place one to three violent events: visual and, shifted and of another length, audio."""
    frames = SNIPPET_FRAMES * length
    visual_events, audio_events = [], []
    for _ in range(rng.integers(1, 4)):
        duration = min(
            int(rng.integers(3 * SNIPPET_FRAMES, 10 * SNIPPET_FRAMES)), max(frames // 2, SNIPPET_FRAMES)
        )
        # Some events run to the very end of their video.
        start = frames - duration if rng.random() < 0.1 else int(rng.integers(0, frames - duration + 1))
        shift = int(rng.integers(-4 * SNIPPET_FRAMES, 4 * SNIPPET_FRAMES + 1))
        audio_start = min(max(start + shift, 0), frames - SNIPPET_FRAMES)
        audio_end = min(audio_start + int(duration * rng.uniform(0.6, 1.2)) + 1, frames)
        kind = rng.choice(("both", "visual", "audio"), p=(0.85, 0.075, 0.075))
        if kind != "audio":
            visual_events.append((start, start + duration))
        if kind != "visual":
            audio_events.append((audio_start, audio_end))
    return tuple(visual_events), tuple(audio_events)


def _place_distractors(rng: np.random.Generator, length: int) -> tuple[list[Interval], list[Interval]]:
    """Place up to three harmless events, each visual only or audio only."""
    placed: tuple[list[Interval], list[Interval]] = ([], [])
    frames = SNIPPET_FRAMES * length
    for _ in range(rng.integers(0, 4)):
        duration = min(int(rng.integers(3 * SNIPPET_FRAMES, 10 * SNIPPET_FRAMES)), frames)
        start = int(rng.integers(0, frames - duration + 1))
        placed[rng.integers(2)].append((start, start + duration))
    return placed


def _activity(rng: np.random.Generator, length: int) -> np.ndarray:
    duration = int(rng.integers(5, 20))
    start = int(rng.integers(1 - duration, length))
    snippets = np.arange(length)
    return ((snippets >= start) & (snippets < start + duration)).astype(float)


def _drift(rng: np.random.Generator, length: int, count: int) -> np.ndarray:
    """Draw `count` slow random walks that stay put (autoregressive, 0.9 a snippet), of deviation 1."""
    steps = rng.standard_normal((length, count))
    for t in range(1, length):
        steps[t] = 0.9 * steps[t - 1] + np.sqrt(1 - 0.9**2) * steps[t]
    return steps


def _share_sources(rng: np.random.Generator, count: int) -> np.ndarray:
    """Number the source of each clip: as in XD-Violence, about two thirds share theirs with another clip."""
    groups = rng.choice((1, 2, 3, 4), size=count, p=(0.6, 0.2, 0.12, 0.08))
    sources = np.repeat(np.arange(count), groups)[:count]
    rng.shuffle(sources)
    return sources


def _make_name(
    rng: np.random.Generator,
    source_rng: np.random.Generator,
    source: int,
    index: int,
    categories: Sequence[str],
) -> str:
    minute, second = int(rng.integers(60)), int(rng.integers(60))
    # The index as the hour keeps clips of one source apart.
    clip = f"{index:02d}-{minute:02d}-{second:02d}_{index:02d}-{minute:02d}-{second:02d}"
    if source % 2:
        title = f"Demo.Film.{source:04d}.{source_rng.integers(1970, 2020)}"
    else:
        alphabet = np.array(list(string.ascii_letters + string.digits + "-"))
        title = "v=" + "".join(source_rng.choice(alphabet, 6)) + f"{source:05d}"
    codes = [*categories, *["0"] * (3 - len(categories))] if categories else ["A"]
    return f"{title}__#{clip}_label_{'-'.join(codes)}"


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.sqrt((vectors**2).sum(-1, keepdims=True))
