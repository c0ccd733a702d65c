"""Videos as the feature files somebody names, or as the visual and audio folders of one split: no labels, no store.

Rules for files, by name alone:

NAME__0.npy      a visual file of the layout: all crops NAME__0, NAME__1, ... beside it are read, and NAME__vggish.npy,
                 from the audio folder of the layout or from beside it
NAME__vggish.npy the audio of a NAME that is given too, where it lies elsewhere
anything else    VISUAL.npy, and the file that follows it is its audio: a video called VISUAL
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from macil.data.choosing import choose
from macil.data.pairing import EXPECTED, are_far_apart, axes_look_swapped
from macil.data.xd.arrays import ArrayError, load_array, read_shape
from macil.data.xd.folders import FOLDERS, SPLITS, SplitName
from macil.data.xd.names import match_audio_file, match_visual_file, normalise_name
from macil.errors import DataError
from macil.io.text import is_printable
from macil.io.wording import plural

# Normalised name -> crop -> file, and name -> audio file; several files where two spellings are one name.
_Crops = dict[str, dict[int, list[Path]]]
_Audio = dict[str, list[Path]]


@dataclass(frozen=True)
class VideoFiles:
    """The files of a video. `visual`: a file (T, Dv) for each crop, or one file that may be (crops, T, Dv)."""

    name: str
    visual: tuple[Path, ...]
    audio: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them, the audio last."""
        return (*self.visual, self.audio)


class FeatureFiles(NamedTuple):
    """Videos, and what is wrong with the rest, a text each that begins with the file."""

    videos: tuple[VideoFiles, ...]
    problems: tuple[str, ...]


def videos_of_files(paths: Iterable[Path]) -> FeatureFiles:
    """Group files into videos by their names, in the order of their first file."""
    given = list(paths)
    unfit = {path: reason for path in given if (reason := _unfit(path))}
    problems = [f"{path}: {reason}" for path, reason in unfit.items()]
    pairs, audio_files = _pair([path for path in given if path not in unfit], problems)
    found: dict[str, VideoFiles] = {}
    named: set[str] = set()
    folders: dict[Path, _Crops] = {}
    beside: dict[Path, _Audio] = {}
    for path, audio in pairs:
        if audio is not None:
            _add(VideoFiles(normalise_name(path.stem), (path,), audio), found, problems)
            continue
        name = _name_of(path)
        named.add(name)
        if path.parent not in folders:
            folders[path.parent] = _crops_by_name(path.parent.iterdir())
        audios = audio_files.get(name) or _find_audio(path.parent, name, beside)
        present = folders[path.parent]
        video = _complete(path.parent / name, present[name], audios, problems, _usual_crops(present))
        if video is not None:
            _add(video, found, problems)
    problems += [
        f"{path}: is the audio of {name}, of which no visual file ({name}__0.npy) was given"
        for name, paths in audio_files.items()
        for path in paths
        if name not in named
    ]
    return FeatureFiles(tuple(found.values()), tuple(dict.fromkeys(problems)))


def videos_of_folder(root: Path, split: SplitName, names: Sequence[str] = ()) -> FeatureFiles:
    """Videos of a split of a folder in the layout, in the order of `names`, or all; lists and labels are not read.

    Raises:
        DataError: There are none, or not all of `names`.
    """
    visual = _crops_by_name(_entries(root, FOLDERS["visual", split]))
    if not visual:
        expected = f"expected {FOLDERS['visual', split][0]}/NAME__0.npy in it"
        raise DataError(f"{root} holds no {split} video; {expected}")
    audio_files = _audio_by_name(_entries(root, FOLDERS["audio", split]))
    beside: dict[Path, _Audio] = {}
    usual = _usual_crops(visual)
    present = sorted(visual)
    chosen = [present[i] for i in choose(names, present, f"the {split} videos of {root}")]
    problems: list[str] = []
    found = []
    for name in chosen:
        crops = visual[name]
        folder = next(iter(crops.values()))[0].parent
        audios = audio_files.get(name) or _find_audio(folder, name, beside)
        found.append(_complete(folder / name, crops, audios, problems, usual))
    return FeatureFiles(tuple(video for video in found if video is not None), tuple(problems))


