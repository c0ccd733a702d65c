"""Command lines for people to paste: with the interpreter in use, from where they stand, quoted for a POSIX shell."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.machinery import PathFinder
from pathlib import Path

from macil.io.text import is_printable

_ROOT = Path(os.path.abspath(__file__)).parents[2]
# What a new interpreter looks through, but for the current folder. Taken now: a library may put folders first later on.
_SITE = tuple(sys.path[1:])
# Whether this is a copy of the repository, and not what pip made of it.
_CHECKOUT = (_ROOT / "pyproject.toml").is_file()
# Programs of the project as they are called in a checkout -> as pip installs them, and their modules.
_INSTALLED = {
    "macil": ("macil", "macil"),
    "tune/search.py": ("macil-search", "tune.search"),
    "tune/report.py": ("macil-report", "tune.report"),
}
# A part of the command line that nobody has to quote: `python -m` and its module.
_MODULE = "-m"
# Whether commands are kept to be read later, perhaps from another folder.
_KEPT = ContextVar("_KEPT", default=False)
_NOWHERE = Path("/nowhere")


def command_line(program: str, *arguments: str | Path) -> str:
    """The line that runs `program` with `arguments`, for bash and zsh.

    Args:
        program: A script of the project, as `tune/search.py`, or a module, as `macil` or `webbrowser`. Where pip has
            installed the project, its commands stand for them: `macil-search`, `macil-report`, `macil`.
        arguments: In their order; a `Path` is never taken for an option, whatever its name begins with.
    """
    module, words = _called(program)
    for argument in arguments:
        text = os.fspath(argument)
        words.append(f"./{text}" if isinstance(argument, Path) and text.startswith("-") else text)
    return " ".join([*_search_path(module), *map(quoted, words)])


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


def typed_name(script: Path) -> str:
    """The line that runs the program whose `sys.argv[0]` is `script`, however it was started."""
    if script.name == "__main__.py":
        return command_line(script.parent.name)
    by_name = {name: program for program, (name, _) in _INSTALLED.items()}
    return command_line(by_name.get(script.name, f"{script.parent.name}/{script.name}"))


def _called(program: str) -> tuple[str | None, list[str]]:
    """How `program` is called here: the module that the interpreter has to find, if any, and the words.

    A checkout has its scripts; what pip has installed, the commands beside the interpreter. Without those, modules.
    """
    python = _from_here(Path(sys.executable)) if sys.executable else "python"
    if program not in _INSTALLED:
        return None, [python, _MODULE, program]
    name, module = _INSTALLED[program]
    if _CHECKOUT:
        if program.endswith(".py"):  # which finds both packages by itself
            return None, [python, _from_here(_ROOT / program)]
        return module, [python, _MODULE, program]
    # First where `pip install --target` puts them.
    folders = (_ROOT / "bin", Path(sysconfig.get_path("scripts")), Path(sys.executable).parent)
    command = next((each / name for each in folders if (each / name).is_file()), None)
    if command is None:
        return module, [python, _MODULE, module]
    on_path = shutil.which(name)
    bare = not _KEPT.get() and on_path is not None and command.samefile(on_path)
    return module, [name if bare else _from_here(command)]


def _from_here(path: Path) -> str:
    """Relative to the current folder where it lies below it, as a person types it, else absolute."""
    path = Path(os.path.abspath(path))
    here = _here()
    if not path.is_relative_to(here):
        return str(path)
    relative = str(path.relative_to(here))
    # A shell looks for a bare name elsewhere, and an option begins with a dash.
    return relative if "/" in relative and not relative.startswith("-") else f"./{relative}"


def _search_path(module: str | None) -> list[str]:
    """The prefix that packages which are not installed need before `python -m MODULE`, away from their folder."""
    if module not in {module for _, module in _INSTALLED.values()}:
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
