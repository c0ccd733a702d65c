"""A manifest: a table, `.csv` or `.parquet`, with a row for each video, for data with names and folders of their own.

It is read as the same `Layout` as a folder in the XD-Violence layout; everything after is the same.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import pyarrow as pa
import pyarrow.parquet

from macil.data.xd.annotations import Interval, parse_intervals
from macil.data.xd.folders import Finding, Part, SplitName
from macil.data.xd.layout import Layout, VideoFiles
from macil.data.xd.names import NORMAL_CODE, ParsedName
from macil.errors import DataError
from macil.io.reading import read_text, require_file
from macil.io.text import brief, is_printable
from macil.io.wording import plural

SUFFIXES = (".csv", ".parquet")
COLUMNS = {
    "name": True,
    "split": True,
    "label": True,
    "visual": True,
    "audio": False,
    "category": False,
    "source": False,
    "frames": False,
    "seconds": False,
    "fps": False,
}
"""Column to whether it must be there."""

_LABELS = {"0": 0, "normal": 0, "1": 1, "violent": 1}
_SEPARATOR = ";"
# Far beyond any data set there is: a file of a few bytes must not ask for more than there is memory.
_MOST_BYTES, _MOST_ROWS, _MOST_CHARACTERS, _MOST_FILES, _MOST_INTERVALS = 2**26, 200_000, 8_192, 100, 1_000
# The name of a video becomes the name of a file, with an ending.
_LONGEST_NAME = 240

_Cell = str | list[str]
_Row = Mapping[str, _Cell]


def is_manifest(path: Path) -> bool:
    """Whether a path is meant to be a manifest, by its name."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def read_manifest(
    path: Path, *, audio_may_lack: bool = False, part: Part | None = None, outside: bool = False
) -> Layout:
    """The videos of a manifest; no feature file is opened.

    Faults of rows are collected in `Layout.faults`, all of them, each with its row and column.

    Args:
        path: The file.
        audio_may_lack: Whether a video without an audio file is no fault.
        part: The only split to look at; None: both.
        outside: Whether feature files may lie outside of the manifest's folder.

    Raises:
        DataError: It cannot be read, is larger than any data set, or lacks a column.
    """
    path = path.absolute()
    layout = Layout(path.parent, audio_may_lack=audio_may_lack, part=part, manifest=path, intervals={})
    rows, columns = _read_csv(path, layout) if path.suffix.lower() == ".csv" else _read_parquet(path)
    _check_columns(path, columns, layout)
    reader = _RowReader(layout, outside=outside)
    videos = [video for where, row in rows for video in reader.read(where, row)]
    order = {"train": 0, "test": 1}
    layout.videos = tuple(sorted(videos, key=lambda video: (order[video.split], video.name)))
    _check_crops(layout, reader.rows)
    for split in layout.splits:
        if not layout.of_split(split):
            layout.faults.append(Finding("empty", path.name, f"there is no {split} video"))
    return layout


