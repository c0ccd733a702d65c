"""Test scores as trials keep them, arrays in a scores.npz: read so that no file can ask for more than itself."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from macil.errors import DataError
from macil.io.reading import open_file
from macil.io.text import printable


def read_scores(path: Path, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
    """The arrays (S,) of a scores.npz whose names are `wanted`, by name.

    Raises:
        DataError: The file is damaged, or holds anything but floating-point numbers there; the text is the reason.
    """
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            return {name: _read(archive, members[name]) for name in sorted(members) if wanted(name)}
    except DataError:
        raise
    except Exception as error:  # a damaged archive raises anything
        raise DataError(" ".join(str(error).split())[:300] or type(error).__name__) from None


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    name = printable(member.filename)[:100]
    # np.savez compresses nothing; a compressed member may be a thousand times as large as its file.
    if member.compress_type != zipfile.ZIP_STORED:
        raise DataError(f"{name} is compressed, which no trial's scores are")
    content = io.BytesIO(archive.read(member))
    version = np.lib.format.read_magic(content)
    if version != (1, 0):
        raise DataError(f"{name} has .npy format {version[0]}.{version[1]}, expected 1.0")
    shape, _, dtype = np.lib.format.read_array_header_1_0(content)
    values = content.getbuffer()[content.tell() :]
    if dtype.kind != "f" or len(shape) != 1 or min(shape) < 0:
        raise DataError(f"{name} holds {dtype} of shape {shape}, expected one number a snippet")
    if math.prod(shape) * dtype.itemsize != len(values):
        raise DataError(f"{name} has {len(values)} bytes for shape {shape} {dtype}")
    return np.frombuffer(values, dtype).astype(dtype.newbyteorder("="))
