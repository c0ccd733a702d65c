"""One process at a time."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from macil.errors import UsageError
from macil.io.files import refusal
from macil.io.text import printable

# Of a file system without locks, some network ones: there, one process at a time is the user's to see to.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP)


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
        what: What is done under the lock, in the -ing form, for the message of a process that waits.
        wait: Wait for another process, with a message on stderr; else refuse.

    Raises:
        WriteError: The folder cannot be written.
        UsageError: Another process holds the lock, and `wait` is off.
    """
    lock = _lock(path)
    waited = not _acquire(lock, blocking=False)
    if waited:
        if not wait:
            raise UsageError(f"another process is {what}; wait for it, or stop it first")
        print(printable(f"another process is {what}; waiting for it"), file=sys.stderr, flush=True)
        _acquire(lock, blocking=True)
    try:
        held = Held(bool(_holder(path)), waited)
        _sign(path)
        yield held
    finally:
        # While the lock is held: afterwards it could be another process's file.
        path.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def in_use(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path`, which stays and says who holds it, or was the last to do so.

    Args:
        path: Its folder must exist.
        what: What is in use then, for the message of a process that is refused.

    Raises:
        WriteError: The folder cannot be written.
        UsageError: Another process holds the lock.
    """
    lock = _lock(path)
    if not _acquire(lock, blocking=False):
        holder = _holder(path) or "another process"
        raise UsageError(f"{what} is in use by {holder}; wait for it or stop it first")
    try:
        _sign(path)
        yield
    finally:
        lock.release()


def _lock(path: Path) -> FileLock:
    try:
        path.touch()  # raises for a folder that cannot be written; filelock may take that for another process
    except OSError as error:
        raise refusal(path, error) from None
    # A lock by the mere existence of a file would outlive a process that is killed.
    return FileLock(path, fallback_to_soft=False)


def _acquire(lock: FileLock, *, blocking: bool) -> bool:
    """Whether the lock is held now; where the file system has none, it counts as held."""
    try:
        lock.acquire(blocking=blocking)
    except Timeout:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise refusal(lock.lock_file, error) from None
    return True


def _holder(path: Path) -> str:
    """The process that signed a lock file; "" for an unsigned one."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""


def _sign(path: Path) -> None:
    with contextlib.suppress(OSError):  # on a full disk the name is missing, the lock is not
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
