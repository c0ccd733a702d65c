"""The embedded demo: real images and real sounds in a made-up story, in the XD-Violence layout.

Somebody shows numbers and somebody calls numbers, all day long. An event, which stands where XD-Violence has violence,
is a while in which a 2 or a 5 is shown and, up to two snippets earlier or later, called. Images are handwritten digits
(scikit-learn's `load_digits`), sounds are spoken digits (`speech.npz`); NOTICE beside it names sources and licences. No
image and no recording is in both splits.

What makes it hard: other numbers are shown and called in every video; 2 and 5 are also faintly shown or called where
there is no event; images and sounds are noisy, and nobody says when in a video the event is.

Every host writes the same bytes: all is computed in whole numbers, up to one exact division by a power of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from math import isqrt

import numpy as np

from macil.data.demo.dice import Dice
from macil.data.demo.video import DemoVideo
from macil.data.xd.annotations import SNIPPET_FRAMES, Interval
from macil.data.xd.folders import SPLITS, SplitName

DEMO_VERSION = 2  # 1 is the generated set, which was the embedded demo before

VISUAL_DIM, AUDIO_DIM, CROPS = 1024, 128, 5
# Half of them have an event.
VIDEOS: dict[SplitName, int] = {"train": 120, "test": 80}

# From, to. Numbers of things are a video's, lengths and shifts are in snippets.
SNIPPETS = (8, 16)
EVENT_LENGTH, SHIFT = (3, 5), (-2, 2)
ORDINARIES, ORDINARY_LENGTH = (1, 3), (2, 4)
DISTRACTORS, DISTRACTOR_LENGTH = (0, 1), (1, 2)
# Bytes of features, about.
NBYTES = 4 * sum(VIDEOS.values()) * sum(SNIPPETS) // 2 * (CROPS * VISUAL_DIM + AUDIO_DIM)
# How much of an image or a sound is there, of 256.
EVENT_STRENGTH, ORDINARY_STRENGTH, DISTRACTOR_STRENGTH = (224, 256), (128, 256), (48, 112)
# Deviations of the noise, of 256: of a pixel between white and black; of a feature of sound, in its own deviation.
VISUAL_NOISE, AUDIO_NOISE = 24, 64

EVENT = (2, 5)  # B2 and B5
ORDINARY = tuple(digit for digit in range(10) if digit not in EVENT)

# Images of the test; the set is in the order in which it was written, so that most writers are in one part.
_FIRST_TEST_IMAGE = 1200
# Recordings of the test, of the 50 of each speaker and digit.
_TEST_TAKES = 12
_GREY, _BLACK = 40, 340
# From 64 pixels to 256 and to 1024 features, each of 8 of those before.
_HIDDEN, _TAPS = 256, 8
_SCALE = 1024
# What a crop sees: the picture moved by so many pixels down and to the right.
_MOVES = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))


@dataclass(frozen=True)
class _Scene:
    """Numbers that are shown, called or both for a while: intervals of snippets, None for never."""

    digits: tuple[int, ...]
    strength: tuple[int, int]
    seen: Interval | None
    heard: Interval | None


class DigitsDemo:
    """Draws the videos of the demo; the features of each depend on its own place, not on those drawn before."""

    visual_shape, audio_dim = (CROPS, VISUAL_DIM), AUDIO_DIM

    def __init__(self) -> None:
        self.videos = tuple(video for split in SPLITS for video in _decide_split(split))

    def draw(self, video: DemoVideo) -> tuple[np.ndarray, np.ndarray]:
        """Return visual features (crops, T, Dv), non-negative as I3D's are, and audio features (T, Da), float32."""
        dice = _dice("features", video.split, video.index)
        pixels = _GREY + dice.noise(video.length, 64, VISUAL_NOISE)
        sound = dice.noise(video.length, AUDIO_DIM, AUDIO_NOISE)
        for scene in [*_ordinary_scenes(dice, video), *_events(video)]:
            for examples, interval, stream in (
                (self._images, scene.seen, pixels),
                (self._recordings, scene.heard, sound),
            ):
                for t in range(*interval) if interval else ():
                    digit = dice.pick(np.array(scene.digits))
                    example = examples.draw(dice, digit, video.split)
                    stream[t] += example * dice.between(*scene.strength) // 256
        return self._draw_crops(pixels), _to_float(sound, 256)

    def _draw_crops(self, pixels: np.ndarray) -> np.ndarray:
        pictures = np.clip(pixels, 0, _BLACK).reshape(-1, 8, 8)
        crops = []
        for move in _MOVES:
            rows = np.roll(pictures, move, (1, 2)).reshape(-1, 64)
            for layer in self._layers:
                rows = layer.transform(rows)
            crops.append(_to_float(rows, _SCALE))
        return np.stack(crops)

    @cached_property
    def _layers(self) -> tuple[_Layer, _Layer]:
        dice = _dice("layers")
        return _Layer(dice, 64, _HIDDEN), _Layer(dice, _HIDDEN, VISUAL_DIM)

    @cached_property
    def _images(self) -> _Examples:
        from sklearn.datasets import load_digits  # takes a second, and only a new demo needs it

        pixels, digits = load_digits(return_X_y=True)
        # Of 0 to 16.
        return _Examples(16 * pixels.astype(np.int64), digits, np.arange(len(digits)) >= _FIRST_TEST_IMAGE)

    @cached_property
    def _recordings(self) -> _Examples:
        with (files(__package__) / "speech.npz").open("rb") as file, np.load(file) as speech:
            features, digits, of_test = speech["features"], speech["digit"], speech["take"] < _TEST_TAKES
        known = np.rint(features.astype(np.float64) * 256).astype(np.int64)
        ours = known[~of_test]
        known -= ours.sum(0) // len(ours)
        variance = (known[~of_test] ** 2).sum(0) // len(ours)
        deviation = np.array([isqrt(int(value)) for value in variance])
        return _Examples(256 * known // deviation, digits, of_test)


class _Layer:
    """Each unit is the sum of a few of the layer before, added or taken away, and 0 where that is negative."""

    def __init__(self, dice: Dice, width: int, units: int) -> None:
        self._taps = dice.below(width, _TAPS * units).reshape(_TAPS, units)
        self._signs = 1 - 2 * dice.below(2, _TAPS * units).reshape(_TAPS, units)

    def transform(self, rows: np.ndarray) -> np.ndarray:
        # One tap after the other: int64 sums are exact in any order, and no BLAS takes part.
        total = np.zeros((len(rows), self._taps.shape[1]), np.int64)
        for taps, signs in zip(self._taps, self._signs, strict=True):
            total += rows[:, taps] * signs
        return np.maximum(total, 0)


class _Examples:
    """Images or recordings, by digit and split."""

    def __init__(self, rows: np.ndarray, digits: np.ndarray, of_test: np.ndarray) -> None:
        self._rows = rows
        self._indices = {
            (digit, split): np.flatnonzero((digits == digit) & (of_test == (split == "test")))
            for digit in range(10)
            for split in SPLITS
        }

    def draw(self, dice: Dice, digit: int, split: SplitName) -> np.ndarray:
        return self._rows[dice.pick(self._indices[digit, split])]


def _dice(purpose: str, split: str = "", index: int = 0) -> Dice:
    return Dice(DEMO_VERSION, index, *f"{purpose}/{split}".encode())


def _to_float(values: np.ndarray, unit: int) -> np.ndarray:
    """Whole numbers in units of `unit`, a power of two: exact in float32."""
    return values.astype(np.float32) / np.float32(unit)


def _decide_split(split: SplitName) -> list[DemoVideo]:
    dice, count = _dice("split", split), VIDEOS[split]
    violent = 2 * dice.order(count) < count
    # Every other video goes on with the source of the one before: two thirds share theirs, as in XD-Violence.
    sources = np.cumsum(dice.below(2, count))
    return [_decide_video(split, i, int(sources[i]), bool(violent[i])) for i in range(count)]


def _decide_video(split: SplitName, index: int, source: int, violent: bool) -> DemoVideo:
    dice = _dice("video", split, index)
    length = dice.between(*SNIPPETS)
    digits = [EVENT[i] for i in dice.order(len(EVENT))[: 1 if dice.between(0, 3) else 2]]
    seen, heard = [], []
    for _ in range(violent):
        duration = dice.between(*EVENT_LENGTH)
        start = dice.between(0, length - duration)
        shifted = min(max(start + dice.between(*SHIFT), 0), length - duration)
        seen.append(_frames(start, duration))
        heard.append(_frames(shifted, duration))
    categories = tuple(f"B{digit}" for digit in digits) if violent else ()
    codes = "-".join([*categories, *["0"] * (3 - len(categories))]) if violent else "A"
    # The index as the hour keeps clips of one source apart.
    name = f"v=numbers.{split}.{source:03d}__#{index:03d}-00-00_{index:03d}-01-00_label_{codes}"
    return DemoVideo(split, index, source, name, categories, length, length, tuple(seen), tuple(heard))


def _frames(start: int, duration: int) -> Interval:
    return SNIPPET_FRAMES * start, SNIPPET_FRAMES * (start + duration)


def _events(video: DemoVideo) -> list[_Scene]:
    digits = tuple(int(code[1:]) for code in video.categories)
    snippets: Sequence[tuple[Interval, ...]] = [
        tuple((start // SNIPPET_FRAMES, end // SNIPPET_FRAMES) for start, end in pair)
        for pair in zip(video.visual_events, video.audio_events, strict=True)
    ]
    return [_Scene(digits, EVENT_STRENGTH, seen, heard) for seen, heard in snippets]


def _ordinary_scenes(dice: Dice, video: DemoVideo) -> list[_Scene]:
    """Ordinary numbers, seen, heard or both; and numbers of an event, faint and only seen or only heard."""
    scenes = []
    for _ in range(dice.between(*ORDINARIES)):
        interval = _place(dice, video, ORDINARY_LENGTH)
        kind = dice.between(0, 2)
        scenes.append(
            _Scene(
                ORDINARY, ORDINARY_STRENGTH, interval if kind != 0 else None, interval if kind != 1 else None
            )
        )
    for _ in range(dice.between(*DISTRACTORS)):
        interval = _place(dice, video, DISTRACTOR_LENGTH)
        seen = bool(dice.between(0, 1))
        scenes.append(
            _Scene(EVENT, DISTRACTOR_STRENGTH, interval if seen else None, None if seen else interval)
        )
    return scenes


def _place(dice: Dice, video: DemoVideo, lengths: tuple[int, int]) -> Interval:
    start = dice.between(0, video.length - 1)
    return start, min(start + dice.between(*lengths), video.length)
