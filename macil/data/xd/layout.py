"""The XD-Violence folder layout: which files belong to which video. File names only; no file is opened but lists.

RGB/NAME__0.npy ... NAME__4.npy          training, visual, one file a crop   (or i3d-features/RGB/)
RGBTest/...                              test, visual                        (or i3d-features/RGBTest/)
vggish-features/train/NAME__vggish.npy   training, audio, one file a video
vggish-features/test/...                 test, audio
annotations.txt, gt.npy, *.list          beside them or in list/
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from macil.data.xd.folders import FOLDERS, SIDE_FOLDERS, SPLITS, Finding, Modality, Part, SplitName
from macil.data.xd.likeness import as_audio_name, as_visual_name, layout_inside, letters, similar_folder
from macil.data.xd.lists import read_lists
from macil.data.xd.names import (
    ParsedName,
    match_audio_file,
    match_visual_file,
    normalise_name,
    parse_name,
)
from macil.errors import DataError
from macil.io.remote import local_path
from macil.io.text import is_printable
from macil.io.wording import plural


@dataclass(frozen=True)
class VideoFiles:
    """The files of one video; `visual` in crop order. A video with faults may lack some."""

    name: str
    split: SplitName
    parsed: ParsedName
    visual: tuple[Path, ...]
    audio: Path | None


@dataclass
class Layout:
    """The videos of a folder: training videos, then test videos, each by name; `unreadable_names` are left out."""

    root: Path
    audio_may_lack: bool = False
    visual_only: bool = False
    part: Part | None = None
    manifest: Path | None = None
    """The table that the videos were read from; None: `root` is in the XD-Violence layout"""
    intervals: dict[str, tuple[str, list[tuple[int, int]]]] | None = None
    """By violent test video its row of the manifest and its half-open frame intervals; None: see `annotations`"""
    unused: int = 0
    """Training videos with intervals in the manifest"""
    videos: tuple[VideoFiles, ...] = ()
    crops: int = 0
    annotations: Path | None = None
    ground_truth: Path | None = None
    test_list: tuple[str, ...] | None = None
    unreadable_names: set[str] = field(default_factory=set)
    faults: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    @property
    def splits(self) -> tuple[SplitName, ...]:
        """The splits that are looked at."""
        return SPLITS if self.part is None else (self.part,)

    def of_split(self, split: SplitName) -> list[VideoFiles]:
        """Return the videos of one split, by name."""
        return [video for video in self.videos if video.split == split]

    @property
    def origin(self) -> Path:
        """What was given: the manifest, or the folder."""
        return self.manifest or self.root

    def relative(self, path: Path) -> str:
        """Return `path` as people name it: relative to the folder, where it lies in it."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)


@dataclass
class _Found:
    """Files of one split as they are met: name -> crop -> path, name -> path, and normalised file name -> path."""

    visual: dict[str, dict[int, Path]] = field(default_factory=dict)
    audio: dict[str, Path] = field(default_factory=dict)
    filenames: dict[Modality, dict[str, Path]] = field(default_factory=lambda: {"visual": {}, "audio": {}})


def read_layout(
    root: str | os.PathLike[str],
    *,
    audio_may_lack: bool = False,
    visual_only: bool = False,
    part: Part | None = None,
) -> Layout:
    """Pair every visual, audio and annotation file of a folder by name.

    Faults in the data are collected in `Layout.faults`, all of them.

    Args:
        root: The folder.
        audio_may_lack: Whether a video without an audio file is no fault.
        visual_only: Look at no audio.
        part: The only split to look at; None: both.

    Raises:
        DataError: The folder is missing, no folder, empty, or holds none of the layout's folders.
    """
    root = local_path(root).absolute()
    require_layout(root)
    layout = Layout(root, audio_may_lack=audio_may_lack or visual_only, visual_only=visual_only, part=part)
    found = {split: _scan_split(layout, split) if split in layout.splits else _Found() for split in SPLITS}
    chosen = {split: _apply_lists(layout, split, found) for split in layout.splits}
    layout.crops = _check_crop_numbers(layout, found)
    videos: list[VideoFiles] = []
    for split in layout.splits:
        videos.extend(_pair_split(layout, split, found[split], chosen[split]))
    layout.videos = tuple(videos)
    _check_both_splits(layout)
    _note_names(layout, found)
    layout.annotations = _find_side_file(layout, "annotations.txt")
    layout.ground_truth = _find_side_file(layout, "gt.npy")
    return layout


def layout_files(root: Path) -> Generator[os.DirEntry[str]]:
    """Yield every file that can change what a layout folder means, for fingerprints; order not defined."""
    for folders in FOLDERS.values():
        for folder in folders:
            if (root / folder).is_dir():
                with os.scandir(root / folder) as entries:
                    yield from (entry for entry in entries if entry.name.endswith(".npy"))
    for folder in SIDE_FOLDERS:
        if (root / folder).is_dir():
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    if entry.name in ("annotations.txt", "gt.npy") or entry.name.endswith(".list"):
                        yield entry


