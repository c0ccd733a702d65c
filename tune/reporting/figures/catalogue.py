"""Which figures a run gets, in the order of the report, and which are missing and why.

A new figure is a file of this folder and a line here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from macil.errors import DataError, MacilError, WriteError
from tune.reporting.figures.confirmation import confirmation
from tune.reporting.figures.drawing import Drawing, Entry, SavedFigure, save_drawing
from tune.reporting.figures.early_stopping import stopping
from tune.reporting.figures.epochs import curves_of
from tune.reporting.figures.figure_data import FigureData
from tune.reporting.figures.history import history
from tune.reporting.figures.hyperparameters import hyperparameter_scores
from tune.reporting.figures.importances import importances
from tune.reporting.figures.learning_curves import groups_of, learning_curves, losses
from tune.reporting.figures.parallel_coordinates import parallel_coordinates
from tune.reporting.figures.pareto_front import pareto_front
from tune.reporting.figures.precision_recall import precision_recall
from tune.reporting.figures.sweep_curve import swept_curve, swept_number
from tune.reporting.figures.sweep_rows import row_dots
from tune.reporting.figures.timelines import timelines
from tune.reporting.figures.training_curves import training_curves
from tune.reporting.figures.tsne import embeddings
from tune.reporting.statistics.sweep_rows import sweep_rows
from tune.results.run import RunResults


class Missing(NamedTuple):
    """A figure that applies to the run and could not be drawn."""

    group: str
    """The heading it would stand under"""
    reason: str
    """The title of the figure and the reason"""


@dataclass(frozen=True)
class Drawn:
    """The figures of a run and those that are missing, both in the report's order."""

    figures: list[SavedFigure]
    absent: list[Missing]

    @property
    def missing(self) -> list[str]:
        """A line for each that applies and could not be drawn."""
        return [each.reason for each in self.absent]


def draw_figures(results: RunResults, folder: Path) -> Drawn:
    """Write every figure that the run has data for into `folder`; one that fails does not stop the others.

    Raises:
        WriteError: The disk is full, or the folder cannot be written.
    """
    drawn = Drawn([], [])
    for entry in entries(results):
        figure = None
        try:
            drawing = entry.make()
            figure = save_drawing(drawing, folder, entry.name, entry.group) if drawing else None
        except WriteError:
            raise  # the page could not be written either, and the figure that is there is still good
        except MacilError as error:
            message = error.message if isinstance(error, DataError) else str(error)
            drawn.absent.append(Missing(entry.group, f"{entry.title}: {message}"))
        except Exception as error:  # plotting libraries raise anything; the report goes on without the figure
            message = " ".join(str(error).split())[:300]
            reason = f"{entry.title}: could not be drawn ({type(error).__name__}: {message})"
            drawn.absent.append(Missing(entry.group, reason))
        if figure is not None:
            drawn.figures.append(figure)
        else:
            for kind in ("png", "svg"):  # of an earlier report, which could draw it
                (folder / f"{entry.name}.{kind}").unlink(missing_ok=True)
    return drawn


def entries(results: RunResults) -> list[Entry]:
    """The figures of a run: of a sweep or a search, then of the reported training, then of all trainings."""
    own = _sweep(results) if results.info.sweep else _search(results)
    return [*own, *_reported(results), *_all_trainings(results)]


def _search(results: RunResults) -> Iterator[Entry]:
    """The figures of a search, from its result to its cost."""
    trials = [row for row in results.trial_rows if row.kind == "search"]
    for name, title, make in (
        ("confirmation", "Confirmation on fresh seeds", lambda: confirmation(results)),
        ("history", "Optimisation history", lambda: history(results, trials)),
        ("importances", "Importances of the hyperparameters", lambda: importances(results, trials)),
        (
            "hyperparameters",
            "Hyperparameters against selection score",
            lambda: hyperparameter_scores(results, trials),
        ),
        ("parallel", "Parallel coordinates", lambda: parallel_coordinates(results, trials)),
        ("pareto", "AP against parameters", lambda: pareto_front(results)),
        ("early-stopping", "Early stopping", lambda: stopping(results, trials)),
    ):
        yield Entry(name, title, "The search", make)


def _sweep(results: RunResults) -> Iterator[Entry]:
    """Figure 3's kind for one varied number, else dots."""
    rows, heading = sweep_rows(results), "The sweep"
    number = swept_number(results, rows)
    if number is None:
        yield Entry("rows", "Rows of the sweep", heading, lambda: row_dots(results, rows))
    else:
        yield Entry("curve", f"AP against {number}", heading, lambda: swept_curve(results, rows, number))
    order = {row.name: index for index, row in enumerate(rows)}
    trials = [trial for trial in results.trial_rows if trial.kind == "search" and trial.row in order]
    trials.sort(key=lambda trial: order[str(trial.row)])
    yield Entry("early-stopping", "Early stopping", heading, lambda: stopping(results, trials))


def _reported(results: RunResults) -> Iterator[Entry]:
    """The reported training in detail: Figures 4 to 6 of the paper."""
    data = FigureData(results)
    for name, title, make in (
        ("precision-recall", "Precision against recall", lambda: precision_recall(data)),
        ("training", "Accuracy and losses", lambda: training_curves(data, curves_of(results))),
        ("timelines", "Scores of chosen test videos", lambda: timelines(data)),
        ("tsne", "Raw features and embeddings (t-SNE)", lambda: embeddings(data)),
    ):
        yield Entry(name, title, "The reported training", make)


def _all_trainings(results: RunResults) -> Iterator[Entry]:
    """Every training over its epochs."""
    curves, groups = cache(lambda: curves_of(results)), cache(lambda: groups_of(results))

    def learning(metric: str) -> Drawing:
        return learning_curves(results, groups(), curves(), metric)

    for name, title, make in (
        ("selection-score", "Selection score over epochs", lambda: learning("selection_score")),
        ("heldout-ap", "Held-out AP", lambda: learning("heldout_ap")),
        ("test-ap", "Test AP", lambda: learning("ap_trapezoid")),
        ("losses", "Losses", lambda: losses(results, groups(), curves())),
    ):
        yield Entry(name, title, "All trainings", make)
