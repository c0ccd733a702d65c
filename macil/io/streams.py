"""Standard output and error that outlast their reader: `… | head -1`, or a terminal that is closed."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

# For encodings that lack them; any other character is a visible escape.
_SPELLED = {"Λ": "Lambda", "λ": "lambda", "τ": "tau", "ρ": "rho", "…": "...", "–": "-", "—": "-", "−": "-"}
_SPELLED |= {"×": "x", "“": '"', "”": '"'}
_SPELL = "macil.spell"
# Nobody reads a pipe or a socket any more.
_UNREAD = (errno.EPIPE, errno.ECONNRESET)


@contextlib.contextmanager
def lasting_streams() -> Iterator[None]:
    """Within the block nothing that is printed fails for want of a reader, or of a character in its encoding."""
    before = sys.stdout, sys.stderr
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            # Closed from the start: a file that is opened later would get its number, and what is printed into it.
            _discard(descriptor)
            setattr(sys, name, io.TextIOWrapper(io.FileIO(os.devnull, "w"), encoding="utf-8"))
        elif stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            stream.flush()
            lasting = io.TextIOWrapper(
                io.BufferedWriter(_Lasting(stream.fileno())),
                encoding=stream.encoding,
                errors=_SPELL,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, lasting)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_SPELL)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # told before, where it can be
                stream.flush()
        sys.stdout, sys.stderr = before


class _Lasting(io.FileIO):
    """A descriptor; what is written after its reader has gone is dropped."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        # A terminal that was closed refuses with another error, and is none any more then.
        self._gone = (*_UNREAD, errno.EIO) if self.isatty() else _UNREAD

    def write(self, content: Any) -> int:
        """Write, see `io.RawIOBase.write`."""
        try:
            return super().write(content)
        except OSError as error:
            if error.errno not in self._gone:
                raise
            _discard(self.fileno())
            return len(content)


def _discard(descriptor: int) -> None:
    """Let the descriptor lead nowhere; children inherit that."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def _spell(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_SPELLED.get(each) or _escape(each) for each in text), error.end


def _escape(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode()


codecs.register_error(_SPELL, _spell)
