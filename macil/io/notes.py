"""Notes that a command prints besides its results."""

from __future__ import annotations

import sys

from macil.io.text import printable


def note(text: str) -> None:
    """Say on standard error what was found, or what is done otherwise than asked."""
    print(f"note: {printable(text)}", file=sys.stderr, flush=True)
