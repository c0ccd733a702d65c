"""Scores of test videos over time, of videos that are chosen by rule (as Figure 6 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from macil.data.store.feature_store import TestLabels
from macil.evaluation.average_precision import frame_average_precision
from macil.inference.segments import SegmentRule
from macil.inference.timelines import true_spans
from macil.io.pictures import COLOURS, WIDTH, shorten
from tune.reporting.figures.axes import (
    unique_handles,
)
from tune.reporting.figures.drawing import Drawing
from tune.reporting.figures.figure_data import FigureData

FRAMES_PER_SECOND = SegmentRule().fps


def timelines(data: FigureData) -> Drawing | None:
    """The figure of the reported training.

    Raises:
        DataError: See `FigureData.measured`.
    """
    first = data.measured[0]
    lengths = data.store.videos("test").lengths
    videos = choose_timelines(first.scores, data.labels, lengths, first.frames)
    if not videos:
        return None
    caption = (
        "Snippet scores of test videos, frames labelled violent shaded. Chosen by rule, not by eye: of the videos with "
        "violent and other frames those of the highest, the median and the lowest AP of their own (step-wise), of the "
        "videos without violence those of the highest and the median peak. Seconds: "
        f"{first.frames} frames a snippet, {FRAMES_PER_SECOND:g} a second. "
        f"{data.reported[0].upper()}{data.reported[1:]}, seed {first.seed}. {data.basis(1)}"
    )
    alt = "; ".join(
        f"{video.why}{'' if video.ap is None else f' {100 * video.ap:.1f} %'}: {video.name}, scores from "
        f"{video.scores.min():.2f} to {video.scores.max():.2f}"
        for video in videos
    )
    return Drawing(
        "Scores of chosen test videos (as Figure 6 of the paper)",
        caption,
        f"{alt}.",
        lambda: draw(videos, first.frames),
    )


@dataclass(frozen=True)
class Timeline:
    """One test video: why it was chosen, its scores (T,), its frame labels (T * frames,), its own step-wise AP."""

    why: str
    name: str
    scores: np.ndarray
    labels: np.ndarray
    ap: float | None


def choose_timelines(
    scores: np.ndarray, labels: TestLabels, lengths: np.ndarray, frames: int
) -> list[Timeline]:
    """The videos that are shown: chosen by rule, so that nobody chooses them.

    Of the test videos with both violent and other frames those of the highest, the median and the lowest AP of their
    own; of those without violent frames the one with the highest peak of its scores, and the median one. Ties go to the
    first by name; of few videos there are fewer timelines.

    Args:
        scores: (S,) of all test snippets.
        labels: In the same order.
        lengths: (V,) snippets of each video.
        frames: Frames of a snippet.
    """
    ends = np.cumsum(lengths)
    own_scores = np.split(scores, ends[:-1])
    own_labels = np.split(labels.frame_labels, ends[:-1] * frames)
    mixed = [i for i, own in enumerate(own_labels) if own.any() and not own.all()]
    precision = {i: frame_average_precision(own_scores[i], own_labels[i], frames).ap for i in mixed}
    mixed.sort(key=lambda i: -precision[i])
    normal = sorted(
        (i for i, own in enumerate(own_labels) if not own.any()), key=lambda i: -own_scores[i].max()
    )
    chosen: dict[int, str] = {}
    for index, why in ((0, "highest AP"), (len(mixed) // 2, "median AP"), (-1, "lowest AP")):
        if mixed:
            chosen.setdefault(mixed[index], why)
    for index, why in ((0, "normal, highest peak"), (len(normal) // 2, "normal, median peak")):
        if normal:
            chosen.setdefault(normal[index], why)
    return [
        Timeline(why, labels.names[i], own_scores[i], own_labels[i], precision.get(i))
        for i, why in chosen.items()
    ]


def draw(videos: Sequence[Timeline], frames: int) -> Figure:
    """Scores over seconds, one panel a video, violent frames shaded."""
    figure = Figure(figsize=(WIDTH, 0.5 + 1.15 * len(videos)), layout="constrained")
    panels = figure.subplots(len(videos), 1, squeeze=False)[:, 0]
    for axes, video in zip(panels, videos, strict=True):
        edges = np.arange(len(video.scores) + 1) * frames / FRAMES_PER_SECOND
        axes.stairs(
            video.scores, edges, color=COLOURS[0], linewidth=1.3, label="score of a snippet", baseline=None
        )
        for begin, end in true_spans(video.labels):
            axes.axvspan(
                begin / FRAMES_PER_SECOND,
                end / FRAMES_PER_SECOND,
                facecolor=COLOURS[4],
                edgecolor=COLOURS[1],
                alpha=0.35,
                hatch="///",
                linewidth=0,
                zorder=0.5,
                label="labelled violent",
            )
        ap = "" if video.ap is None else f" {100 * video.ap:.1f} %"
        axes.set_title(f"{video.why}{ap}: {shorten(video.name, 60)}", loc="left", fontsize=8.5)
        axes.set(xlim=(0, edges[-1]), ylim=(0, 1.02), yticks=(0, 0.5, 1))
        axes.xaxis.set_major_locator(MaxNLocator(8))
    panels[-1].set_xlabel("seconds")
    figure.supylabel("violence score", fontsize=8.5)
    figure.legend(*unique_handles(panels), loc="outside lower center", ncols=2)
    return figure
