"""Findings as lines for people: what repeats is one line with a count, and each kind has its place in the docs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from macil.data.xd.folders import Finding
from macil.io.text import printable

DOCS = "docs/data.md"
SECTIONS = {
    "what is missing": ("folder", "missing", "empty"),
    "names and lists": ("name", "duplicate", "label", "category", "list", "other-files", "source"),
    "files that cannot be read": ("unreadable", "truncated", "changed"),
    "values and shapes": ("shape", "width", "dtype", "length", "not-finite", "all-zero", "overflow", "zero-rows"),
    "options of reading": ("silent",),
    "frame labels": ("annotation", "gt", "gt-mismatch", "order", "units", "snippet-frames"),
    "a manifest": ("manifest",),
    "what a search will refuse": ("search",),
}  # fmt: skip
"""Sections of docs/data.md, each with the kinds of findings that it is about."""

_MANY = {
    "missing": "missing",
    "unreadable": "cannot be read",
    "truncated": "cut short",
    "shape": "of another shape",
    "width": "of another width",
    "dtype": "of another type",
    "length": "of another length",
    "empty": "empty",
    "not-finite": "with values that are no finite numbers",
    "all-zero": "of nothing but zeros",
    "name": "with another name",
    "duplicate": "twice",
}
"""Of kinds about files: what many of them are."""

# So many of one kind in one place are still listed one by one.
_FEW = 3
_PLACE = re.compile(r"(?P<file>.+?) (?:line|row) \d+(?: \S+)?|(?P<folder>.+)/[^/]+", re.DOTALL)
_WORD = re.compile(r"[a-z]+")


def group_findings(findings: Sequence[Finding], expected: Mapping[str, str]) -> list[str]:
    """A line for each finding, and one for more than three of the same kind in the same folder or file.

    Args:
        findings: In their order, which the lines keep.
        expected: Folder to what it should hold, in words: "300 audio files".
    """
    groups: dict[tuple[str, str, tuple[str, ...]], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.kind, _place(finding.where), _gist(finding)), []).append(finding)
    return [
        line
        for (_, place, _), group in groups.items()
        for line in (map(str, group) if len(group) <= _FEW else [_summary(place, group, expected.get(place))])
    ]


def sections_of(findings: Iterable[Finding]) -> list[str]:
    """The sections of the docs that are about these findings, as links that a browser or a person follows."""
    kinds = {finding.kind for finding in findings}
    return [
        f"{DOCS}#{section.replace(' ', '-')}"
        for section, about in SECTIONS.items()
        if kinds.intersection(about)
    ]


def _place(where: str) -> str:
    found = _PLACE.fullmatch(where)
    return (found["file"] or found["folder"]) if found else ""


def _gist(finding: Finding) -> tuple[str, ...]:
    """The first plain words of the reason: without names and numbers, in which findings of one sort differ."""
    return tuple(word for word in finding.reason.split() if _WORD.fullmatch(word))[:3]


def _summary(place: str, group: Sequence[Finding], expected: str | None) -> str:
    first = group[:_FEW]
    names = [finding.where.removeprefix(f"{place}/").removeprefix(f"{place} ") for finding in first]
    reasons = [finding.reason for finding in first]
    if len({finding.reason for finding in group}) == 1:
        text = f"the first three are {', '.join(names)} ({reasons[0]})"
    else:
        parts = (f"{name}: {reason}" for name, reason in zip(names, reasons, strict=True))
        text = f"the first three are {'; '.join(parts)}"
    head = f"{place}: " if place else ""
    if expected and all(finding.where.endswith(".npy") for finding in group):
        return printable(f"{head}{len(group):,} of {expected} {_MANY.get(group[0].kind, 'at fault')}; {text}")
    return printable(f"{head}{len(group):,} times ({group[0].kind}); {text}")
