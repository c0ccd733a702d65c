"""Which figures a run gets, in the order of the report, and which are missing and why.

A new figure is a file of this folder and a line here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from macil.errors import DataError, MacilError, WriteError
from tune.drawing import sweepdrawings, trainingdrawings
from tune.drawing.figures import Entry, SavedFigure, save_drawing
from tune.drawing.stopfigure import stopping
from tune.reporting.figures.confirmation import confirmation
from tune.reporting.figures.history import history
from tune.reporting.figures.hyperparameters import hyperparameter_scores
from tune.reporting.figures.importances import importances
from tune.reporting.figures.parallel_coordinates import parallel_coordinates
from tune.reporting.figures.pareto_front import pareto_front
from tune.results import RunResults

_SEARCH = "The search"


class Missing(NamedTuple):
    """A figure that applies to the run and could not be drawn."""

    group: str
    """The heading it would stand under"""
    reason: str
    """Its title, and why"""


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
            said = error.message if isinstance(error, DataError) else str(error)
            drawn.absent.append(Missing(entry.group, f"{entry.title}: {said}"))
        except Exception as error:  # plotting libraries raise anything; the report goes on without the figure
            said = " ".join(str(error).split())[:300]
            reason = f"{entry.title}: could not be drawn ({type(error).__name__}: {said})"
            drawn.absent.append(Missing(entry.group, reason))
        if figure is not None:
            drawn.figures.append(figure)
        else:
            for kind in ("png", "svg"):  # of an earlier report, which could draw it
                (folder / f"{entry.name}.{kind}").unlink(missing_ok=True)
    return drawn


def entries(results: RunResults) -> list[Entry]:
    """What a run gets: a sweep or a search, then the reported training, then all trainings."""
    own = sweepdrawings.entries(results) if results.info.get("sweep") else _search(results)
    return [*own, *trainingdrawings.entries(results)]


def _search(results: RunResults) -> Iterator[Entry]:
    """What a search gets, from what it found to what it cost."""
    trials = [row for row in results.trials.to_pylist() if row["kind"] == "search"]
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
        yield Entry(name, title, _SEARCH, make)
