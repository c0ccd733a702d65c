"""What the writer of a demo has to know: its videos, and what draws their features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from macil.data.xd.annotations import Interval
from macil.data.xd.folders import SplitName


@dataclass(frozen=True)
class DemoVideo:
    """The properties of a video that are fixed before its features are drawn. Intervals of frames are half-open."""

    split: SplitName
    index: int
    source: int
    name: str
    categories: tuple[str, ...]
    length: int
    audio_length: int
    visual_events: tuple[Interval, ...]
    audio_events: tuple[Interval, ...]

    @property
    def violent(self) -> bool:
        """Whether it has a violent event, visual or audio."""
        return bool(self.categories)

    @property
    def intervals(self) -> list[Interval]:
        """Violent frames: the union of visual and audio events, sorted."""
        merged: list[Interval] = []
        for start, end in sorted((*self.visual_events, *self.audio_events)):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged


class Demo(Protocol):
    """A demo data set before it is written."""

    @property
    def videos(self) -> tuple[DemoVideo, ...]:
        """All videos, those of the training first."""

    @property
    def visual_shape(self) -> tuple[int, int]:
        """Crops, and features of a snippet of each."""

    @property
    def audio_dim(self) -> int:
        """Features of sound of a snippet."""

    def draw(self, video: DemoVideo) -> tuple[np.ndarray, np.ndarray]:
        """Visual features (crops, T, Dv), non-negative as I3D's are, and audio features (Ta, Da), float32."""