def require_layout(root: Path) -> None:
    """Refuse what is not, at first sight, a folder in the layout.

    Raises:
        DataError: It is missing, no folder, empty, a store, or holds none of the layout's folders.
    """
    expected = "expected RGB/, RGBTest/, vggish-features/train/ and vggish-features/test/ in it"
    if not root.exists():
        raise DataError(f"{root} does not exist; {expected}")
    if not root.is_dir():
        raise DataError(f"{root} is a file, not a folder; {expected}")
    try:
        if not any(root.iterdir()):
            raise DataError(f"{root} is empty; {expected}")
    except OSError as error:
        raise DataError(f"{root} cannot be read: {error.strerror}") from None
    if not any((root / folder).is_dir() for folders in FOLDERS.values() for folder in folders):
        if (root / "meta.json").is_file():
            raise DataError(f"{root} is a converted store, not a folder in the XD-Violence layout")
        raise DataError(f"{root} is not in the XD-Violence layout; {expected}{_where_else(root)}")


def _where_else(root: Path) -> str:
    """Where the folders of the layout may be instead, as the end of a sentence."""
    names = [name for folders in FOLDERS.values() for name in folders]
    if found := layout_inside(root, names):
        return f"; {found} has such a folder: give that one"
    like = similar_folder(root, names, ())
    return f"; {like}/ looks like one of them: rename it" if like else ""


def _scan_split(layout: Layout, split: SplitName) -> _Found:
    found = _Found()
    modalities: tuple[Modality, ...] = ("visual",) if layout.visual_only else ("visual", "audio")
    for modality in modalities:
        names = FOLDERS[modality, split]
        folders = [layout.root / name for name in names if (layout.root / name).is_dir()]
        if not folders and not (modality == "audio" and layout.audio_may_lack):
            known = [Path(name) for others in FOLDERS.values() for name in others]
            taken = [path.as_posix() for name in known for path in (name, name.parent)]
            like = similar_folder(layout.root, names, taken)
            reason = "the folder is missing" + (f"; {like}/ looks like it: rename it" if like else "")
            layout.faults.append(Finding("folder", f"{names[0]}/", reason))
        for folder in folders:
            _scan_folder(layout, folder, modality, found)
    return found


def _scan_folder(layout: Layout, folder: Path, modality: Modality, found: _Found) -> None:
    try:
        filenames = sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
    except OSError as error:
        layout.faults.append(
            Finding("unreadable", f"{layout.relative(folder)}/", f"cannot be read: {error.strerror}")
        )
        return
    others = 0
    for filename in filenames:
        path = folder / filename
        if not filename.endswith(".npy"):
            others += 1
        elif not is_printable(filename):
            reason = "the name holds a control character or is not UTF-8; rename the file"
            layout.faults.append(Finding("name", layout.relative(path), reason))
        elif (known := normalise_name(filename)) in found.filenames[modality]:
            first = found.filenames[modality][known]
            reason = "the same file is in another folder too"
            if first.name != filename:
                reason = f"has the same name as {layout.relative(first)}, in another spelling; rename or remove one"
            layout.faults.append(Finding("duplicate", layout.relative(path), reason))
        else:
            found.filenames[modality][known] = path
            _add_file(layout, path, modality, found)
    if others:
        where = f"{layout.relative(folder)}/"
        entries = (
            "1 entry that is no .npy file is"
            if others == 1
            else f"{others} entries that are no .npy files are"
        )
        layout.notes.append(Finding("other-files", where, f"{entries} not read"))


def _add_file(layout: Layout, path: Path, modality: Modality, found: _Found) -> None:
    if modality == "audio":
        name = match_audio_file(path.name)
        if name is None:
            likely = None if match_visual_file(path.name) else as_audio_name(path.name)
            _refuse_name(layout, path, "__vggish.npy", likely)
        else:
            found.audio[name] = path
        return
    matched = match_visual_file(path.name)
    if matched is None:
        _refuse_name(layout, path, "__CROP.npy", as_visual_name(path.name))
        return
    crops = found.visual.setdefault(matched[0], {})
    if matched[1] in crops:
        reason = f"is crop {matched[1]} again, beside {crops[matched[1]].name}"
        layout.faults.append(Finding("duplicate", layout.relative(path), reason))
    crops.setdefault(matched[1], path)


def _refuse_name(layout: Layout, path: Path, ending: str, likely: str | None) -> None:
    reason = f"expected a name ending in {ending}" + (f", such as {likely}" if likely else "")
    layout.faults.append(Finding("name", layout.relative(path), reason))


