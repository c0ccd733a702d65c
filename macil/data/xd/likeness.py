"""Files and folders that look like the ones that are looked for, under another name or spelling."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

_CUTOFF = 0.8
_MOST_LISTED = 1000
# A visual file that lacks one of the two underscores, or has a word before the number of its crop.
_CROP = re.compile(r"(?P<name>.+?)[_\-. ]*(?:crop)?[_\-. ]*(?P<crop>\d{1,2})\.npy", re.DOTALL | re.IGNORECASE)
_AUDIO = re.compile(r"(?P<name>.+?)[_\-. ]*(?:vggish|audio)?\.npy", re.DOTALL | re.IGNORECASE)


def letters(text: str) -> str:
    """A text without case, blanks and punctuation, which other tools change."""
    return "".join(each for each in unicodedata.normalize("NFKC", text).casefold() if each.isalnum())


def similar_folder(root: Path, wanted: Iterable[str], taken: Iterable[str]) -> str | None:
    """The folder in `root`, or in a folder of it, whose path is most like one of `wanted`; not one of `taken`."""
    present = {letters(path): path for path in _folders(root) if path not in set(taken)}
    for name in wanted:
        if close := difflib.get_close_matches(letters(name), present, 1, _CUTOFF):
            return present[close[0]]
    return None


def similar_file(folder: Path, wanted: str) -> str | None:
    """The file of a folder whose name is most like `wanted`."""
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_file())[:_MOST_LISTED]
    except OSError:
        return None
    present = {letters(name): name for name in names if name != wanted}
    close = difflib.get_close_matches(letters(wanted), present, 1, _CUTOFF)
    return present[close[0]] if close else None


def layout_inside(root: Path, wanted: Iterable[str]) -> Path | None:
    """The folder in `root` that holds one of the folders that are wanted in `root` itself."""
    names = tuple(wanted)
    for path in _folders(root):
        if any((root / path / name).is_dir() for name in names):
            return root / path
    return None


def as_visual_name(filename: str) -> str | None:
    """What a visual file of the layout would be called whose name is no such name; None where that cannot be told."""
    found = _CROP.fullmatch(filename)
    return f"{found['name']}__{int(found['crop'])}.npy" if found else None


def as_audio_name(filename: str) -> str | None:
    """Likewise of an audio file."""
    found = _AUDIO.fullmatch(filename)
    return f"{found['name']}__vggish.npy" if found else None


def _folders(root: Path) -> list[str]:
    """Folders in `root` and in these, relative to it; not more than a person would look through."""
    found: list[str] = []
    try:
        for path in sorted(root.iterdir())[:_MOST_LISTED]:
            if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
                found.append(path.name)
                inner = sorted(each.name for each in path.iterdir() if each.is_dir())[:_MOST_LISTED]
                found += [f"{path.name}/{name}" for name in inner]
    except OSError:
        pass
    return found