def header_faults(
    video: VideoFiles, visual_dim: int, audio_dim: int, *, fill_audio: bool = False
) -> dict[Path, str]:
    """Faults in the headers of a video's files, for a network that reads these widths; no value is read.

    Args:
        video: The files.
        visual_dim, audio_dim: Widths that the network reads.
        fill_audio: Whether audio of any length will do.
    """
    faults: dict[Path, str] = {}
    arrays_allowed = len(video.visual) == 1 and match_visual_file(video.visual[0].name) is None
    shapes: dict[Path, tuple[int, ...]] = {}
    for path in video.files:
        is_audio = path == video.audio
        what, width = ("audio", audio_dim) if is_audio else ("visual", visual_dim)
        try:
            shape, _ = read_shape(path, (2, 3) if arrays_allowed and not is_audio else (2,))
        except ArrayError as error:
            faults[path] = str(error)
            continue
        if shape[-1] != width:
            faults[path] = (
                f"is {shape[-1]} wide, shape {shape}; the network reads {what} features {width} wide"
            )
            if width in shape:
                faults[path] += ": its axes look transposed, expected the features in the last one"
        else:
            shapes[path] = shape
    return faults | _length_faults(video, shapes, fill_audio)


def _length_faults(
    video: VideoFiles, shapes: Mapping[Path, tuple[int, ...]], fill_audio: bool
) -> dict[Path, str]:
    """Which lengths disagree, of the files whose shapes are known."""
    faults: dict[Path, str] = {}
    visual = [path for path in video.visual if path in shapes]
    if not visual:
        return faults
    first = visual[0]
    length = shapes[first][-2]
    for path in visual:
        if shapes[path][-2] != length:
            faults[path] = (
                f"has {shapes[path][-2]} snippets and {first.name} has {length}; crops are equally long"
            )
    rows = shapes.get(video.audio, (length,))[0]
    if axes_look_swapped(shapes[first], rows, fill_audio=fill_audio):
        faults[first] = (
            f"has shape {shapes[first]} and its audio {video.audio} has {plural(rows, 'row')}: the axes look like "
            "(snippets, crops, features); expected (crops, snippets, features), see numpy.transpose(array, (1, 0, 2))"
        )
        if not are_far_apart(length, rows):
            faults[first] += "; where they are right, --fill-audio says so"
    elif are_far_apart(length, rows) and not fill_audio:
        faults[video.audio] = (
            f"has {plural(rows, 'row')}, the visual features {first} have {length} snippets; {EXPECTED}. Give the "
            "audio of this video; with --fill-audio it is cut, or filled with zeros"
        )
    return faults


def load_finite(path: Path) -> np.ndarray:
    """Load one feature file as C-ordered float32; zeros everywhere are allowed.

    Raises:
        ArrayError: Unreadable, or a value is not finite or beyond float32.
    """
    array = load_array(path)
    with np.errstate(over="ignore"):
        features = np.ascontiguousarray(array, np.float32)
    finite = np.isfinite(features)
    if not finite.all():
        first = ", ".join(map(str, np.argwhere(~finite)[0]))
        count = np.count_nonzero(~finite)
        reason = f"holds {count} values that are NaN, infinite or beyond float32, the first at [{first}]"
        raise ArrayError("not-finite", reason)
    return features


def stack_crops(video: VideoFiles, arrays: Mapping[Path, np.ndarray]) -> np.ndarray:
    """The visual features (crops, T, Dv) of a video whose files were loaded."""
    visual = [arrays[path] for path in video.visual]
    return visual[0] if visual[0].ndim == 3 else np.stack(visual)


def _unfit(path: Path) -> str | None:
    if not is_printable(path.name):
        return "the name holds a control character or is not UTF-8; rename the file"
    if path.name.startswith("."):
        return "the name begins with a dot, and hidden files are left out of a data set; rename the file"
    if not path.exists():
        return "does not exist" + ("" if path.suffix == ".npy" else "; expected a data folder or .npy files")
    if not path.is_file():
        return "is no file"
    return None if path.suffix == ".npy" else "is not a .npy file"


def _pair(paths: Sequence[Path], problems: list[str]) -> tuple[list[tuple[Path, Path | None]], _Audio]:
    """Visual files, each with the audio file that follows it (None: of the layout), and audio files of the layout."""
    visuals: list[tuple[Path, Path | None]] = []
    audio_files: _Audio = {}
    waiting: Path | None = None
    for path in paths:
        is_visual, audio_of = match_visual_file(path.name) is not None, match_audio_file(path.name)
        if waiting is not None and not is_visual:
            visuals.append((waiting, path))
            waiting = None
        elif is_visual:
            problems += _alone(waiting)
            waiting = None
            visuals.append((path, None))
        elif audio_of is not None:
            audio_files[audio_of] = list(dict.fromkeys([*audio_files.get(audio_of, ()), path]))
        else:
            waiting = path
    problems += _alone(waiting)
    return visuals, audio_files


