"""Videos picked by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from macil.errors import DataError


def choose(names: Sequence[str], present: Sequence[str], where: str) -> list[int]:
    """Positions of `names` among `present`, each once, in the order asked for; without names, all.

    Raises:
        DataError: Names that are not there, each with the most similar one that is.
    """
    if not names:
        return list(range(len(present)))
    places = {name: i for i, name in enumerate(present)}
    problems = []
    for name in names:
        if name not in places:
            close = difflib.get_close_matches(name, present, 1)
            problems.append(name + (f"; did you mean {close[0]}?" if close else ""))
    if problems:
        raise DataError(f"not among {where}:", problems)
    return [places[name] for name in dict.fromkeys(names)]
