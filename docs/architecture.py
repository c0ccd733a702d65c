"""The house in one picture, made from the code: `python -m docs.architecture` writes docs/images/architecture.*.

Every folder of the two packages is a floor, lower ones first, drawn with the first sentence of its `__init__.py`, its
files, and the floors that it imports. Only the order of the floors is written down, in `ORDER`; a test holds the
imports against it.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from macil.io.pictures import BLACK, COLOURS, GREY, save_picture

ROOT = Path(__file__).resolve().parent.parent
ORDER = {
    "macil": (
        "errors",
        "io",
        "config",
        "loss_weights",
        "data",
        "model",
        "objective",
        "evaluation",
        "training",
        "inference",
        "commands",
    ),
    "tune": (
        "storage",
        "algorithms",
        "planning",
        "results",
        "reporting",
        "cluster",
        "execution",
        "api",
        "commands",
    ),
}
"""The floors of each package, lower first: a module imports from its own floor and from lower ones only."""

MAY_IMPORT_RAY = ("tune.cluster", "tune.execution")
FOR_ALL_WHO_IMPORT_RAY = "tune.execution.ray_internals"
"""The one module that a lower floor imports from a higher one: `cluster` needs private names of Ray too."""


@dataclass(frozen=True)
class Import:
    """One import statement's target: which module imports which, and in which line."""

    importer: str
    imported: str
    line: int


def modules(package: str, root: Path = ROOT) -> dict[str, Path]:
    """Dotted name -> file of every module of a package."""
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(package: str, root: Path = ROOT) -> Iterator[Import]:
    """Every import in a package, of whatever module, also those inside of functions."""
    for importer, path in modules(package, root).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(importer, alias.name, node.lineno)
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    yield Import(importer, f"{node.module}.{alias.name}", node.lineno)


def floor_of(module: str) -> int | None:
    """The floor on which a module lives; None for the packages themselves, their scripts, and what is outside."""
    package, _, rest = module.partition(".")
    first = rest.partition(".")[0]
    floors = ORDER.get(package, ())
    return floors.index(first) if first in floors else None


def uses(package: str, number: int) -> dict[str, list[str]]:
    """What a floor imports from others: package -> names of its floors, lower first."""
    found: dict[str, set[int]] = {}
    for each in imports(package):
        other, there = each.imported.partition(".")[0], floor_of(each.imported)
        if floor_of(each.importer) == number and there is not None and (other, there) != (package, number):
            found.setdefault(other, set()).add(there)
    return {other: [ORDER[other][floor] for floor in sorted(found[other])] for other in sorted(found)}


def draw() -> Figure:
    """Both packages as floors of a house, `tune` above `macil`, each with its files and the floors it imports."""
    figure = Figure(figsize=(12, 15), layout="constrained")
    axes: Axes = figure.add_subplot()
    axes.set_axis_off()
    top = 0.0
    for package, colour in zip(("macil", "tune"), COLOURS, strict=False):
        for number in range(len(ORDER[package])):
            top = _draw_floor(axes, package, number, colour, top)
        axes.text(0.0, top + 0.1, _TITLES[package], fontsize=12, color=BLACK, va="bottom")
        top += 1.4
    axes.set_xlim(-0.1, _WIDTH + 0.1)
    axes.set_ylim(-0.1, top - 0.4)
    return figure


_TITLES = {
    "macil": "macil – the method and one training; knows nothing of Ray or Optuna",
    "tune": "tune – many trainings: search, sweeps, cluster, report",
}
_WIDTH, _MIDDLE, _RIGHT = 20.0, 5.4, 15.2
_LINE = 0.36


def _draw_floor(axes: Axes, package: str, number: int, colour: str, bottom: float) -> float:
    """One floor from `bottom` up; gives where the next begins."""
    name = ORDER[package][number]
    purpose = textwrap.wrap(_purpose(package, name), 44)
    files = [
        line for text in _files(package, name) for line in textwrap.wrap(text, 84, subsequent_indent="  ")
    ]
    imported = [f"{other}: {', '.join(floors)}" for other, floors in uses(package, number).items()]
    used = [line for text in imported for line in textwrap.wrap(text, 44, subsequent_indent="  ")]
    height = _LINE * (max(len(purpose) + 1, len(files), len(used)) + 0.9)
    axes.add_patch(
        Rectangle((0, bottom), _WIDTH, height, facecolor=colour, alpha=0.09, edgecolor=colour, linewidth=1)
    )
    upper = bottom + height - 0.75 * _LINE
    ray = "   (imports Ray)" if f"{package}.{name}" in MAY_IMPORT_RAY else ""
    axes.text(0.2, upper, f"{name}{ray}", fontsize=10, fontweight="bold", color=BLACK, va="center")
    for x, first, lines, shade in (
        (0.2, 1, purpose, BLACK),
        (_MIDDLE, 0, files, BLACK),
        (_RIGHT, 0, used, GREY),
    ):
        for row, line in enumerate(lines, start=first):
            axes.text(x, upper - row * _LINE, line, fontsize=7.2, color=shade, va="center")
    return bottom + height + 0.1


def _purpose(package: str, floor: str) -> str:
    """The first sentence of the floor's own docstring."""
    folder = ROOT / package / floor
    file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.partition("\n\n")[0].replace("\n", " ")


def _files(package: str, floor: str) -> list[str]:
    """The names of the floor's modules: first those beside its `__init__.py`, then a line for each of its folders."""
    prefix = f"{package}.{floor}."
    lines: dict[str, list[str]] = {"": []}
    for name, path in modules(package).items():
        if name.startswith(prefix) and path.name != "__init__.py":
            folder, _, file = name.removeprefix(prefix).rpartition(".")
            lines.setdefault(folder, []).append(file)
    return [f"{folder}/ {', '.join(names)}".removeprefix("/ ") for folder, names in lines.items() if names]


def main() -> None:
    """Write the picture."""
    save_picture(draw, ROOT / "docs" / "images", "architecture", grid=False)


if __name__ == "__main__":
    main()
