"""How every picture looks and is saved: PNG and SVG, colours that remain distinct to the colour-blind and in print.

Names from data are never read as mathematics.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from macil.io.files import atomic_path

# Okabe and Ito's palette: distinguishable with every common colour blindness. Line styles repeat the distinction.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
GREY = "#9a9a9a"
BLACK = "#222222"
WIDTH = 7.0  # inches: the text width of a page
_DPI = 200

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "svg.fonttype": "path",
    "svg.hashsalt": "macil-tune",  # equal figures are equal files
    "text.parse_math": False,
    "text.usetex": False,
}


def shorten(text: str, most: int) -> str:
    """At most `most` printable characters."""
    text = "".join(character if character.isprintable() else "·" for character in text)
    return text if len(text) <= most else text[: most - 1] + "…"


def save_picture(
    draw: Callable[[], Figure | None], folder: Path, name: str, *, grid: bool = True
) -> tuple[Path, Path] | None:
    """Call `draw` in this style and write `name`.png and `name`.svg, each in one step; None when it draws nothing."""
    with mpl.rc_context({**STYLE, "axes.grid": grid}), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph")
        figure = draw()
        if figure is None:
            return None
        FigureCanvasAgg(figure)
        png, svg = folder / f"{name}.png", folder / f"{name}.svg"
        # A date would make equal figures different files.
        metadata: dict[Path, dict[str, Any]] = {png: {"Software": None}, svg: {"Date": None}}
        for path in (png, svg):
            with atomic_path(path) as temporary:
                figure.savefig(
                    temporary, format=path.suffix[1:], dpi=_DPI, metadata=metadata[path], facecolor="white"
                )
            figure.set_layout_engine(
                "none"
            )  # laid out once: the second file keeps the positions of the first
    return png, svg
