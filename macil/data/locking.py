"""One process at a time."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


@contextlib.contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path`; say on stderr what is waited for. The system frees the lock of a killed process.

    The file is removed on success. That is safe where the protected work leaves something that a waiting process looks
    for first: who held out for the removed file finds the work done.

    Raises:
        OSError: The folder cannot be written.
    """
    # filelock takes a folder that cannot be written for a lock that is held, and would wait for ever.
    path.open("ab").close()
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another process is {what}; waiting for it", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
        path.unlink(missing_ok=True)
    finally:
        lock.release()
