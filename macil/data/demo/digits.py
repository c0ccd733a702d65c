"""The embedded demo: real images and real sounds in a made-up story, in the XD-Violence layout.

Somebody shows numbers and somebody calls numbers, all day long. An event, which stands where XD-Violence has violence,
is a while in which a 2 or a 5 is shown and, up to two snippets earlier or later, called. Images are handwritten digits
(scikit-learn's `load_digits`), sounds are spoken digits (`speech.npz`); NOTICE beside it names sources and licences. No
image and no recording is in both splits.

What makes it hard: other numbers are shown and called in every video; 2 and 5 are also faintly shown or called where
there is no event; images and sounds are noisy, and nobody says when in a video the event is.

Other stories can be told with the same digits (`Story`). The demo takes half of the images and half of the speakers, so
that one with the other half confirms what was found on the demo.

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

DEMO_VERSION = (
    3  # 1 is the generated set, which was the embedded demo before; 2 had all images and all speakers
)

VISUAL_DIM, AUDIO_DIM, CROPS = 1024, 128, 5

Range = tuple[int, int]
"""From, to, both possible"""


@dataclass(frozen=True)
class Story:
    """What is told with the digits. Lengths and shifts are in snippets, numbers of things are a video's.

    Attributes:
        key: Of its random numbers.
        train, test: Videos; half of them have an event.
        event: The digits of an event, at most three.
        images: Of scikit-learn's images those of the training, and those of the test, as index ranges. The set is in
            the order in which it was written, so that most writers are in one part.
        speakers: Of the six of the recordings, by their place.
        snippets: Length of a video.
        events, event_length, shift: Of a video with an event; the sound comes so much later than the image.
        ordinaries, ordinary_length: Other digits.
        distractors, distractor_length: Digits of an event, faint and only seen or only heard.
        visual_noise: Deviation, of 256, of a pixel between white and black.
        audio_noise: Deviation, of 256, of a feature of sound in its own deviation.
    """

    key: int
    train: int
    test: int
    event: tuple[int, ...]
    images: tuple[range, range]
    speakers: tuple[int, ...]
    snippets: Range
    events: Range
    event_length: Range
    shift: Range
    ordinaries: Range
    ordinary_length: Range
    distractors: Range
    distractor_length: Range
    visual_noise: int
    audio_noise: int

    def count(self, split: SplitName) -> int:
        """Videos of a split."""
        return self.train if split == "train" else self.test

    @property
    def ordinary(self) -> tuple[int, ...]:
        """The digits that make no event."""
        return tuple(digit for digit in range(10) if digit not in self.event)

    @property
    def nbytes(self) -> int:
        """Bytes of features, about."""
        return 4 * (self.train + self.test) * sum(self.snippets) // 2 * (CROPS * VISUAL_DIM + AUDIO_DIM)


DEMO = Story(
    key=DEMO_VERSION,
    train=120,
    test=80,
    event=(2, 5),  # B2 and B5
    images=(range(600), range(1200, 1500)),
    speakers=(0, 2, 4),
    snippets=(8, 16),
    events=(1, 1),
    event_length=(3, 5),
    shift=(-2, 2),
    ordinaries=(1, 3),
    ordinary_length=(2, 4),
    distractors=(0, 1),
    distractor_length=(1, 2),
    visual_noise=24,
    audio_noise=64,
)

# How much of an image or a sound is there, of 256.
EVENT_STRENGTH, ORDINARY_STRENGTH, DISTRACTOR_STRENGTH = (224, 256), (128, 256), (48, 112)

# Recordings of the test, of those of each speaker and digit.
_SPEAKERS, _TAKES, _TEST_TAKES = 6, 50, 12
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
    """Draws the videos of a story; the features of each depend on its own place, not on those drawn before.

    Args:
        story: What is told; the embedded demo's.
    """

    visual_shape, audio_dim = (CROPS, VISUAL_DIM), AUDIO_DIM

    def __init__(self, story: Story = DEMO) -> None:
        self.story = story
        self.videos = tuple(video for split in SPLITS for video in _decide_split(story, split))

    def draw(self, video: DemoVideo) -> tuple[np.ndarray, np.ndarray]:
        """Return visual features (crops, T, Dv), non-negative as I3D's are, and audio features (T, Da), float32."""
        story = self.story
        dice = _dice(story, "features", video.split, video.index)
        pixels = _GREY + dice.noise(video.length, 64, story.visual_noise)
        sound = dice.noise(video.length, AUDIO_DIM, story.audio_noise)
        for scene in [*_ordinary_scenes(dice, story, video), *_events(video)]:
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
        dice = _dice(self.story, "layers")
        return _Layer(dice, 64, _HIDDEN), _Layer(dice, _HIDDEN, VISUAL_DIM)

    @cached_property
    def _images(self) -> _Examples:
        from sklearn.datasets import load_digits  # takes a second, and only a new demo needs it

        pixels, digits = load_digits(return_X_y=True)
        train, test = (np.isin(np.arange(len(digits)), part) for part in self.story.images)
        # Of 0 to 16.
        return _Examples(16 * pixels.astype(np.int64), digits, {"train": train, "test": test})

    @cached_property
    def _recordings(self) -> _Examples:
        with (files(__package__) / "speech.npz").open("rb") as file, np.load(file) as speech:
            features, digits, of_test = speech["features"], speech["digit"], speech["take"] < _TEST_TAKES
        # Of each digit one speaker comes after the other.
        told = np.isin(np.arange(len(digits)) // _TAKES % _SPEAKERS, self.story.speakers)
        train = told & ~of_test
        known = np.rint(features.astype(np.float64) * 256).astype(np.int64)
        ours = known[train]
        known -= ours.sum(0) // len(ours)
        variance = (known[train] ** 2).sum(0) // len(ours)
        deviation = np.array([isqrt(int(value)) for value in variance])
        return _Examples(256 * known // deviation, digits, {"train": train, "test": told & of_test})


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

    def __init__(self, rows: np.ndarray, digits: np.ndarray, parts: dict[SplitName, np.ndarray]) -> None:
        self._rows = rows
        self._indices = {
            (digit, split): np.flatnonzero((digits == digit) & part)
            for digit in range(10)
            for split, part in parts.items()
        }

    def draw(self, dice: Dice, digit: int, split: SplitName) -> np.ndarray:
        return self._rows[dice.pick(self._indices[digit, split])]


def _dice(story: Story, purpose: str, split: str = "", index: int = 0) -> Dice:
    return Dice(story.key, index, *f"{purpose}/{split}".encode())


def _to_float(values: np.ndarray, unit: int) -> np.ndarray:
    """Whole numbers in units of `unit`, a power of two: exact in float32."""
    return values.astype(np.float32) / np.float32(unit)


def _decide_split(story: Story, split: SplitName) -> list[DemoVideo]:
    dice, count = _dice(story, "split", split), story.count(split)
    violent = 2 * dice.order(count) < count
    # Every other video goes on with the source of the one before: two thirds share theirs, as in XD-Violence.
    sources = np.cumsum(dice.below(2, count))
    return [_decide_video(story, split, i, int(sources[i]), bool(violent[i])) for i in range(count)]


def _decide_video(story: Story, split: SplitName, index: int, source: int, violent: bool) -> DemoVideo:
    dice = _dice(story, "video", split, index)
    length = dice.between(*story.snippets)
    digits = [story.event[i] for i in dice.order(len(story.event))[: 1 if dice.between(0, 3) else 2]]
    seen, heard = [], []
    for _ in range(dice.between(*story.events) if violent else 0):
        duration = dice.between(*story.event_length)
        start = dice.between(0, length - duration)
        shifted = min(max(start + dice.between(*story.shift), 0), length - duration)
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


def _ordinary_scenes(dice: Dice, story: Story, video: DemoVideo) -> list[_Scene]:
    """Ordinary numbers, seen, heard or both; and numbers of an event, faint and only seen or only heard."""
    scenes = []
    for _ in range(dice.between(*story.ordinaries)):
        interval = _place(dice, video, story.ordinary_length)
        kind = dice.between(0, 2)
        seen, heard = interval if kind != 0 else None, interval if kind != 1 else None
        scenes.append(_Scene(story.ordinary, ORDINARY_STRENGTH, seen, heard))
    for _ in range(dice.between(*story.distractors)):
        interval = _place(dice, video, story.distractor_length)
        seen, heard = (interval, None) if dice.between(0, 1) else (None, interval)
        scenes.append(_Scene(story.event, DISTRACTOR_STRENGTH, seen, heard))
    return scenes


def _place(dice: Dice, video: DemoVideo, lengths: tuple[int, int]) -> Interval:
    start = dice.between(0, video.length - 1)
    return start, min(start + dice.between(*lengths), video.length)
