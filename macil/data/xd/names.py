"""Names of videos, which hold source and categories: `SOURCE__#..._label_CATEGORY`."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html.entities import html5
from urllib.parse import unquote_to_bytes

from macil.data.xd.likeness import letters
from macil.io.text import is_printable

# The categories of XD-Violence; "0" fills unused positions, as in B1-0-0.
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

# What mirrors and download tools make of a name. Percent quoting: every "%" begins an escape, since "%" is quoted too.
_ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_QUOTED = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*")
_ENTITY = re.compile(r"&(?:#\d+|#[xX][0-9A-Fa-f]+|[A-Za-z][A-Za-z0-9]*);")
# The clip of a video of XD-Violence: from when to when, or a number. The demo has hours of three digits.
_TIMES = r"\d{2,3}-\d\d-\d\d_\d{2,3}-\d\d-\d\d(?=_label_)"
_CLIP = rf"(?:{_TIMES}|\d+(?=_label_))"
_VIDEO_ID = r"[A-Za-z0-9_-]{11}"
# "=" is another character where a tool did not like it.
_VIDEO = re.compile(rf"v(?:=|[^0-9A-Za-z](?={_VIDEO_ID}$))(?P<id>.*)", re.DOTALL)
_MOST_NAMED = 3
_MARKED = re.compile(r".+__#.*_label_", re.DOTALL)
# Where "#" was quoted, replaced or dropped, in forms that can have come from nothing else; most certain first.
_CHANGED_MARKERS = (
    re.compile(rf"(?P<source>.+)__(?:%(?:25)*23|\uff03|\ufe5f)(?={_CLIP})", re.DOTALL),
    re.compile(rf"v[=_](?P<id>{_VIDEO_ID})___(?={_CLIP})"),
    re.compile(rf"v=(?P<id>{_VIDEO_ID})__[_ .-]?(?={_CLIP})"),
    re.compile(rf"(?P<source>.+?)__[^0-9A-Za-z]?(?:23)?(?={_TIMES})", re.DOTALL),
)


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


def normalise_name(name: str) -> str:
    """The name of a video, or of a file of one, as XD-Violence writes it.

    Undone are percent quoting, also repeated, character entities and the decomposed letters of some file systems; and
    "#" is put back where it was quoted, replaced or dropped before a clip that leaves no doubt: two time codes, or a
    number after `v=` and the eleven characters of a video. All else stays: a name of another data set may hold
    anything. Names that are equal to a person are equal afterwards, and normalising twice changes nothing.
    """
    before = None
    while before != name:
        before = name
        name = _restore_marker(unicodedata.normalize("NFC", _unescape(_unquote(name))))
    return name


def source_doubts(names: Sequence[str], sources: Sequence[str]) -> list[str]:
    """Reasons to doubt the sources of training videos, a sentence each; `sources` are read from `names`."""
    if len(sources) > 1 and len(set(sources)) == len(sources):
        alone = f"each of the {len(sources)} training videos counts as a source of its own"
        split = "a held-out split is by video then, and cannot keep the clips of a film together"
        return [f"{alone}, since no two names have the text before __# in common: {split}"]
    doubts = []
    if unmarked := [name for name in names if not _MARKED.match(name)]:
        one = len(unmarked) == 1
        doubts.append(
            f"{len(unmarked)} training video{'' if one else 's'} without a source in the name (SOURCE__#CLIP_label_…), "
            f"the first is {unmarked[0]}: {'it' if one else 'each'} counts as a source of its own"
        )
    spellings: dict[str, set[str]] = {}
    for source in sources:
        # The case and the hyphens of a `v=ID` tell videos apart.
        video = _VIDEO.fullmatch(source)
        key = f"v={video['id']}" if video else letters(source)
        spellings.setdefault(key or source, set()).add(source)
    if alike := [" and ".join(sorted(each)) for each in spellings.values() if len(each) > 1]:
        more = f" and {len(alike) - _MOST_NAMED} more" if len(alike) > _MOST_NAMED else ""
        doubts.append(
            f"sources that differ only in case, blanks or punctuation: {'; '.join(alike[:_MOST_NAMED])}{more}. They "
            "count as different; if they are one film, give its files one spelling"
        )
    return doubts


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
    if codes != [NORMAL_CODE] and any(code.startswith(NORMAL_CODE) or code == "a" for code in codes):
        raise ValueError(
            f"label {category!r} is neither A (normal) nor codes of violence, none of which begins with A"
        )
    # Without a clip number the clip is its own source.
    source = stem.rpartition("__#")[0] or stem
    return ParsedName(source=source, category=category, label=int(codes != [NORMAL_CODE]))


def match_visual_file(filename: str) -> tuple[str, int] | None:
    """Split `NAME__c.npy` into the video's name, normalised, and the crop's number; None when it is no such name."""
    match = _VISUAL_FILE.fullmatch(normalise_name(filename))
    return (match["name"], int(match["crop"])) if match else None


def match_audio_file(filename: str) -> str | None:
    """Return the video's name, normalised, of `NAME__vggish.npy`; None when it is no such name."""
    match = _AUDIO_FILE.fullmatch(normalise_name(filename))
    return match["name"] if match else None


def _unquote(name: str) -> str:
    """Undo one round of percent quoting; as it is where it cannot be quoting, as in `100%.Wolf`."""
    if "%" not in name or not _QUOTED.fullmatch(name):
        return name
    decoded = [unquote_to_bytes(escapes) for escapes in _ESCAPES.findall(name)]
    try:
        texts = [each.decode() for each in decoded]
    except UnicodeDecodeError:
        return name
    # No tool quotes a letter or a digit; and none of these can be in the name of a file.
    if any(each.isascii() and each.isalnum() for each in "".join(texts)) or not _is_fit("".join(texts)):
        return name
    return _ESCAPES.sub(lambda escapes: unquote_to_bytes(escapes[0]).decode(), name)


def _unescape(name: str) -> str:
    def character(entity: re.Match[str]) -> str:
        known = entity[0][1] == "#" or entity[0][1:] in html5
        text = html.unescape(entity[0])
        return text if known and _is_fit(text) else entity[0]

    return _ENTITY.sub(character, name)


def _is_fit(text: str) -> bool:
    return "/" not in text and is_printable(text)


def _restore_marker(name: str) -> str:
    if _MARKED.match(name):
        return name
    for pattern in _CHANGED_MARKERS:
        if found := pattern.match(name):
            groups = found.groupdict()
            source = groups["source"] if "source" in groups else f"v={groups['id']}"
            return f"{source}__#{name[found.end() :]}"
    return name
