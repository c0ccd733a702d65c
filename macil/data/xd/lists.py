"""The authors' `*.list` files: which videos belong to the data set, and in which order `gt.npy` holds them.

A line is the path of a feature file on somebody's machine; only its file name counts. `audio` in the name of a list
makes it a list of audio files, `test` one of test files, `flow` one of optical flow, which is not used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from macil.data.xd.folders import FOLDERS, SIDE_FOLDERS, Finding, Modality, SplitName
from macil.data.xd.names import match_visual_file, normalise_name
from macil.io.reading import read_text


@dataclass
class ListedVideos:
    """The lists of one split: the videos of its visual lists in their order, None without such a list."""

    names: tuple[str, ...] | None = None
    faults: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)


def read_lists(
    root: Path,
    split: SplitName,
    present: Mapping[Modality, Collection[str]],
    elsewhere: Mapping[Modality, Collection[str]],
) -> ListedVideos:
    """Read every list of a split and compare it with the files there are.

    Args:
        root: The layout folder.
        split: Whose lists to read.
        present: Normalised names of the files in the folders of this split, by modality.
        elsewhere: Those in the folders of the other split.
    """
    result = ListedVideos()
    names: dict[str, None] = {}
    for path in [path for folder in SIDE_FOLDERS for path in sorted((root / folder).glob("*.list"))]:
        where = path.relative_to(root).as_posix()
        title = path.name.lower()
        if ("test" in title) != (split == "test"):
            continue
        if "flow" in title:
            result.notes.append(Finding("list", where, "lists optical flow, which is not used"))
            continue
        modality: Modality = "audio" if "audio" in title else "visual"
        filenames = _read_list(path, where, result)
        for filename, count in Counter(filenames).items():
            if count > 1:
                result.faults.append(Finding("duplicate", where, f"names {filename} {count} times"))
            if filename not in present[modality]:
                reason = f"names {filename}, which is not in {FOLDERS[modality, split][0]}/"
                if filename in elsewhere[modality]:
                    reason += f", but among the files of the other split: a {split} list must not name it"
                result.faults.append(Finding("missing", where, reason))
        if modality == "visual":
            names.update((match[0], None) for match in map(match_visual_file, filenames) if match)
            result.names = tuple(names)
    return result


def _read_list(path: Path, where: str, result: ListedVideos) -> list[str]:
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        result.faults.append(Finding("unreadable", where, f"cannot be read: {error}"))
        return []
    # Somebody's machine may have had backslashes.
    filenames = (line.strip().replace("\\", "/").rpartition("/")[2] for line in lines if line.strip())
    return [normalise_name(filename) for filename in filenames]