def _alone(path: Path | None) -> list[str]:
    if path is None:
        return []
    return [
        f"{path}: stands alone; expected VISUAL.npy AUDIO.npy, or a name of the layout such as NAME__0.npy"
    ]


def _name_of(path: Path) -> str:
    matched = match_visual_file(path.name)
    assert matched is not None
    return matched[0]


def _add(video: VideoFiles, found: dict[str, VideoFiles], problems: list[str]) -> None:
    first = found.setdefault(video.name, video)
    if first != video:
        problems.append(f"{video.visual[0]}: is a second video called {video.name}, beside {first.visual[0]}")


def _crops_by_name(paths: Iterable[Path]) -> _Crops:
    crops: _Crops = {}
    for path in sorted(paths):
        matched = match_visual_file(path.name)
        if matched is not None and not path.name.startswith("."):
            crops.setdefault(matched[0], {}).setdefault(matched[1], []).append(path)
    return crops


def _audio_by_name(paths: Iterable[Path]) -> _Audio:
    found: _Audio = {}
    for path in sorted(paths):
        name = match_audio_file(path.name)
        if name is not None and not path.name.startswith("."):
            found.setdefault(name, []).append(path)
    return found


def _usual_crops(videos: _Crops) -> int:
    """How many crops most of these videos have, the higher number in doubt."""
    counts = Counter(len(crops) for crops in videos.values())
    return max(counts, key=lambda number: (counts[number], number))


def _complete(
    stem: Path, crops: dict[int, list[Path]], audios: Sequence[Path], problems: list[str], usual: int
) -> VideoFiles | None:
    """The video of these crops, called as `stem` is; None, and the reasons, where something is missing.

    `usual` is the number of crops of the videos beside it: a mean over others would be another score.
    """
    faults = []
    if not is_printable(stem.name):
        faults.append(f"{stem}: the name holds a control character or is not UTF-8; rename its files")
    if set(crops) != set(range(len(crops))):
        text = ", ".join(map(str, sorted(crops)))
        faults.append(f"{stem}: its crops should be numbered from 0 without a gap; there are {text}")
    elif len(crops) != usual:
        faults.append(
            f"{stem}: has {plural(len(crops), 'crop')}, and videos beside it have {usual}; give it as many, or a "
            "folder of its own"
        )
    if not audios:
        expected = [folder / f"{stem.name}__vggish.npy" for folder in _audio_folders(stem.parent)]
        faults.append(f"{stem}: its audio is missing, expected {' or '.join(map(str, expected))}")
    # Neither of two spellings of one name may silently stand for the other.
    faults += [
        f"{other}: is read as the same file as {first}; rename or remove one of them"
        for first, *others in (*crops.values(), *([audios] if audios else []))
        for other in others
    ]
    problems += faults
    if faults:
        return None
    return VideoFiles(stem.name, tuple(crops[crop][0] for crop in sorted(crops)), audios[0])


def _audio_folders(visual: Path) -> Iterator[Path]:
    """Where the audio of the videos of a visual folder may lie: the layout's folder for it, then itself."""
    parent = visual.absolute()
    for split in SPLITS:
        for folder in FOLDERS["visual", split]:
            parts = Path(folder).parts
            if parent.parts[-len(parts) :] == parts:
                yield from (parent.parents[len(parts) - 1] / audio for audio in FOLDERS["audio", split])
    yield visual


def _find_audio(visual: Path, name: str, known: dict[Path, _Audio]) -> list[Path]:
    """The audio of a video, from the first folder that has it; `known` holds the folders that were listed."""
    for folder in _audio_folders(visual):
        if folder not in known:
            known[folder] = _audio_by_name(folder.glob("*.npy"))
        if found := known[folder].get(name):
            return found
    return []


def _entries(root: Path, folders: Iterable[str]) -> Iterator[Path]:
    for folder in folders:
        if (root / folder).is_dir():
            yield from (root / folder).iterdir()
