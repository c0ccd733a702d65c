"""Videos picked by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from macil.data.xd.names import normalise_name
from macil.errors import DataError


def choose(names: Sequence[str], present: Sequence[str], where: str) -> list[int]:
    """Positions of `names` among `present`, each once, in the order asked for; without names, all.

    A name may be spelt otherwise where both are normalised to the same.

    Raises:
        DataError: Names that are not there, each with the most similar one that is.
    """
    if not names:
        return list(range(len(present)))
    found = find_names(names, present)
    problems = []
    for name in names:
        if name not in found:
            close = difflib.get_close_matches(name, present, 1)
            problems.append(name + (f"; did you mean {close[0]}?" if close else ""))
    if problems:
        raise DataError(f"not among {where}:", problems)
    return list(dict.fromkeys(found[name] for name in names))


def find_names(names: Iterable[str], present: Sequence[str]) -> dict[str, int]:
    """Name to its position among `present`, those that are there.

    A name is itself, else what it is normalised to: the names of an older store are as it was given them.
    """
    exact = {name: i for i, name in enumerate(present)}
    alike: dict[str, int | None] = {}
    for name, i in exact.items():
        known = normalise_name(name)
        alike[known] = None if known in alike else i
    found = {name: exact.get(name, alike.get(normalise_name(name))) for name in names}
    return {name: position for name, position in found.items() if position is not None}
