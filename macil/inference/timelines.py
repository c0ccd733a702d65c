"""Score timelines: the scores of a video from its beginning to its end, as PNG and SVG.

Positions in the lower strip repeat the meaning of each colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from macil.inference.segments import Segment, SegmentRule
from macil.io.pictures import BLACK, COLOURS, WIDTH, save_picture, shorten
from macil.io.wording import clock

_SCORE, _FOUND, _TRUTH = COLOURS[0], COLOURS[1], COLOURS[4]
_LONGEST_TITLE = 88  # characters that fit the width
_IN_MINUTES = 180.0  # seconds from which the time axis counts minutes
_STEPS = (30, 60, 120, 300, 600, 900, 1800, 3600)  # seconds between ticks that read well in minutes
_MOST_TICKS = 10
_DENSE = 600  # snippets from which the line is thinner


def draw_timeline(
    path: Path,
    name: str,
    scores: np.ndarray,
    segments: Sequence[Segment],
    rule: SegmentRule,
    truth: np.ndarray | None = None,
) -> list[Path]:
    """Write `path`.png and `path`.svg, and return both.

    Args:
        path: Without its ending.
        name: Of the video.
        scores: (T,) snippet scores, T at least 1.
        segments: What `find_segments` gave for them.
        rule: Its rule.
        truth: Frame labels (snippet_frames * T,), 1 = violent; None where they are not known.
    """
    saved = save_picture(
        lambda: _figure(name, scores, segments, rule, truth), path.parent, path.name, grid=False
    )
    assert saved is not None
    return list(saved)


def true_spans(truth: np.ndarray) -> list[tuple[int, int]]:
    """Half-open runs of violent frames."""
    edges = np.flatnonzero(np.diff(truth.astype(bool), prepend=False, append=False))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _figure(
    name: str,
    scores: np.ndarray,
    segments: Sequence[Segment],
    rule: SegmentRule,
    truth: np.ndarray | None,
) -> Figure:
    rows = 1 if truth is None else 2
    figure = Figure(figsize=(WIDTH, 2.1 + 0.2 * rows), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.55, 0.2 * rows])
    found = [(rule.seconds(segment.start), rule.seconds(segment.end)) for segment in segments]
    spans = [] if truth is None else [(a / rule.fps, b / rule.fps) for a, b in true_spans(truth)]

    for start, end in spans:
        upper.axvspan(start, end, color=_TRUTH, alpha=0.25, linewidth=0)
    edges = rule.seconds(1) * np.arange(len(scores) + 1)
    # A line, unlike a patch, is simplified where a pixel holds many snippets: films draw in no time.
    upper.plot(
        edges,
        np.append(scores, scores[-1]),
        drawstyle="steps-post",
        color=_SCORE,
        linewidth=1.4 if len(scores) < _DENSE else 0.8,
    )
    upper.axhline(rule.threshold, color=BLACK, linewidth=0.9, linestyle=(0, (5, 2)))
    upper.annotate(
        f"threshold {rule.threshold:g}",
        (1, rule.threshold),
        xycoords=upper.get_yaxis_transform(),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=BLACK,
    )
    upper.set_ylim(-0.03, 1.03)
    upper.set_yticks([0, 0.5, 1])
    upper.set_ylabel("score")
    upper.grid(axis="y")
    upper.tick_params(axis="x", length=0)  # the strip below has the ticks
    upper.set_title(shorten(name, _LONGEST_TITLE), loc="left")

    _draw_strip(
        lower, [("detected", found, _FOUND), *([("annotated", spans, _TRUTH)] if truth is not None else [])]
    )
    _set_time_axis(lower, rule.seconds(len(scores)))
    return figure


def _draw_strip(axes: Axes, rows: Sequence[tuple[str, Sequence[tuple[float, float]], str]]) -> None:
    """One bar row each, the first on top."""
    for index, (_, spans, colour) in enumerate(rows):
        widths = [(start, end - start) for start, end in spans]
        axes.broken_barh(widths, (index - 0.36, 0.72), facecolors=colour, linewidth=0)
    axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _set_time_axis(axes: Axes, seconds: float) -> None:
    axes.set_xlim(0, seconds)
    if seconds < _IN_MINUTES:
        axes.set_xlabel("time (s)")
        return
    step = next((step for step in _STEPS if seconds <= _MOST_TICKS * step), seconds / _MOST_TICKS)
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: clock(value)))
    axes.set_xlabel("time (min:s)")
