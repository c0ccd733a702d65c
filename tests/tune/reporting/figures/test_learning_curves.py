"""Lines of many trainings at once."""

from __future__ import annotations

import numpy as np

from tests.support.made_runs import epoch_rows, trial_rows
from tune.reporting.figures.epochs import Group
from tune.reporting.figures.learning_curves import draw, draw_losses


def test_trials_beyond_the_first_five_are_one_grey_collection() -> None:
    trials = trial_rows({"trial_dir": str(n)} for n in range(8))
    groups = [Group(trial.name, (trial,)) for trial in trials]
    lengths = [3, 3, 3, 3, 3, 3, 2, 1]
    epochs = {
        trial.key: epoch_rows(
            {"trial_id": trial.trial_id, "epoch": epoch, "loss_mil": 10.0 * n + epoch}
            for epoch in range(1, length + 1)
        )
        for n, (trial, length) in enumerate(zip(trials, lengths, strict=True))
    }
    figure = draw(groups, epochs, "loss_mil", "score")
    assert figure is not None
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in figure.axes[0].get_lines()}
    (grey,) = figure.axes[0].collections
    assert grey.get_label() == "other trials (3)"
    curves = [np.asarray(path.vertices)[:, 1].tolist() for path in grey.get_paths()]
    assert curves == [[51, 52, 53], [61, 62], [71]]
    low, high = figure.axes[0].get_ylim()
    assert low < 1, "every curve is in view"
    assert high > 71
    assert lines["4"].tolist() == [41, 42, 43]
    dot = [line for line in figure.axes[0].get_lines() if line.get_marker() == "."]
    assert [np.asarray(line.get_ydata()).tolist() for line in dot] == [[71]]


def test_a_group_has_one_colour_in_every_panel() -> None:
    trials = trial_rows({"trial_dir": name} for name in ("plain", "full"))
    groups = [Group(trial.name, (trial,)) for trial in trials]
    rows = epoch_rows(
        {"trial_id": trial.trial_id, "epoch": 1, "loss_mil": 0.5, "loss_v2b": loss, "loss_v2n": loss}
        for trial, loss in zip(trials, (None, 1.0), strict=True)
    )
    epochs = {row.key: [row] for row in rows}
    figure = draw_losses(groups, epochs)
    assert figure is not None
    colours: dict[str, set[str]] = {}
    for axes in figure.axes:
        for line in axes.get_lines():
            colours.setdefault(str(line.get_label()), set()).add(str(line.get_color()))
    assert {name: len(used) for name, used in colours.items()} == {"plain": 1, "full": 1}
    assert colours["plain"] != colours["full"]
