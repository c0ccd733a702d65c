"""`.npy` feature arrays: their header without their data, and their values checked."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


class ArrayError(Exception):
    """A feature file cannot be used; the text is the reason, without the file's name."""

    def __init__(self, kind: str, reason: str) -> None:
        self.kind = kind
        super().__init__(reason)


@dataclass(frozen=True)
class ArrayHeader:
    """What the header of a two-dimensional `.npy` file promises: `rows` snippets of `width` features."""

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
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            elif version == (2, 0):
                shape, _, dtype = np.lib.format.read_array_header_2_0(file)
            else:
                raise ArrayError("unreadable", f".npy format {version[0]}.{version[1]} is not supported")
            start = file.tell()
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise ArrayError("unreadable", f"cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, SyntaxError) as error:
        raise ArrayError("unreadable", f"is not a .npy file: {_first_line(error)}") from None

    if dtype.kind != "f":
        raise ArrayError("dtype", f"holds {dtype}, expected floating-point features (float32)")
    if len(shape) not in dimensions:
        wanted = "(snippets, features)" + (" or (crops, snippets, features)" if 3 in dimensions else "")
        raise ArrayError("shape", f"has shape {shape}, expected {wanted}")
    if 0 in shape:
        raise ArrayError("empty", f"is empty: shape {shape}")
    expected = start + math.prod(shape) * dtype.itemsize
    if size < expected:
        raise ArrayError("truncated", f"is truncated: {size} of {expected} bytes for shape {shape} {dtype}")
    if size > expected:
        raise ArrayError("truncated", f"has {size - expected} bytes more than shape {shape} {dtype} needs")
    return shape, dtype


def load_features(path: Path) -> np.ndarray:
    """Load one feature file as C-ordered float32 `(rows, width)`, every value checked.

    Raises:
        ArrayError: Kind `unreadable`, `not-finite`, `all-zero` or `overflow` (a float64 value beyond float32).
    """
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise ArrayError("unreadable", f"cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError) as error:
        raise ArrayError("unreadable", f"cannot be read: {_first_line(error)}") from None
    _check_values(array)
    return cast_features(array, "float32")


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


def _check_values(array: np.ndarray) -> None:
    if not _all_finite(array):
        bad = ~np.isfinite(array)
        row, column = np.argwhere(bad)[0]
        raise ArrayError(
            "not-finite",
            f"holds {np.count_nonzero(bad)} NaN or infinite values, the first at row {row}, column {column}",
        )
    if not array.any():
        raise ArrayError("all-zero", f"holds nothing but zeros, shape {array.shape}")


def _all_finite(array: np.ndarray) -> bool:
    # A finite sum of a few thousand rows proves that all are finite, in a third of the time of isfinite
    # and with no mask; only an overflowing sum of finite values needs the second look.
    with np.errstate(over="ignore", invalid="ignore"):
        total = array.sum(dtype=np.float64)
    return bool(np.isfinite(total)) or bool(np.isfinite(array).all())


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