class _RowReader:
    """Reads rows into videos, and faults into the layout."""

    def __init__(self, layout: Layout, *, outside: bool) -> None:
        self._layout = layout
        self._outside = outside
        self._root = Path(os.path.realpath(layout.root))
        self._inside: dict[Path, bool] = {}
        self._taken: dict[str, str] = {}
        self.rows: dict[str, str] = {}
        """Name of a video to its row"""

    def read(self, where: str, row: _Row) -> Iterator[VideoFiles]:
        """The video of a row; none where it has faults or is of a split that is not looked at."""
        before = len(self._layout.faults)
        split = _text(row, "split").lower()
        if split not in get_args(SplitName):
            self._refuse(where, "split", f"is {brief(split)}, expected train or test")
        elif split not in self._layout.splits:
            return
        name = self._name(where, _text(row, "name"))
        label = _LABELS.get(_text(row, "label").lower())
        if label is None:
            self._refuse(where, "label", f"is {brief(_text(row, 'label'))}, expected {', '.join(_LABELS)}")
        visual = self._files(where, "visual", row)
        audio = self._files(where, "audio", row)
        if not visual and not _listed(row, "visual"):
            self._refuse(where, "visual", "is empty, expected the file of each crop, separated by ;")
        if len(audio) > 1:
            self._refuse(where, "audio", f"names {len(audio)} files, expected one")
        if not _listed(row, "audio") and not self._layout.audio_may_lack:
            reason = "is empty; of a video without sound it may be (--silent zeros, or leave-out)"
            self._refuse(where, "audio", reason)
        intervals = self._intervals(where, row, label, split)
        if len(self._layout.faults) > before or label is None:
            return
        source = _text(row, "source") or name.rpartition("__#")[0] or name
        category = _text(row, "category") or ("violent" if label else NORMAL_CODE)
        for column, text in (("source", source), ("category", category)):
            if not is_printable(text):
                self._refuse(where, column, "holds a control character")
        self.rows[name] = where
        if split == "test" and intervals is not None:
            cast(dict[str, Any], self._layout.intervals)[name] = (where, intervals)
        parsed = ParsedName(source, category, label)
        yield VideoFiles(name, cast(SplitName, split), parsed, tuple(visual), audio[0] if audio else None)

    def _refuse(self, where: str, column: str, reason: str) -> None:
        self._layout.faults.append(Finding("manifest", f"{where} {column}", reason))

    def _name(self, where: str, name: str) -> str:
        if not name or name.startswith(".") or "/" in name or not is_printable(name):
            reason = (
                f"is {brief(name)}, expected a name without / and control characters, that begins with no dot"
            )
            self._refuse(where, "name", reason)
        elif len(name.encode()) > _LONGEST_NAME:
            self._refuse(where, "name", f"has {len(name.encode())} bytes, expected at most {_LONGEST_NAME}")
        elif name in self.rows:
            self._refuse(where, "name", f"{name} is the name in {self.rows[name]} too")
        return name

    def _files(self, where: str, column: str, row: _Row) -> list[Path]:
        """The files that a cell names, without those at fault."""
        names = _listed(row, column)
        if len(names) > _MOST_FILES:
            self._refuse(where, column, f"names {len(names)} files, expected at most {_MOST_FILES}")
            return []
        found: list[Path] = []
        here = f"{where} {column}"
        for name in names:
            path = self._layout.root / name
            if not is_printable(name):
                self._refuse(where, column, f"{brief(name)} holds a control character")
            elif not self._outside and not self._is_inside(path):
                reason = (
                    f"{name} lies outside of the manifest's folder; --outside allows that to files you trust"
                )
                self._refuse(where, column, reason)
            elif path.suffix != ".npy":
                self._refuse(where, column, f"{name} is not the name of a .npy file")
            elif (first := self._taken.setdefault(os.path.normpath(path), here)) != here:
                self._refuse(where, column, f"{name} is named in {first} too")
            elif path in found:
                self._refuse(where, column, f"names {name} twice")
            else:
                found.append(path)
        return found

    def _is_inside(self, path: Path) -> bool:
        folder = path.parent
        try:
            if folder not in self._inside:
                self._inside[folder] = Path(os.path.realpath(folder)).is_relative_to(self._root)
            if not path.is_symlink():
                return self._inside[folder] and path.name != ".."
            return Path(os.path.realpath(path)).is_relative_to(self._root)
        except (OSError, ValueError):
            # Too long a name, a null byte: whoever reads it will say so.
            return not path.is_absolute() or path.is_relative_to(self._layout.root)

    def _intervals(self, where: str, row: _Row, label: int | None, split: str) -> list[Interval] | None:
        """Violent frames; None where the row does not say, or says it wrongly."""
        frames, seconds = _text(row, "frames"), _text(row, "seconds")
        if not frames and not seconds:
            return None
        if split == "train":
            self._layout.unused += 1
            return None
        if label == 0:
            self._refuse(
                where, "frames" if frames else "seconds", "are given of a video whose label is normal"
            )
        if frames and seconds:
            self._refuse(where, "frames", "and seconds are both given; give one of them")
            return None
        column = "frames" if frames else "seconds"
        try:
            words = (frames or seconds).split()
            if len(words) > 2 * _MOST_INTERVALS:
                raise ValueError(f"holds {len(words)} numbers, expected at most {2 * _MOST_INTERVALS}")
            return parse_intervals(words if frames else _in_frames(words, _text(row, "fps")))
        except ValueError as error:
            self._refuse(where, column, str(error))
            return None


def _in_frames(seconds: Sequence[str], fps: str) -> list[str]:
    """Times as numbers of the nearest frames.

    Raises:
        ValueError: No times, or no frame rate.
    """
    rate = _number(fps)
    if rate is None or not 0 < rate <= 100_000:
        raise ValueError(f"are given with fps {brief(fps)}, expected the frames a second of the video")
    numbers = []
    for word in seconds:
        number = _number(word)
        if number is None or not 0 <= number * rate < 2**31:
            raise ValueError(f"{brief(word)} is not a time in seconds from 0")
        numbers.append(str(math.floor(number * rate + 0.5)))
    return numbers


def _number(text: str) -> float | None:
    try:
        number = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _text(row: _Row, column: str) -> str:
    cell = row.get(column, "")
    return (" ".join(cell) if isinstance(cell, list) else cell).strip()


