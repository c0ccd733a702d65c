"""Opening files that somebody else wrote: only regular ones, since a pipe or a device may be waited for without end.

Their text is UTF-8, with a byte order mark or without.
"""

from __future__ import annotations

import codecs
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


class EncodingError(UnicodeDecodeError):
    """A file is not UTF-8; its text says where, what it may be and what to do."""

    def __str__(self) -> str:
        content = bytes(self.object)
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
            return "it is UTF-16, or no text; save it as UTF-8"
        line = content.count(b"\n", 0, self.start) + 1
        return (
            f"line {line} is not UTF-8 (byte 0x{content[self.start]:02x}), perhaps Latin-1; save it as UTF-8"
        )


def read_text(path: str | os.PathLike[str], errors: str = "strict") -> str:
    """The text of a regular file, without the byte order mark that Windows' editors put first.

    Args:
        path: The file.
        errors: What becomes of bytes that are not UTF-8, as for `bytes.decode`.

    Raises:
        OSError: As `open_file`.
        EncodingError: It is not UTF-8, or holds null bytes; unless `errors` says otherwise.
    """
    with open_file(path) as file:
        content = file.read().removeprefix(codecs.BOM_UTF8)
    try:
        # UTF-16 without a mark is UTF-8 with a null byte beside every letter.
        null = content.find(0) if errors == "strict" else -1
        if null >= 0:
            raise UnicodeDecodeError("utf-8", content, null, null + 1, "null byte")
        return content.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise EncodingError(*error.args) from None


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
