"""Report content through the templates; every string from data is escaped by default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tune.reporting.pages.blocks import Page

_TEMPLATES = Path(__file__).parent / "templates"
# What CommonMark or a table would read as markup; an underscore inside a word is none.
_MARKDOWN = re.compile(r"([\\`*{}\[\]<>|~$]|(?<!\w)[_#]|_(?!\w))")


def html(page: Page) -> str:
    """The page, self-contained."""
    environment = _environment(finalize=None)
    return environment.get_template("report.html").render(page=page)


def markdown(page: Page) -> str:
    """The same content as Markdown, figures by their file names."""
    environment = _environment(finalize=_escape_markdown)
    environment.filters["code"] = _code_block
    text = environment.get_template("report.md").render(page=page)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _environment(finalize: Any) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )


def _escape_markdown(value: Any) -> Markup:
    """Text that Markdown shows as it is: one line, markup characters behind a backslash, no HTML."""
    if isinstance(value, Markup):
        return value
    text = " ".join(str(value).split()).replace("&", "&amp;")
    text = _MARKDOWN.sub(r"\\\1", text)
    # Some renderers let a backslash before "<" pass as HTML: entities are safe in all of them.
    return Markup(text.replace("\\<", "&lt;").replace("\\>", "&gt;"))


def _code_block(text: str) -> Markup:
    """An indented code block: nothing inside can end it."""
    return Markup("\n".join(f"    {line}" for line in str(text).splitlines()))
