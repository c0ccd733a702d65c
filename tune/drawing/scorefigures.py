"""Pictures of a training's scores on the test snippets: precision against recall, and timelines of chosen videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from macil.data.store import TestLabels
from macil.evaluation import frame_average_precision
from macil.look import BLACK, COLOURS, GREY, WIDTH, shorten
from macil.segments import SegmentRule
from macil.timelines import true_spans
from tune.drawing.figures import unique_handles

if TYPE_CHECKING:
    from tune.drawing.evidence import SeedScores

FRAMES_PER_SECOND = SegmentRule().fps


@dataclass(frozen=True)
class Timeline:
    """One test video: why it was chosen, its scores (T,), its frame labels (T * frames,), its own step-wise AP."""

    why: str
    name: str
    scores: np.ndarray
    labels: np.ndarray
    ap: float | None


def precision_recall(seeds: Sequence[SeedScores]) -> Figure:
    """Frame-level precision against recall, one line per seed, and the rate of violent frames as the chance line."""
    from sklearn.metrics import PrecisionRecallDisplay

    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    several = len(seeds) > 1
    for place, seed in enumerate(seeds):
        precision, recall = curve(seed)
        name = (
            f"{f'seed {seed.seed}: ' if several else ''}AP {100 * seed.ap_trapezoid:.2f} % trapezoidal, "
            f"{100 * seed.ap:.2f} % step-wise"
        )
        style: Any = {"color": COLOURS[0]} if place == 0 else {"color": GREY, "zorder": 1}
        PrecisionRecallDisplay(precision=precision, recall=recall).plot(
            ax=axes, name=name, curve_kwargs={"linewidth": 1.6 if place == 0 else 0.8, **style}
        )
    rate = seeds[0].positive.sum() / (seeds[0].frames * len(seeds[0].positive))
    axes.axhline(
        rate,
        color=BLACK,
        linestyle=(0, (4, 2)),
        linewidth=1,
        label=f"chance: {100 * rate:.1f} % of the frames",
    )
    axes.set(xlabel="recall, frames", ylabel="precision, frames", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_aspect("auto")
    legend = axes.get_legend()
    if legend is not None:
        legend.remove()  # scikit-learn's lies on the curves
    figure.legend(*unique_handles([axes]), loc="outside lower center", ncols=2)
    return figure


def curve(seed: SeedScores) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of frames, computed on snippets: each counts with its violent and its other frames."""
    from sklearn.metrics import precision_recall_curve

    count = len(seed.scores)
    precision, recall, _ = precision_recall_curve(
        np.repeat([1, 0], count),
        np.tile(seed.scores, 2),
        sample_weight=np.concatenate([seed.positive, seed.frames - seed.positive]),
    )
    return precision, recall


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
    for place, why in ((0, "highest AP"), (len(mixed) // 2, "median AP"), (-1, "lowest AP")):
        if mixed:
            chosen.setdefault(mixed[place], why)
    for place, why in ((0, "normal, highest peak"), (len(normal) // 2, "normal, median peak")):
        if normal:
            chosen.setdefault(normal[place], why)
    return [
        Timeline(why, labels.names[i], own_scores[i], own_labels[i], precision.get(i))
        for i, why in chosen.items()
    ]


def timelines(videos: Sequence[Timeline], frames: int) -> Figure | None:
    """Scores over seconds, one panel a video, violent frames shaded and ruled off below."""
    if not videos:
        return None
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
