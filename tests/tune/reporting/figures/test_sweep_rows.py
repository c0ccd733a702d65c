"""Which figure a sweep gets, and what its rows are called there."""

from __future__ import annotations

import itertools
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from macil.io.pictures import STYLE
from tests.support.made_runs import sweep_results
from tune.planning.paper_sweeps import SWEEPS
from tune.reporting.figures.catalogue import entries
from tune.reporting.figures.drawing import Drawing
from tune.reporting.figures.sweep_curve import swept_number
from tune.reporting.figures.sweep_rows import DotRow, draw, row_labels
from tune.reporting.statistics.sweep_rows import sweep_rows
from tune.results.run import RunResults


def planned(name: str, **own: Any) -> RunResults:
    sweep = SWEEPS[name]
    return sweep_results(
        {row.name: [80.0 + n, 81.0 + n] for n, row in enumerate(sweep.rows)},
        published={row.name: row.published_ap for row in sweep.rows if row.published_ap is not None},
        changes={row.name: row.changes for row in sweep.rows},
        sweep=name,
        reference=sweep.reference,
        **own,
    )


def drawing(results: RunResults) -> Drawing:
    found = entries(results)[0].make()
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "varied"),
    [
        ("figure3", "momentum"),
        ("tau", "temperature"),
        ("hidden", "hidden_dim"),
        ("table4", None),
        ("table3", None),
    ],
)
def test_a_sweep_over_one_number_is_a_curve_and_any_other_dots(name: str, varied: str | None) -> None:
    results = planned(name)
    assert swept_number(results, sweep_rows(results)) == varied
    assert entries(results)[0].name == ("rows" if varied is None else "curve")


def test_a_row_that_sets_nothing_has_the_runs_value() -> None:
    changes: dict[str, dict[str, Any]] = {"paper": {}, "cold": {"temperature": 0.05}}
    results = sweep_results({"paper": [80.0], "cold": [81.0]}, changes=changes, base={"temperature": 0.1})
    assert swept_number(results, sweep_rows(results)) == "temperature"
    unknown = sweep_results({"paper": [80.0], "cold": [81.0]}, changes=changes)
    assert swept_number(unknown, sweep_rows(unknown)) is None


def test_rows_are_called_by_their_numbers() -> None:
    labels = row_labels(sweep_rows(planned("table4")))
    assert labels[:4] == [
        "Λ_v2b 1.0, Λ_v2n 1.0, r 0.1",
        "Λ_v2b 1.0, Λ_v2n 1.0, r 0.3",
        "Λ_v2b 1.0, Λ_v2n 1.0, r 3.0",
        "Λ_v2b 1.0, Λ_v2n 1.5, r 0.1",
    ]
    assert len(set(labels)) == 12
    assert row_labels(sweep_rows(planned("table3"))) == ["two-stream", "two-stream+sd", "light", "full"]
    assert row_labels(sweep_rows(planned("hidden")))[0].startswith("d ")


def test_the_caption_says_the_convention_and_what_the_paper_printed() -> None:
    caption = drawing(planned("table4")).caption
    for text in (
        "Protocol published; last epoch; trapezoidal",
        "up to 2 seeds, both values: an interval needs",
        "flatters",
    ):
        assert text in caption
    assert (
        "Diamonds: as printed in the paper (best test epoch, one seed), to be compared with the squares"
        in caption
    )
    assert "demo data" in drawing(planned("table4", demo=True)).caption
    curve = drawing(planned("figure3"))
    assert curve.title == "AP against m (Figure 3 of the paper)"
    assert "The paper gives its curve as a picture only." in curve.caption
    assert "the highest mean, 90.50 %, is at 1" in curve.alt


def test_a_sweep_of_ones_own_is_not_said_to_be_printed_in_the_paper_whatever_its_rows_are_called() -> None:
    own: dict[str, Any] = {"published": {"as-in-the-paper": 50.0}, "reference": "as-in-the-paper"}
    rows = {"as-in-the-paper": [50.0], "other": [51.0]}
    drawn = drawing(sweep_results(rows, **own))
    assert "Diamonds: as published, to be compared with the squares." in drawn.caption
    figure = drawn.draw()
    assert figure is not None
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "as-in-the-paper (reference)",
        "other",
    ]
    assert "published" in [text.get_text() for text in figure.legends[0].texts]
    changes = {"as-in-the-paper": {"momentum": 0.9}, "other": {"momentum": 0.8}}
    curve = drawing(sweep_results(rows, changes=changes, **own)).draw()
    assert curve is not None
    assert "published" in [text.get_text() for text in curve.legends[0].texts]


def test_a_heldout_sweep_claims_no_best_test_epoch() -> None:
    caption = drawing(planned("table4", protocol="heldout")).caption
    assert "Squares" not in caption
    assert "chosen epoch" in caption


def test_means_of_seeds_that_survived_are_reported_to_flatter() -> None:
    results = sweep_results({"a": [80.0, "stopped"], "b": [70.0, 71.0]})
    assert "let finish, which flatters" in drawing(results).caption


def drawn_rows(rows: list[DotRow]) -> Figure:
    with mpl.rc_context(STYLE):
        figure = draw(rows, "AP")
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
    figure = drawn_rows(rows)
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
    figure = drawn_rows(
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
    assert draw([DotRow("a", (), None, None, 83.4)], "AP") is None
