"""Text that came from data, for a terminal or a log."""

from __future__ import annotations

import hashlib
import reprlib
import unicodedata
from typing import Any

# Control characters, surrogates (bytes of a file name that are no UTF-8), line and paragraph separators.
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})

_FORMULA = ("=", "+", "-", "@", "\t", "\r")

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 120


def is_printable(text: str) -> bool:
    """Whether `text` is one line without control characters that every program can write as UTF-8."""
    return text.isprintable() or not any(unicodedata.category(each) in _UNPRINTABLE for each in text)


def printable(text: str, keep: str = "") -> str:
    """`text` with all that could command a terminal, or end a line, written as a visible escape.

    Args:
        text: Any text.
        keep: Characters to leave as they are.
    """
    if is_printable(text):
        return text
    return "".join(each if each in keep or is_printable(each) else _escape(each) for each in text)


def brief(value: Any) -> str:
    """`repr` for a message: short, whatever the size of the value."""
    try:
        return _BRIEF.repr(value)
    except ValueError:  # Python does not print a number of thousands of digits
        return f"a {type(value).__name__} of too many digits"


def file_name(name: str, longest: int = 150) -> str:
    """`name` as the name of a file in any folder: itself where it can be, else shortened and with a digest.

    Args:
        name: Any text.
        longest: Bytes that the result may have; 255 is the most of usual file systems, endings included.
    """
    fit = "".join("_" if each == "/" or not is_printable(each) else each for each in name)
    if fit == name and name not in ("", ".", "..") and len(name.encode()) <= longest:
        return name
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    start = fit.encode()[: longest - len(digest) - 1].decode(errors="ignore")
    return f"{start.lstrip('.')}-{digest}"


def cell_text(text: str) -> str:
    """`text` for a CSV file: what a spreadsheet would take for a formula begins with an apostrophe."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _escape(character: str) -> str:
    return (
        character.encode("ascii", "backslashreplace").decode()
        if ord(character) > 127
        else repr(character)[1:-1]
    )
