"""`.npy` feature arrays: their header without their data, and their values checked."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from macil.io.reading import open_file

# Bytes of an audio file that are looked at first, which nearly always tells that it is not silent, and then at a time.
_FIRST_LOOK, _BLOCK = 4096, 1024**2


class ArrayError(Exception):
    """A feature file cannot be used; the text is the reason, without the file's name."""

    def __init__(self, kind: str, reason: str) -> None:
        self.kind = kind
        super().__init__(reason)


@dataclass(frozen=True)
class ArrayHeader:
    """The header of a two-dimensional `.npy` file: `rows` snippets of `width` features."""

    rows: int
    width: int
    dtype: str
    nbytes: int


def read_header(path: Path) -> ArrayHeader:
    """Read the header of a feature file and compare it with the file's size; no value is read.

    Raises:
        ArrayError: Kind `unreadable`, `truncated`, `shape`, `dtype` or `empty`, with the reason.
    """
    (rows, width), dtype = read_shape(path)
    return ArrayHeader(rows=rows, width=width, dtype=dtype.name, nbytes=rows * width * dtype.itemsize)


def read_shape(path: Path, dimensions: Collection[int] = (2,)) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of a feature file that has one of so many `dimensions`; otherwise as `read_header`."""
    header = _read_header(path)
    if header.dtype.kind != "f":
        raise ArrayError("dtype", f"holds {header.dtype}, expected floating-point features (float32)")
    if len(header.shape) not in dimensions:
        wanted = "(snippets, features)" + (" or (crops, snippets, features)" if 3 in dimensions else "")
        raise ArrayError("shape", f"has shape {header.shape}, expected {wanted}")
    if 0 in header.shape:
        raise ArrayError("empty", f"is empty: shape {header.shape}")
    _check_size(header)
    return header.shape, header.dtype


def load_array(path: Path) -> np.ndarray:
    """Load any array of plain numbers, of the size that its header promises.

    Raises:
        ArrayError: Kind `unreadable`, `truncated` or `shape`, with the reason.
    """
    header = _read_header(path)
    if header.dtype.hasobject:
        raise ArrayError("unreadable", f"holds {header.dtype}, which is never loaded; expected plain numbers")
    # Before anything is allocated: the header of a small file may promise more than there is memory.
    _check_size(header)
    try:
        array: np.ndarray = np.load(path, allow_pickle=False)
    except Exception as error:  # a damaged file raises anything
        reason = error.strerror if isinstance(error, OSError) else None
        raise ArrayError("unreadable", f"cannot be read: {reason or _first_line(error)}") from None
    return array


class _Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int
    """Bytes before the values."""
    size: int
    """Bytes of the file."""


def _read_header(path: Path) -> _Header:
    try:
        with open_file(path) as file:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            elif version == (2, 0):
                shape, _, dtype = np.lib.format.read_array_header_2_0(file)
            else:
                raise ArrayError("unreadable", f".npy format {version[0]}.{version[1]} is not supported")
            return _Header(shape, dtype, file.tell(), os.fstat(file.fileno()).st_size)
    except ArrayError:
        raise
    except OSError as error:
        raise ArrayError("unreadable", f"cannot be read: {error.strerror or error}") from None
    except Exception as error:  # NumPy evaluates the header as a Python literal: damaged, it raises anything
        raise ArrayError("unreadable", f"is not a .npy file: {_first_line(error)}") from None


def _check_size(header: _Header) -> None:
    shape, dtype, start, size = header
    expected = start + math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0:
        raise ArrayError("shape", f"has shape {shape}, which no array has")
    if size < expected:
        raise ArrayError("truncated", f"is truncated: {size} of {expected} bytes for shape {shape} {dtype}")
    if size > expected:
        raise ArrayError("truncated", f"has {size - expected} bytes more than shape {shape} {dtype} needs")


def load_features(path: Path) -> np.ndarray:
    """Load one feature file as C-ordered float32 `(rows, width)`, every value checked.

    Raises:
        ArrayError: Kind `unreadable`, `not-finite` or `overflow` (a float64 value beyond float32).
    """
    array = load_array(path)
    _require_finite(array)
    return cast_features(array, "float32")


def nonzero_rows(features: np.ndarray) -> np.ndarray:
    """Which rows of visual features (rows, width) are not all zero, bool (rows,); the others count as padding.

    Raises:
        ArrayError: Kind `all-zero`: none.
    """
    found = np.any(features, axis=1)
    if not found.any():
        raise ArrayError("all-zero", f"holds nothing but zeros, shape {features.shape}")
    return found


def is_silent(path: Path) -> bool:
    """Whether an audio file, whose header has no fault, holds nothing but zeros; reads no further than it has to.

    Raises:
        ArrayError: Kind `unreadable`.
    """
    header = _read_header(path)
    size, width = _FIRST_LOOK, header.dtype.itemsize
    try:
        with open_file(path) as file:
            file.seek(header.start)
            while block := file.read(size):
                # Whole values: a file that was cut short just now is another check's matter.
                if np.frombuffer(block[: len(block) // width * width], header.dtype).any():
                    return False
                size = _BLOCK
    except OSError as error:
        raise ArrayError("unreadable", f"cannot be read: {error.strerror or error}") from None
    return True


def cast_features(array: np.ndarray, dtype: str) -> np.ndarray:
    """Convert finite features to `dtype` (native byte order, C order).

    Raises:
        ArrayError: Kind `overflow`: a value does not fit; it would have become infinite.
    """
    if array.dtype == np.dtype(dtype) and array.dtype.isnative:
        return np.ascontiguousarray(array)
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype=dtype)
    if not _all_finite(converted):
        row, column = np.argwhere(~np.isfinite(converted))[0]
        raise ArrayError(
            "overflow",
            f"holds {array[row, column]:g} at row {row}, column {column}, beyond the largest {dtype}"
            f" ({np.finfo(dtype).max:g}); convert with a wider --dtype",
        )
    return converted


def _require_finite(array: np.ndarray) -> None:
    if not _all_finite(array):
        bad = ~np.isfinite(array)
        row, column = np.argwhere(bad)[0]
        raise ArrayError(
            "not-finite",
            f"holds {np.count_nonzero(bad)} NaN or infinite values, the first at row {row}, column {column}",
        )


def _all_finite(array: np.ndarray) -> bool:
    # A finite sum of a few thousand rows proves that all are finite, in a third of the time of isfinite
    # and with no mask; only an overflowing sum of finite values needs the second look.
    with np.errstate(over="ignore", invalid="ignore"):
        total = array.sum(dtype=np.float64)
    return bool(np.isfinite(total)) or bool(np.isfinite(array).all())


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
