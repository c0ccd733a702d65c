"""Arrow IPC files of a store: laid out first and filled in place, so that a column is one contiguous buffer.

Arrow's own writer would give one buffer per batch; torch needs one tensor over all rows. The totals are known from the
`.npy` headers, so the file is laid out around zero buffers that are never written (a sparse file), and rows are written
later at their offset with plain writes: a full disk is then an error, where in a mapped file it would be a crash.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from macil.errors import DataError
from macil.io.reading import require_file

FEATURES = "features"
NONZERO = "nonzero"

_BLOCK_BYTES = 8 * 1024**2


@dataclass(frozen=True)
class FeatureFileLayout:
    """Where the buffers of a feature file lie: byte offsets of the values and of the bit mask (None without one)."""

    values: int
    nonzero: int | None


def allocate_feature_file(
    path: Path, rows: int, width: int, dtype: str, *, nonzero: bool
) -> FeatureFileLayout:
    """Create an Arrow file of `rows` zero rows: `features` fixed_size_list<dtype>[width], optionally `nonzero` bool."""
    value_type = pa.from_numpy_dtype(np.dtype(dtype))
    list_type = pa.list_(pa.field("item", value_type, nullable=False), width)
    values = pa.Array.from_buffers(
        value_type, rows * width, [None, _zeros(rows * width * value_type.byte_width)]
    )
    fields = [pa.field(FEATURES, list_type, nullable=False)]
    columns = [pa.FixedSizeListArray.from_arrays(values, type=list_type)]
    if nonzero:
        fields.append(pa.field(NONZERO, pa.bool_(), nullable=False))
        columns.append(pa.Array.from_buffers(pa.bool_(), rows, [None, _zeros((rows + 7) // 8)]))
    schema = pa.schema(fields)
    # More than 2^31 values in one batch is beyond some other Arrow readers, and what one tensor over all rows takes.
    options = pa.ipc.IpcWriteOptions(allow_64bit=True)
    with path.open("wb") as file, pa.ipc.new_file(_SparseSink(file), schema, options=options) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    return locate_buffers(path)


def locate_buffers(path: Path) -> FeatureFileLayout:
    """Return where the buffers of a feature file lie, from the addresses that a mapping gives them."""
    with pa.memory_map(str(path)) as file:
        base = file.read_buffer().address
        file.seek(0)
        batch = pa.ipc.open_file(file).get_batch(0)
        values = batch.column(FEATURES).values.buffers()[1].address - base
        if NONZERO not in batch.schema.names:
            return FeatureFileLayout(values, None)
        return FeatureFileLayout(values, batch.column(NONZERO).buffers()[1].address - base)


def measure_frame(path: Path) -> tuple[int, int]:
    """Bytes before the first and behind the last buffer of a feature file: by these a reader knows how to read it."""
    with pa.memory_map(str(path)) as file:
        batch = pa.ipc.open_file(file).get_batch(0)
        last = batch.column(NONZERO) if NONZERO in batch.schema.names else batch.column(FEATURES).values
        size = last.buffers()[1].size
        layout = locate_buffers(path)
        end = size + (layout.values if layout.nonzero is None else layout.nonzero)
        return layout.values, file.size() - end


def read_blocks(descriptor: int, offset: int, size: int, unit: int = 1) -> Iterator[bytes]:
    """Read `size` bytes of an open file in blocks of bounded memory, each a whole number of units.

    Raises:
        OSError: The disk cannot read them, or the file ends before.
    """
    most = max(unit, _BLOCK_BYTES // unit * unit)
    while size:
        wanted = min(size, most)
        block = os.pread(descriptor, wanted, offset)
        if len(block) < wanted:
            raise OSError(errno.EIO, "the file ends too early")
        yield block
        offset += wanted
        size -= wanted


def map_batch(path: Path) -> pa.RecordBatch:
    """Memory-map the one record batch of an Arrow file; nothing is read but its layout.

    Raises:
        DataError: The file is missing, truncated or no such file.
    """
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(require_file(path))))
        if reader.num_record_batches != 1:
            raise DataError(
                f"{path} holds {reader.num_record_batches} record batches, expected one; convert again"
            )
        batch = reader.get_batch(0)
        # A wrong offset in a table, or a buffer too short for its rows, would be read beyond the file. Of fixed-size
        # lists of numbers and bits, which features are, no value is looked at.
        batch.validate(full=True)
        _ = batch.schema.names  # one that is not UTF-8 is found only when it is asked for
        return batch
    except FileNotFoundError:
        raise DataError(f"{path} is missing; the store is incomplete, convert again") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        first_line = str(error).splitlines()[0]
        raise DataError(f"{path} cannot be read ({first_line}); it is damaged, convert again") from None


def map_table(path: Path, schema: pa.Schema, later: Collection[str] = ()) -> pa.RecordBatch:
    """Memory-map a small table of this schema.

    Args:
        path: The Arrow file.
        schema: Its columns; further ones are ignored.
        later: The columns that a table of an earlier version may lack.

    Raises:
        DataError: As `map_batch`, or a column is missing or of another type; names every such column.
    """
    batch = map_batch(path)
    faults = []
    for column in schema:
        indices = batch.schema.get_all_field_indices(column.name)
        if len(indices) > 1 or not (indices or column.name in later):
            faults.append(f"it has {len(indices)} columns {column.name!r}, expected one")
        elif indices and (found := batch.schema.field(indices[0]).type) != column.type:
            faults.append(f"column {column.name!r} holds {found}, expected {column.type}")
    if faults:
        raise DataError(f"{path} is damaged, convert again:", faults)
    return batch


def write_table(path: Path, table: pa.Table) -> None:
    """Write a small table as an Arrow file of one record batch."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table.combine_chunks())


def _zeros(nbytes: int) -> pa.Buffer:
    # Private and read-only: it is never touched, takes no memory and is not counted by the system.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return pa.py_buffer(mmap.mmap(-1, max(nbytes, 1), flags=flags, prot=mmap.PROT_READ)).slice(0, nbytes)


class _SparseSink:
    """A file for Arrow's writer that skips buffers: they are all zero here, so a hole in the file is the same."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes | pa.Buffer) -> int:
        if isinstance(data, pa.Buffer):
            self._file.seek(data.size, 1)
            return int(data.size)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """The file is closed by its owner."""
