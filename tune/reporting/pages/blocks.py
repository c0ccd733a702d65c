"""The blocks of a page, before it is HTML or Markdown: both templates walk through the same blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from tune.reporting.tables.run_tables import Table


@dataclass(frozen=True)
class Text:
    """A paragraph; a `strong` one is a warning or a verdict to read first."""

    kind: ClassVar[str] = "text"
    text: str
    strong: bool = False


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    kind: ClassVar[str] = "items"
    items: tuple[str, ...]


@dataclass(frozen=True)
class Pairs:
    """Terms and what belongs to them; `exact` ones are digits and hashes, in a fixed width."""

    kind: ClassVar[str] = "pairs"
    pairs: tuple[tuple[str, str], ...]
    exact: bool = False


@dataclass(frozen=True)
class Code:
    """A command to copy."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Tile:
    """A number worth a tile: what it is, the number, all that it depends on."""

    name: str
    number: str
    basis: str


@dataclass(frozen=True)
class Tiles:
    """Numbers side by side."""

    kind: ClassVar[str] = "tiles"
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Sheet:
    """A table."""

    kind: ClassVar[str] = "sheet"
    table: Table


@dataclass(frozen=True)
class Picture:
    """A figure: `file` lies beside the page, `uri` is the same inside it; `alt` describes what it shows."""

    title: str
    caption: str
    alt: str
    file: str
    uri: str


@dataclass(frozen=True)
class Pictures:
    """Figures under a heading of their own."""

    kind: ClassVar[str] = "pictures"
    heading: str
    pictures: tuple[Picture, ...]


Block = Text | Items | Pairs | Code | Tiles | Sheet | Pictures


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; `id` is the target of a link, and the name of the link."""

    id: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Answer:
    """One question of the first screen: a number with what it is, if there is one, or several on lines of their own.

    Then sentences, and a command.
    """

    question: str
    number: str = ""
    messages: tuple[str, ...] = ()
    small: str = ""
    command: str = ""
    lines: tuple[Tile, ...] = ()


@dataclass(frozen=True)
class Page:
    """A whole report: `state` is the run's, `banners` stand before any number."""

    title: str
    state: str
    subtitle: str
    banners: tuple[str, ...]
    answers: tuple[Answer, ...]
    sections: tuple[Section, ...]
    beside: str
    rebuild: str
    written: str
    version: str


def labelled(page: Page, label: str) -> Page:
    """`label` before every caption and number of a page that has none: each may be copied alone."""
    sections = tuple(
        replace(section, blocks=tuple(_labelled(block, label) for block in section.blocks))
        for section in page.sections
    )
    answers = tuple(
        replace(answer, small=_with_label(answer.small, label)) if answer.number or answer.lines else answer
        for answer in page.answers
    )
    return replace(page, sections=sections, answers=answers)


def _labelled(block: Block, label: str) -> Block:
    if isinstance(block, Sheet):
        return Sheet(replace(block.table, caption=_with_label(block.table.caption, label)))
    if isinstance(block, Pictures):
        pictures = tuple(replace(each, caption=_with_label(each.caption, label)) for each in block.pictures)
        return replace(block, pictures=pictures)
    if isinstance(block, Tiles):
        return Tiles(tuple(replace(tile, basis=_with_label(tile.basis, label)) for tile in block.tiles))
    return block


def _with_label(text: str, label: str) -> str:
    if label.rstrip(":").lower() in text.lower():
        return text
    return f"{label} {text[:1].lower()}{text[1:]}" if text[1:2].islower() else f"{label} {text}"
