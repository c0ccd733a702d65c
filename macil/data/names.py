"""What the name of a video says: `SOURCE__#..._label_CATEGORY`."""

from __future__ import annotations

import re
from dataclasses import dataclass

# The categories of XD-Violence; "0" fills unused places, as in B1-0-0.
NORMAL_CODE = "A"
VIOLENT_CODES = {
    "B1": "fighting",
    "B2": "shooting",
    "B4": "riot",
    "B5": "abuse",
    "B6": "car accident",
    "G": "explosion",
}

_VISUAL_FILE = re.compile(r"(?P<name>.+)__(?P<crop>\d+)\.npy", re.DOTALL)
_AUDIO_FILE = re.compile(r"(?P<name>.+)__vggish\.npy", re.DOTALL)


@dataclass(frozen=True)
class ParsedName:
    """Source (film or `v=ID`), category ("A", "B1-0-0", ...) and label (0 normal, 1 violent) of a video."""

    source: str
    category: str
    label: int

    @property
    def unknown_codes(self) -> tuple[str, ...]:
        """Codes that XD-Violence does not have; they count as violent."""
        if self.label == 0:
            return ()
        return tuple(code for code in self.category.split("-") if code != "0" and code not in VIOLENT_CODES)


def parse_name(name: str) -> ParsedName:
    """Read source, category and label off a video's name.

    Raises:
        ValueError: The name holds no label, or one that is neither normal nor violent.
    """
    stem, marker, category = name.rpartition("_label_")
    if not marker or not category:
        raise ValueError("the name holds no label, expected ..._label_A or ..._label_B1-0-0")
    codes = [code for code in category.split("-") if code != "0"]
    if not codes or "" in codes:
        raise ValueError(f"label {category!r} names no category, expected A or codes such as B1-0-0")
    if codes != [NORMAL_CODE] and any(code.startswith(NORMAL_CODE) for code in codes):
        raise ValueError(f"label {category!r} mixes A (normal) with something else")
    # Without a clip number the clip is its own source.
    source = stem.rpartition("__#")[0] or stem
    return ParsedName(source=source, category=category, label=int(codes != [NORMAL_CODE]))


def match_visual_file(filename: str) -> tuple[str, int] | None:
    """Split `NAME__c.npy` into the video's name and the crop's number; None when it is not such a name."""
    match = _VISUAL_FILE.fullmatch(filename)
    return (match["name"], int(match["crop"])) if match else None


def match_audio_file(filename: str) -> str | None:
    """Return the video's name of `NAME__vggish.npy`; None when it is not such a name."""
    match = _AUDIO_FILE.fullmatch(filename)
    return match["name"] if match else None
