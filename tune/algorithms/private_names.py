"""Names that a library does not promise to keep: those that are relied on are looked up once, when it is imported."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from macil.errors import MacilError


def require_names(library: str, names: Sequence[str], known: str) -> None:
    """Refuse a version of `library` that lacks a name.

    Args:
        library: Its distribution.
        names: As `package.module.Class.name`: of a module, of a class, or set by its `__init__`; a method with
            `(…, argument)` must take that argument.
        known: Versions that have all of them.

    Raises:
        MacilError: Some are missing.
    """
    missing = [name for name in names if not _is_there(name)]
    if missing:
        version, title = metadata.version(library), library.capitalize()
        raise MacilError(
            f"{title} {version} has no {', '.join(missing)}: this program relies on what {title} does not promise to "
            f"keep. It is known to work with {title} {known}; install that version (constraints.txt names those of all "
            f"libraries): pip install '{library}=={known}'"
        )


def _is_there(name: str) -> bool:
    path, _, arguments = name.partition("(…, ")
    parts = path.split(".")
    for count in range(len(parts) - 1, 0, -1):
        try:
            owner: Any = importlib.import_module(".".join(parts[:count]))
        except ImportError:
            continue
        for part in parts[count:-1]:
            owner = getattr(owner, part, None)
        return _has(owner, parts[-1], arguments.removesuffix(")"))
    return False


def _has(owner: Any, name: str, argument: str) -> bool:
    if owner is None:
        return False
    if argument:
        method = getattr(owner, name, None)
        return method is not None and argument in inspect.signature(method).parameters
    return hasattr(owner, name) or (inspect.isclass(owner) and is_set(owner, name))


def is_set(owner: type, name: str) -> bool:
    """Whether a class or one of its bases gives itself an attribute when it is made."""
    makers = (
        inspect.unwrap(each.__dict__["__init__"]) for each in owner.__mro__ if "__init__" in each.__dict__
    )
    return any(name in maker.__code__.co_names for maker in makers if inspect.isfunction(maker))
