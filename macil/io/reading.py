"""Opening files that somebody else wrote: only regular ones, since a pipe or a device may be waited for without end."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file to read its bytes.

    Raises:
        OSError: It is absent, cannot be read, or is a folder, a pipe or a device.
    """
    # Without O_NONBLOCK opening a pipe would wait already.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        _require_regular(os.fstat(descriptor).st_mode, path)
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_text(path: str | os.PathLike[str], encoding: str = "utf-8", errors: str = "strict") -> str:
    """The text of a regular file.

    Raises:
        OSError: As `open_file`.
        UnicodeDecodeError: It is no such text.
    """
    with open_file(path) as file:
        return file.read().decode(encoding, errors)


def parse_json(text: str) -> Any:
    """The value of a JSON text; half a surrogate pair, which no UTF-8 file can hold, becomes a question mark.

    Raises:
        ValueError: It is no JSON.
        RecursionError: It is nested too deeply.
    """
    content = json.loads(text)
    if "\\ud" in text.lower():
        whole = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
        content = json.loads(whole)
    return content


def require_file(path: str | os.PathLike[str]) -> Path:
    """`path`, for a library that opens files itself; errors as `open_file`."""
    _require_regular(os.stat(path).st_mode, path)  # noqa: PTH116 (raises for what is absent, as open does)
    return Path(path)


def _require_regular(mode: int, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
