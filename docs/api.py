"""`docs/api.md`, made from the docstrings of what `macil` and `tune` make public; `python -m docs.api` writes it.

A test compares the page with what this gives.
"""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import macil
import macil.errors
import macil.objective
import tune
from macil.config import hyperparameters
from tune.api import keywords
from tune.commands.search import search

PAGE = Path(__file__).with_name("api.md")
_HEAD = """# Python API

Made from the docstrings by `python -m docs.api`. How to use it: [python.md](python.md), [use.md](use.md),
`examples/`.
"""
# Sections of a docstring, with items or with text.
_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields):$")
_ITEM = re.compile(r"^    (\*{0,2}[\w, .`]+)(?: \(.*?\))?: (.*)$")


def page() -> str:
    """The whole page."""
    lines = [_HEAD]
    for package in (tune, macil):
        lines += [f"## `{package.__name__}`\n"]
        for name in package.__all__:
            lines += _entry(name, getattr(package, name), package.__name__)
        if package is tune:
            lines += [*_keywords(), ""]
    lines += ["## `macil.objective`\n", *_entry("objective", macil.objective.objective, "macil.objective")]
    lines += ["## `macil.errors`\n"]
    for name, each in vars(macil.errors).items():
        if inspect.isclass(each) and each.__module__ == "macil.errors":
            lines += [f"- `{name}({', '.join(base.__name__ for base in each.__bases__)})`: {_first(each)}"]
    return "\n".join(lines).rstrip() + "\n"


def _entry(name: str, value: Any, home: str) -> Iterator[str]:
    """A function, or a class with its public methods and properties; of other values the name."""
    if not callable(value):
        yield f"### `{home}.{name}`\n\n`{type(value).__name__}`: {', '.join(f'`{each}`' for each in value)}\n"
        return
    yield f"### `{name}{_signature(value)}`\n"
    yield _markdown(inspect.getdoc(value) or "")
    if not inspect.isclass(value):
        return
    members = []
    for member, each in vars(value).items():
        # Of a property, a cached one, or a class method; else the function itself.
        wrapped = (getattr(each, attribute, None) for attribute in ("fget", "func", "__func__"))
        target = next(filter(None, wrapped), each)
        text = inspect.getdoc(target) if inspect.isfunction(target) else None
        if member.startswith("_") or not text:
            continue
        if inspect.isfunction(each) or isinstance(each, (classmethod, staticmethod)):
            members += [f"- `.{member}{_signature(getattr(value, member))}`: {_first(target)}"]
        else:
            members += [f"- `.{member}`: {_first(target)}"]
    if members:
        yield "\n".join(members) + "\n"


def _signature(value: Any) -> str:
    """The names of the arguments with their defaults, without annotations; of a function with all options, `…`."""
    if inspect.isclass(value) and issubclass(value, enum.Enum):
        return ""
    try:
        parameters = list(inspect.signature(value).parameters.values())
    except (TypeError, ValueError):
        return "(…)"
    parts: list[str] = []
    for each in parameters:
        if each.name in ("self", "cls"):
            continue
        if each.kind is each.KEYWORD_ONLY and "*" not in parts and not any(p.startswith("*") for p in parts):
            parts.append("*")
        if each.kind is each.VAR_POSITIONAL:
            parts.append(f"*{each.name}")
        elif each.kind is each.VAR_KEYWORD:
            parts.append(f"**{each.name}")
        elif each.default is each.empty:
            parts.append(each.name)
        elif len(parts) > 12:
            parts.append("…")
            break
        else:
            default = repr(each.default)
            parts.append(f"{each.name}={default if len(default) < 20 and '<' not in default else '…'}")
    return f"({', '.join(parts)})"


def _markdown(text: str) -> str:
    """A docstring's sections as lists."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        section, item = _SECTION.match(line), _ITEM.match(line)
        if section:
            lines += [f"{section[1]}:", ""]
            inside = True
        elif inside and item:
            lines.append(f"- `{item[1]}`: {item[2]}")
        elif inside and line.startswith("    "):
            lines.append(("  " if lines[-1].startswith(("- ", "  ")) else "") + line.strip())
        else:
            inside = inside and not line
            lines.append(line)
    return "\n".join(lines) + "\n"


def _first(value: Any) -> str:
    """The first sentence of a docstring, in one line."""
    return " ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split())


def _keywords() -> Iterator[str]:
    """The keywords of a search or sweep, with the words of the command line's help."""
    help_of = {
        str(option.name).removesuffix("_file"): option.help or ""
        for option in search.params
        if isinstance(option, click.Option)
    }
    names = [each.name for each in hyperparameters()]
    sweep = keywords(sweep=True)
    yield "### Keywords of `run_search` and `run_sweep`\n"
    yield "| keyword | of | meaning |\n|---|---|---|"
    for name in keywords():
        if name not in names:
            whose = "both" if name in sweep else "`run_search`"
            yield f"| `{name}` | {whose} | {' '.join(help_of[name].split())} |".replace(
                "NAME|FILE", "NAME or FILE"
            )
    yield "\nHyperparameters, which leave the space where they are given:\n"
    yield "| keyword | default | meaning |\n|---|---|---|"
    for each in hyperparameters():
        symbol = f" ({each.symbol})" if each.symbol else ""
        yield f"| `{each.name}` | `{each.default}` | {each.help}{symbol} |"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