def _apply_lists(layout: Layout, split: SplitName, found: dict[SplitName, _Found]) -> set[str] | None:
    """Return the videos that the authors' lists of a split choose, or None without lists."""
    other: SplitName = "test" if split == "train" else "train"
    listed = read_lists(layout.root, split, found[split].filenames, found[other].filenames)
    layout.faults += listed.faults
    layout.notes += listed.notes
    if listed.names is None:
        return None
    if split == "test":
        layout.test_list = listed.names
    left_out = len(found[split].visual.keys() - set(listed.names))
    if left_out:
        where = FOLDERS["visual", split][0] + "/"
        are = "is" if left_out == 1 else "are"
        reason = f"{plural(left_out, 'video')} {are} in no list and {are} left out"
        layout.notes.append(Finding("list", where, reason))
    return set(listed.names)


def _check_crop_numbers(layout: Layout, found: dict[SplitName, _Found]) -> int:
    """Return the number of crops of the data: what any video has, every video must have."""
    numbers = {crop for split in SPLITS for crops in found[split].visual.values() for crop in crops}
    highest = max(numbers, default=-1)
    if highest >= len(numbers):
        absent = list(islice((crop for crop in range(highest) if crop not in numbers), 10))
        text = ", ".join(map(str, absent)) + (", ..." if highest + 1 - len(numbers) > len(absent) else "")
        reason = f"no video has crop {text}; crops are numbered from 0 to {highest} without a gap"
        layout.faults.append(Finding("missing", FOLDERS["visual", "train"][0] + "/", reason))
        # Numbers such as a frame index at the end of a name must not ask for thousands of absent files.
        return len(numbers)
    return highest + 1


def _pair_split(
    layout: Layout, split: SplitName, found: _Found, chosen: set[str] | None
) -> Iterator[VideoFiles]:
    names = sorted(found.visual.keys() | found.audio.keys())
    alone = {letters(name): name for name in found.audio if name not in found.visual}
    for name in names if chosen is None else [name for name in names if name in chosen]:
        crops = found.visual.get(name, {})
        audio = found.audio.get(name)
        _check_complete(layout, split, name, crops, audio, alone.get(letters(name)))
        folder = FOLDERS["visual" if crops else "audio", split][0]
        try:
            parsed = parse_name(name)
        except ValueError as error:
            layout.faults.append(Finding("label", f"{folder}/{name}", str(error)))
            layout.unreadable_names.add(name)
            continue
        if parsed.unknown_codes:
            reason = f"category {'-'.join(parsed.unknown_codes)} is not in XD-Violence; counted as violent"
            layout.notes.append(Finding("category", f"{folder}/{name}", reason))
        yield VideoFiles(name, split, parsed, tuple(crops[crop] for crop in sorted(crops)), audio)


def _check_complete(
    layout: Layout,
    split: SplitName,
    name: str,
    crops: dict[int, Path],
    audio: Path | None,
    alike: str | None,
) -> None:
    """Note what a video lacks; `alike` is a video without visual features whose name differs in spelling alone."""
    visual_folder, audio_folder = FOLDERS["visual", split][0], FOLDERS["audio", split][0]
    if not crops:
        reason = f"has audio in {audio_folder}/ but no visual features"
        layout.faults.append(Finding("missing", f"{visual_folder}/{name}", reason))
    else:
        for crop in sorted(set(range(layout.crops)) - crops.keys()):
            reason = f"crop {crop} of {layout.crops} is missing"
            layout.faults.append(Finding("missing", f"{visual_folder}/{name}__{crop}.npy", reason))
    if audio is None and not layout.audio_may_lack:
        reason = "the audio is missing; of a video without sound it may (--silent zeros, or leave-out)"
        if alike is not None:
            reason = f"the audio is missing; {alike}__vggish.npy looks like it: rename it"
        layout.faults.append(Finding("missing", f"{audio_folder}/{name}__vggish.npy", reason))


def _check_both_splits(layout: Layout) -> None:
    names: dict[SplitName, Iterable[str]] = {s: [video.name for video in layout.of_split(s)] for s in SPLITS}
    for name in sorted(set(names["train"]) & set(names["test"])):
        layout.faults.append(Finding("duplicate", name, "is both a training and a test video"))
    for split in layout.splits:
        if not names[split]:
            where = FOLDERS["visual", split][0] + "/"
            layout.faults.append(Finding("empty", where, f"there is no {split} video"))


def _note_names(layout: Layout, found: dict[SplitName, _Found]) -> None:
    """Say which names were changed on the way here."""
    files = [item for split in SPLITS for each in found[split].filenames.values() for item in each.items()]
    changed = [(path, known) for known, path in files if path.name != known]
    if changed:
        path, known = changed[0]
        more = f", {len(changed) - 1} more likewise" if len(changed) > 1 else ""
        reason = f"is read as {known}{more}: a mirror or a download tool has changed the name"
        layout.notes.append(Finding("name", layout.relative(path), reason))


def _find_side_file(layout: Layout, filename: str) -> Path | None:
    paths = [layout.root / folder / filename for folder in SIDE_FOLDERS]
    present = [path for path in paths if path.is_file()]
    for path in present[1:]:
        used = layout.relative(present[0])
        layout.notes.append(Finding("other-files", layout.relative(path), f"is not read; {used} is used"))
    return present[0] if present else None
