"""Figures with one mark per trial or row."""

from __future__ import annotations

import itertools

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from macil.look import STYLE
from tune.drawing.marks import DotRow, dots


def drawn(rows: list[DotRow]) -> Figure:
    with mpl.rc_context(STYLE):
        figure = dots(rows, "AP")
        assert figure is not None
        FigureCanvasAgg(figure)
        figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize("count", [2, 12, 40])
def test_rows_keep_apart_however_many_there_are(count: int) -> None:
    rows = [
        DotRow(f"Λ_v2b {n}.0, Λ_v2n 1.5, r 0.1", (80.0 + n / 9, 81.0), 80.5, (79.0, 82.0), 83.4, 81.5)
        for n in range(count)
    ]
    figure = drawn(rows)
    (axes,) = figure.axes
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert len(boxes) == count
    assert all(above.y0 > below.y1 for above, below in itertools.pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0
    legend = figure.legends[0]
    assert legend.get_window_extent().y1 < axes.get_tightbbox().y0  # type: ignore[union-attr]
    assert [text.get_text() for text in legend.texts] == [
        "95 % t interval",
        "this run, mean over seeds",
        "one seed",
        "best test epoch (convention)",
        "paper (one seed)",
    ]


def test_marks_stand_at_their_values_and_every_one_is_in_view() -> None:
    figure = drawn(
        [
            DotRow("a", (70.0, 90.0), 80.0, (-47.0, 207.0), 71.37, 85.0),
            DotRow("b", (95.0,), 95.0, None, None, begins=True),
            DotRow("c", (), None, None, 99.0),
        ]
    )
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert low == pytest.approx(70 - 0.6 * 29)
    assert high == 100.5
    marks = {
        (str(line.get_label()), float(np.asarray(line.get_ydata())[0])): np.asarray(line.get_xdata()).tolist()
        for line in axes.get_lines()
    }
    assert marks["this run, mean over seeds", 0] == [80]
    assert marks["one seed", 0] == [70, 90]
    assert marks["best test epoch (convention)", 0] == [85]
    assert marks["paper (one seed)", 0] == [71.37]
    assert marks["this run, mean over seeds", 1] == [95]
    assert marks["paper (one seed)", 2] == [99]
    assert ("95 % t interval", 1) not in marks
    assert [0.5, 0.5] in [np.asarray(line.get_ydata()).tolist() for line in axes.get_lines()]


def test_rows_without_a_mean_are_no_figure() -> None:
    assert dots([DotRow("a", (), None, None, 83.4)], "AP") is None
