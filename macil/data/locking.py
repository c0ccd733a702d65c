"""One process at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from macil.errors import UsageError
from macil.files import refusal
from macil.text import printable


class Held(NamedTuple):
    """How a lock was found."""

    cut_short: bool
    """The process that held it last was killed: it left the file."""
    waited: bool
    """Another process held it; what was read before may have changed."""


@contextlib.contextmanager
def exclusive(path: Path, what: str, *, wait: bool = True) -> Iterator[Held]:
    """Hold the lock file `path`, which is removed at the end; the system frees the lock of a killed process.

    Args:
        path: Its folder must exist.
        what: What is done under the lock, in the -ing form, for whoever has to wait.
        wait: Wait for another process, and say so on stderr; else refuse.

    Raises:
        WriteError: The folder cannot be written.
        UsageError: Another process holds the lock, and `wait` is off.
    """
    descriptor, waited = _open_locked(path, what, wait)
    try:
        held = Held(os.fstat(descriptor).st_size > 0, waited)
        with contextlib.suppress(OSError):  # on a full disk the mark is missing, the lock is not
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield held
    finally:
        # While the lock is held: afterwards it could be another process's file.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _open_locked(path: Path, what: str, wait: bool) -> tuple[int, bool]:
    waited = False
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise refusal(path, error) from None
        try:
            if not _lock(descriptor, blocking=False):
                if not wait:
                    raise UsageError(f"another process is {what}; wait for it, or stop it first")
                if not waited:
                    print(
                        printable(f"another process is {what}; waiting for it"), file=sys.stderr, flush=True
                    )
                    waited = True
                _lock(descriptor, blocking=True)
            # Who held the lock may have removed the file meanwhile: a lock on that one keeps nobody out.
            if os.fstat(descriptor).st_nlink:
                return descriptor, waited
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, *, blocking: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        # Some network file systems have no locks; there, one process at a time is the user's to see to.
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return True
