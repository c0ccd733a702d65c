"""Command lines for people to paste: with the interpreter in use, from where they stand, quoted for a POSIX shell."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.machinery import PathFinder
from pathlib import Path

from macil.io.text import is_printable

_ROOT = Path(os.path.abspath(__file__)).parents[2]
# What a new interpreter looks through, but for the current folder. Taken now: a library may put folders first later on.
_SITE = tuple(sys.path[1:])
# A part of the command line that nobody has to quote: `python -m` and its module.
_MODULE = "-m"
# Whether commands are kept to be read later, perhaps from another folder.
_KEPT = ContextVar("_KEPT", default=False)
_NOWHERE = Path("/nowhere")


def command_line(program: str, *arguments: str | Path) -> str:
    """The line that runs `program` with `arguments`, for bash and zsh.

    Args:
        program: A script of the project, as `tune/search.py`, or a module, as `macil` or `webbrowser`.
        arguments: In their order; a `Path` is never taken for an option, whatever its name begins with.
    """
    words = [_from_here(Path(sys.executable)) if sys.executable else "python"]
    words += [_from_here(_ROOT / program)] if program.endswith(".py") else [_MODULE, program]
    for argument in arguments:
        text = os.fspath(argument)
        words.append(f"./{text}" if isinstance(argument, Path) and text.startswith("-") else text)
    return " ".join([*_search_path(program), *map(quoted, words)])


@contextmanager
def from_any_folder() -> Iterator[None]:
    """Meanwhile no line depends on the current folder: a page is read, and pasted from, elsewhere."""
    token = _KEPT.set(True)
    try:
        yield
    finally:
        _KEPT.reset(token)


def quoted(word: str) -> str:
    """`word` as a shell reads it back; control characters and bytes that are no UTF-8 are visible escapes."""
    if is_printable(word):
        return shlex.quote(word)
    escaped = (
        character if is_printable(character) and character not in "\\'" else _escaped(character)
        for character in word
    )
    return f"$'{''.join(escaped)}'"


def _escaped(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def _from_here(path: Path) -> str:
    """Relative to the current folder where it lies below it, as a person types it, else absolute."""
    path = Path(os.path.abspath(path))
    here = _here()
    if not path.is_relative_to(here):
        return str(path)
    relative = str(path.relative_to(here))
    # A shell looks for a bare name elsewhere, and an option begins with a dash.
    return relative if "/" in relative and not relative.startswith("-") else f"./{relative}"


def _search_path(program: str) -> list[str]:
    """The prefix that a checkout that is not installed needs before `python -m macil`, away from its folder."""
    if program != "macil":
        return []
    sources = _ROOT / "macil" / "__init__.py"
    spec = PathFinder.find_spec("macil", [str(_here()), *_SITE])
    if spec is None:  # an editable installation has a finder of its own
        finders = [finder for finder in sys.meta_path if finder is not PathFinder]
        spec = next((found for finder in finders if (found := finder.find_spec("macil", None))), None)
    if spec is not None and spec.origin is not None and Path(spec.origin).resolve() == sources.resolve():
        return []
    return [f"PYTHONPATH={quoted(str(_ROOT))}"]


def _here() -> Path:
    if _KEPT.get():
        return _NOWHERE
    try:
        return Path.cwd()
    except FileNotFoundError:  # removed while the command ran
        return _NOWHERE
