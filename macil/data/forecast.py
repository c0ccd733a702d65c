"""What converting a data set will cost, from a rehearsal on a small sample of its files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from macil.data.arrays import ArrayHeader

_SAMPLE_FILES = 64
_SAMPLE_BYTES = 64 * 1024**2


@dataclass(frozen=True)
class Forecast:
    """Bytes of the store by dtype, and the seconds that converting to float32 takes at the speed of the rehearsal."""

    store_bytes: dict[str, int]
    seconds: float
    sample_bytes: int


def choose_sample(headers: Mapping[Path, ArrayHeader]) -> list[Path]:
    """Choose files spread evenly over the data, together not much larger than 64 MB."""
    paths = list(headers)
    chosen: list[Path] = []
    size = 0
    for index in np.unique(np.linspace(0, len(paths) - 1, min(_SAMPLE_FILES, len(paths))).astype(int)):
        if size < _SAMPLE_BYTES:
            chosen.append(paths[index])
            size += headers[paths[index]].nbytes
    return chosen


def rehearse(
    sample: list[Path], headers: Mapping[Path, ArrayHeader], read: Callable[[Path], np.ndarray | None]
) -> Forecast:
    """Do with a sample what converting does: read and check, hash, write, and wait until it is on the disk.

    The disk is that of the system's temporary files; the one converted to may be another.

    Args:
        sample: Files to read.
        headers: The headers of all files.
        read: Loads a file; None for one with a fault.
    """
    started = time.perf_counter()
    digest = hashlib.blake2b(digest_size=16)
    size = 0
    with contextlib.ExitStack() as stack:
        file = None
        # Without room for the sample the forecast is too low, which is no reason to fail.
        with contextlib.suppress(OSError):
            file = stack.enter_context(tempfile.TemporaryFile())
        for path in sample:
            values = read(path)
            if values is None:
                continue
            size += headers[path].nbytes
            digest.update(values.data)
            if file is not None:
                with contextlib.suppress(OSError):
                    file.write(values.data)
        if file is not None:
            with contextlib.suppress(OSError):
                file.flush()
                os.fsync(file.fileno())
    seconds = time.perf_counter() - started
    total = sum(header.nbytes for header in headers.values())
    values_in_all = sum(header.rows * header.width for header in headers.values())
    return Forecast(
        store_bytes={"float32": 4 * values_in_all, "float16": 2 * values_in_all},
        seconds=seconds * total / size if size else 0.0,
        sample_bytes=size,
    )
