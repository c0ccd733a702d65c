"""The picture of the confirmation."""

from __future__ import annotations

import numpy as np
import pytest

from tune.reporting.figures.confirmation import Confirmation, draw, nth


def test_each_row_has_its_searched_score_its_seeds_their_mean_and_interval() -> None:
    rows = [
        Confirmation("trial 7", "winner", 0.9, (0.8, 0.82, 0.84)),
        Confirmation("trial 3", "", 0.88, (0.85,)),
        Confirmation("trial 1", "", None, ()),
    ]
    figure = draw(rows)
    assert figure is not None
    (axes,) = figure.axes
    drawn: dict[str, list[tuple[float, float]]] = {}
    for line in axes.get_lines():
        points = zip(
            np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist(), strict=True
        )
        drawn.setdefault(str(line.get_label()), []).extend(points)
    assert drawn["in the search (one seed)"] == [(0.9, 0), (0.88, 1)]
    assert drawn["one fresh seed"] == [(0.8, 0), (0.82, 0), (0.84, 0), (0.85, 1)]
    np.testing.assert_allclose(drawn["mean of the fresh seeds"], [(0.82, 0), (0.85, 1)])
    # t(0.975, 2 degrees of freedom) = 4.30265; one seed has no interval
    half = 4.30265 * 0.02 / 3**0.5
    np.testing.assert_allclose(drawn["95 % t interval"], [(0.82 - half, 0), (0.82 + half, 0)], rtol=1e-5)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["trial 7\nwinner", "trial 3", "trial 1"]
    assert draw(rows[2:]) is None


@pytest.mark.parametrize(
    ("rank", "text"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd"), (113, "113th")],
)
def test_ranks_are_written_as_they_are_said(rank: int, text: str) -> None:
    assert nth(rank) == text
