"""A figure in words, what draws it, and its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from macil.io.pictures import save_picture


@dataclass(frozen=True)
class Drawing:
    """A figure in words, and what draws it: `draw` is called in the report's style; None when there is nothing to draw.

    `alt` describes the picture for readers who cannot see it.
    """

    title: str
    caption: str
    alt: str
    draw: Callable[[], Figure | None]


@dataclass(frozen=True)
class Entry:
    """A figure that a run may get: file name, title for when it is missing, heading, and what makes the drawing.

    `make` gives None where the figure does not apply to the run, and raises a MacilError that says what is missing.
    """

    name: str
    title: str
    group: str
    make: Callable[[], Drawing | None]


@dataclass(frozen=True)
class SavedFigure:
    """A figure on disk, `name`.png and `name`.svg, with what stands below it.

    `group` is the heading it belongs under, `alt` its textual alternative.
    """

    name: str
    title: str
    caption: str
    alt: str
    png: Path
    svg: Path
    group: str


def save_drawing(drawing: Drawing, folder: Path, name: str, group: str = "") -> SavedFigure | None:
    """Draw and write PNG and SVG, see `macil.io.pictures.save_picture`; None when there is nothing to draw."""
    saved = save_picture(drawing.draw, folder, name)
    if saved is None:
        return None
    return SavedFigure(name, drawing.title, drawing.caption, drawing.alt, *saved, group)