def _listed(row: _Row, column: str) -> list[str]:
    cell = row.get(column, "")
    parts = cell if isinstance(cell, list) else cell.split(_SEPARATOR)
    return [part.strip() for part in parts if part.strip()]


def _check_columns(path: Path, columns: Sequence[str], layout: Layout) -> None:
    """Refuse a table that lacks a column; note columns that are not read."""
    problems = [
        f"column {name} is missing" for name, needed in COLUMNS.items() if needed and name not in columns
    ]
    problems += [f"column {name} occurs twice" for name, count in Counter(columns).items() if count > 1]
    for name in dict.fromkeys(columns):
        if name not in COLUMNS:
            absent = [each for each in COLUMNS if each not in columns]
            if close := difflib.get_close_matches(name.lower(), absent, 1):
                problems.append(f"column {brief(name)} is not known; did you mean {close[0]}?")
            else:
                layout.notes.append(Finding("manifest", path.name, f"column {brief(name)} is not read"))
    if problems:
        expected = ", ".join(name if needed else f"[{name}]" for name, needed in COLUMNS.items())
        raise DataError(f"{path} is not a manifest of videos; expected the columns {expected}:", problems)


def _check_crops(layout: Layout, rows: Mapping[str, str]) -> None:
    """All videos have as many visual files; what most have is taken as right."""
    counts = Counter(len(video.visual) for video in layout.videos)
    layout.crops = max(counts, key=lambda number: (counts[number], number)) if counts else 0
    layout.faults += [
        Finding(
            "manifest",
            f"{rows[video.name]} visual",
            f"names {plural(len(video.visual), 'file')}, {counts[layout.crops]} other videos have {layout.crops}",
        )
        for video in layout.videos
        if len(video.visual) != layout.crops
    ]
    if layout.unused:
        reason = f"intervals of {plural(layout.unused, 'training video')} are not used: training needs no frame labels"
        layout.notes.append(Finding("manifest", str(layout.manifest and layout.manifest.name), reason))


def _read_csv(path: Path, layout: Layout) -> tuple[list[tuple[str, _Row]], list[str]]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path} has more than {_MOST_BYTES // 2**20} MiB: it is no manifest of videos")
        reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None
    rows: list[tuple[str, _Row]] = []
    columns: list[str] = []
    try:
        for cells in reader:
            if not any(cells):
                continue
            if not columns:
                columns = [cell.strip() for cell in cells]
                continue
            where = f"{path.name} line {reader.line_num}"
            if len(rows) == _MOST_ROWS:
                raise DataError(f"{path} has more than {_MOST_ROWS:,} rows: it is no manifest of videos")
            if len(cells) != len(columns):
                reason = f"has {plural(len(cells), 'field')}, the first line {len(columns)}"
                layout.faults.append(Finding("manifest", where, reason))
            elif long := [n for n, cell in zip(columns, cells, strict=True) if len(cell) > _MOST_CHARACTERS]:
                reason = f"has more than {_MOST_CHARACTERS:,} characters"
                layout.faults.append(Finding("manifest", f"{where} {brief(long[0])}", reason))
            else:
                rows.append((where, dict(zip(columns, cells, strict=True))))
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num} is not CSV: {error}") from None
    return rows, columns


def _read_parquet(path: Path) -> tuple[list[tuple[str, _Row]], list[str]]:
    try:
        file = pa.parquet.ParquetFile(require_file(path))
        groups = [file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)]
        if (
            file.metadata.num_rows > _MOST_ROWS
            or sum(groups) > 4 * _MOST_BYTES
            or path.stat().st_size > _MOST_BYTES
        ):
            raise DataError(
                f"{path} has more than {_MOST_ROWS:,} rows, or is larger than a manifest of videos"
            )
        columns = list(file.schema_arrow.names)
        known = [name for name in COLUMNS if columns.count(name) == 1]
        content = file.read(columns=known).to_pylist()
    except (OSError, ValueError, TypeError, KeyError, IndexError, OverflowError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None
    rows: list[tuple[str, _Row]] = []
    for number, row in enumerate(content, start=1):
        cells = {name: _cell(value) for name, value in row.items()}
        for name, cell in cells.items():
            if sum(map(len, cell)) > _MOST_CHARACTERS:
                raise DataError(f"{path} row {number} {name} has more than {_MOST_CHARACTERS:,} characters")
        rows.append((f"{path.name} row {number}", cells))
    return rows, columns


def _cell(value: Any) -> _Cell:
    """A value of a table as a CSV file has it, a list as a list of these."""
    if value is None:
        return ""
    if isinstance(value, list):
        return [str(_cell(each)) for each in value]
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path} does not exist; expected a manifest of videos")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
    return DataError(f"{path} is no table that can be read: {reason[:300] or type(error).__name__}")
