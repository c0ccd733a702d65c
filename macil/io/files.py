"""Files that are either whole or absent."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from macil.errors import DataError, WriteError
from macil.io.reading import parse_json, read_text

TEMPORARY = ".tmp"


_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your share of the disk is used up (quota)",
    errno.EFBIG: "the file is larger than this file system or your limits allow",
}
# What a disk says of itself; any other error in the middle of a write is of what is being written.
_OF_THE_DISK = (
    *_FULL,
    errno.EIO,
    errno.EROFS,
    # Of a file system at the other end of a network.
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ENOTCONN,
    errno.EHOSTDOWN,
)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on failure it is removed.

    Raises:
        WriteError: The folder cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{TEMPORARY}")
    try:
        with _explaining(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
        try:
            yield temporary
        except OSError as error:
            if error.errno in _OF_THE_DISK:
                raise refusal(path, error) from None
            raise
        with _explaining(path):
            # A file system may report only here that the data did not get to the disk.
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def refusal(path: str | os.PathLike[str], error: OSError) -> WriteError:
    """Say why the system does not let `path` be written, and what to do."""
    if error.errno in _FULL:
        return WriteError(path, f"{_FULL[error.errno]}; free some space and run again")
    reason = error.strerror or str(error)
    return WriteError(
        path, reason if error.errno == errno.EIO else f"{reason}; choose a folder you may write to"
    )


def is_full(error: OSError) -> bool:
    """Whether there was no room for what was to be written."""
    return error.errno in _FULL


def remove_temporaries(folder: Path) -> None:
    """Remove what killed processes left half-written in `folder`; no other process may be writing there."""
    for path in folder.glob(f".*{TEMPORARY}"):
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def _explaining(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise refusal(path, error) from None


def write_text_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Replace `path` by `text` in one step (UTF-8); bytes of a name that are none are written as escapes."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json_atomic(path: str | os.PathLike[str], content: Any) -> None:
    """Replace `path` by `content` as indented JSON; NaN and infinities are refused."""
    write_text_atomic(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        DataError: It is absent, unreadable or not JSON.
    """
    try:
        return parse_json(read_text(path))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}); it may have been cut short") from None
