"""Which figures a run gets, in the order of the report, and which are missing and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from macil.errors import DataError, MacilError, WriteError
from tune.drawing import sweepdrawings, trainingdrawings
from tune.drawing.figures import Entry, SavedFigure, save_drawing
from tune.results import RunResults


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


def draw_all(results: RunResults, folder: Path) -> list[SavedFigure]:
    """The figures of `draw_figures`."""
    return draw_figures(results, folder).figures


def draw_figures(results: RunResults, folder: Path) -> Drawn:
    """Write every figure that the run has data for into `folder`; one that fails does not stop the others.

    Raises:
        WriteError: The disk is full, or the folder cannot be written.
    """
    drawn = Drawn([], [])
    for entry in _entries(results):
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


def _entries(results: RunResults) -> list[Entry]:
    if results.info.get("sweep"):
        return [*sweepdrawings.entries(results), *trainingdrawings.entries(results)]
    from tune.drawing import searchdrawings  # brings Optuna and pyplot, which no sweep needs

    return [*searchdrawings.entries(results), *trainingdrawings.entries(results)]
