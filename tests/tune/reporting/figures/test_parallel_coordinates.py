"""Parallel coordinates: where lines pass, and which stand out."""

from __future__ import annotations

import itertools

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from macil.errors import DataError
from macil.io.pictures import STYLE
from tests.support.made_runs import conditional_results, search_results, spread
from tune.reporting.figures.parallel_coordinates import number_axis, parallel_coordinates
from tune.results.run import RunResults


def drawn(count: int) -> Figure:
    return drawn_of(search_results(spread(count)))


def drawn_of(results: RunResults) -> Figure:
    drawing = parallel_coordinates(results, results.trial_rows)
    assert drawing is not None
    with mpl.rc_context(STYLE):
        figure = drawing.draw()
        assert figure is not None
        FigureCanvasAgg(figure)
        figure.draw_without_rendering()
    return figure


def lines_of(figure: Figure) -> LineCollection:
    (lines,) = figure.axes[0].collections
    assert isinstance(lines, LineCollection)
    return lines


def test_of_many_lines_the_best_tenth_stands_out_and_lies_on_top() -> None:
    lines = lines_of(drawn(50))
    scores, widths = np.asarray(lines.get_array()), np.asarray(lines.get_linewidth())
    assert len(scores) == 50
    assert np.all(np.diff(scores) >= 0)
    assert scores[widths > 1].min() > scores[widths < 1].max()
    assert 5 <= (widths > 1).sum() <= 6
    assert len(set(np.asarray(lines_of(drawn(8)).get_linewidth()))) == 1


def test_a_line_passes_through_the_score_and_the_values_of_its_trial() -> None:
    lines = lines_of(drawn(8))
    scores = [0.9 - 0.1 * t["temperature"] - 0.01 * n / 7 for n, t in enumerate(spread(8))]
    np.testing.assert_allclose(np.asarray(lines.get_array()), sorted(scores))
    best = np.asarray(lines.get_segments()[-1])
    # The first of the trials: coldest, the lowest Λ_v2b and the highest Λ_v2n, the smallest of three widths.
    assert best.tolist() == [[0, 1], [1, 0], [2, 1], [3, 0], [4, 0], [5, 0], [6, 0]]
    heights = {float(segment[6][1]) for segment in map(np.asarray, lines.get_segments())}
    assert heights == {0.0, 0.5, 1.0}, "64, 128 and 256 are as far apart"


def test_every_upright_axis_has_its_symbol_and_plain_numbers_beside_one_another() -> None:
    figure = drawn(8)
    (axes,) = figure.axes
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["selection score", "Λ_v2b", "Λ_v2n", "r", "τ", "m", "d"]
    assert [text.get_text() for text in axes.texts][-3:] == ["64", "128", "256"]
    by_axis = itertools.groupby(axes.texts, key=lambda text: text.xy[0])  # type: ignore[attr-defined]
    boxes = [[text.get_window_extent() for text in texts] for _, texts in by_axis]
    assert len(boxes) == 7
    assert all(len(own) >= 2 for own in boxes), "an axis with one number says nothing of its scale"
    assert all(above.y0 > below.y1 for own in boxes for below, above in itertools.pairwise(own))
    assert min(box.x0 for own in boxes for box in own) >= 0
    assert max(box.x1 for own in boxes for box in own) <= figure.bbox.width


@pytest.mark.parametrize(
    ("values", "log", "positions", "texts"),
    [
        ([0.0, 5.0, 10.0], False, [0, 0.5, 1], ["0", "2", "4", "6", "8", "10"]),
        ([0.8, 0.9, 1.0], False, [0, 0.5, 1], ["0.80", "0.85", "0.90", "0.95", "1.00"]),
        ([0.1, 1.0, 10.0], True, [0, 0.5, 1], ["0.1", "0.5", "1", "5", "10"]),
        ([0.3, 0.3], False, [0.5, 0.5], ["0.3"]),
    ],
)
def test_an_axis_reaches_from_the_lowest_to_the_highest_value(
    values: list[float], log: bool, positions: list[float], texts: list[str]
) -> None:
    axis = number_axis("x", np.array(values), log=log)
    np.testing.assert_allclose(axis.positions, positions, atol=1e-12)
    assert [text for _, text in axis.ticks] == texts


def test_one_hyperparameter_or_one_trial_is_no_picture() -> None:
    results = search_results(spread(1))
    with pytest.raises(DataError, match="1 trials were trained to the end; at least 2"):
        parallel_coordinates(results, results.trial_rows)
    results = search_results(spread(8), space={"ramp": "0.02 to 3, logarithmic"})
    assert parallel_coordinates(results, results.trial_rows) is None


def test_a_line_breaks_where_its_trial_was_not_searched() -> None:
    results = conditional_results(9)
    drawing = parallel_coordinates(results, results.trial_rows)
    assert drawing is not None
    assert "A line breaks where a hyperparameter was not searched in its trial." in drawing.caption
    # In the order of TrialConfig behind the score: temperature, momentum, hidden size, contrast.
    heights = [np.asarray(segment)[:, 1] for segment in lines_of(drawn_of(results)).get_segments()]
    whole = [line for line in heights if len(line) == 5 and not np.isnan(line).any()]
    assert len(whole) == 6
    assert parallel_coordinates(search_results(spread(9)), results.trial_rows).caption.count("breaks") == 0  # type: ignore[union-attr]
