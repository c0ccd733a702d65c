"""Optuna's pictures, adopted: what they show, and that nothing of pyplot is left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import matplotlib as mpl
import numpy as np
import optuna
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from macil.look import STYLE, WIDTH
from tests.searchruns import search_results, spread
from tune.drawing.studyfigures import (
    Share,
    _importances_of,
    history,
    importances,
    parallel_coordinates,
    pareto_front,
    shares,
)
from tune.drawing.tablestudy import front_study, score_study, searched


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    """As `save_figure` draws."""
    with mpl.rc_context(STYLE):
        yield


def study_of(count: int, stopped: int = 0) -> tuple[optuna.Study, list[str]]:
    results = search_results(spread(count, stopped))
    return score_study(results, results.trials.to_pylist()), searched(results)


def test_the_history_shows_trials_that_were_stopped_too() -> None:
    figure = history(study_of(12, 4)[0])
    (axes,) = figure.axes
    ended, stopped = axes.collections
    assert [len(np.asarray(marks.get_offsets())) for marks in (ended, stopped)] == [8, 4]
    assert np.asarray(stopped.get_offsets())[:, 0].tolist() == [8, 9, 10, 11]
    assert not np.array_equal(np.asarray(ended.get_facecolor()), np.asarray(stopped.get_facecolor()))
    (best,) = axes.get_lines()
    assert np.all(np.diff(np.asarray(best.get_ydata())) >= 0)
    assert {text.get_text() for text in figure.legends[0].texts} == {
        "trained to the end",
        "stopped early",
        "best so far",
    }


def test_importances_are_optunas_with_an_interval_over_drawn_trials() -> None:
    study, _ = study_of(60)
    found = shares(study, 20)
    whole = optuna.importance.get_param_importances(study)
    assert {name: share.value for name, share in found.items()} == whole
    assert list(found) == list(whole), "the largest first"
    assert all(0 <= share.low < share.high <= 1 for share in found.values())
    assert shares(study, 20) == found


def test_a_drawn_study_gives_what_optuna_gives_for_the_same_trials() -> None:
    trials = study_of(60)[0].get_trials(deepcopy=False)
    twice = [trials[place % 40] for place in range(60)]
    plain = optuna.create_study(direction="maximize")
    plain.add_trials(twice)
    assert _importances_of(twice) == optuna.importance.get_param_importances(plain)


def test_importances_name_symbols_and_show_bars_with_lines() -> None:
    made = {"temperature": Share(0.7, 0.5, 0.8), "momentum": Share(0.3, 0.1, 0.6)}
    (axes,) = importances(made).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["temperature (τ)", "momentum (m)"]
    assert [patch.get_bbox().width for patch in axes.patches] == [0.7, 0.3]  # type: ignore[attr-defined]
    assert [list(np.asarray(line.get_xdata())) for line in axes.get_lines()] == [[0.5, 0.8], [0.1, 0.6]]


def test_of_many_lines_the_best_tenth_stands_out() -> None:
    study, names = study_of(50)
    figure = parallel_coordinates(study, names)
    (lines,) = figure.axes[0].collections
    scores, widths = np.asarray(lines.get_array()), np.asarray(lines.get_linewidth())
    assert len(scores) == 50
    assert scores[widths > 1].min() > scores[widths < 1].max()
    assert 5 <= (widths > 1).sum() <= 6
    few, _ = study_of(8)
    assert len(set(np.asarray(parallel_coordinates(few, names).axes[0].collections[0].get_linewidth()))) == 1


def test_every_upright_axis_has_plain_numbers_and_its_symbol() -> None:
    study, names = study_of(8)
    figure = parallel_coordinates(study, names)
    figure.canvas.draw()
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks == ["selection score", "d", "Λ_v2b", "Λ_v2n", "m", "r", "τ"]
    shown = [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
    assert not any("$" in text for text in shown)
    assert len(figure.axes) == 7


def test_the_front_is_marked_and_the_reference_ringed() -> None:
    trials = [
        {"parameters": size, "selection_score": score}
        for size, score in ((100, 0.5), (200, 0.7), (200, 0.6), (300, 0.65))
    ]
    figure = pareto_front(front_study(trials, "selection_score", 1.0), "score", (200.0, 0.6, "reference"))
    marks = {str(c.get_label()): np.asarray(c.get_offsets()).tolist() for c in figure.axes[0].collections}
    assert sorted(marks["no trial is smaller and better"]) == [[100, 0.5], [200, 0.7]]
    assert sorted(marks["other trials"]) == [[200, 0.6], [300, 0.65]]
    assert marks["reference"] == [[200, 0.6]]


@pytest.mark.parametrize(
    "draw",
    [
        history,
        lambda study: importances(shares(study, 2)),
        lambda study: parallel_coordinates(study, ["ramp"]),
    ],
)
def test_nothing_of_pyplot_is_left_behind(draw: Callable[[optuna.Study], Figure]) -> None:
    study, _ = study_of(9)
    mine = plt.figure()
    before = dict(mpl.rcParams), plt.get_fignums(), mpl.get_backend(), optuna.logging.get_verbosity()
    figure = draw(study)
    after = dict(mpl.rcParams), plt.get_fignums(), mpl.get_backend(), optuna.logging.get_verbosity()
    assert after == before
    assert plt.gcf() is mine
    plt.close(mine)
    assert figure.get_figwidth() == WIDTH
    assert figure.axes[0].get_title(loc="left") == ""
    assert figure.axes[0].get_facecolor() == (1, 1, 1, 1)
