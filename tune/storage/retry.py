"""Storage that is full or gone for a while: wait for it, log that, and give up with the reason.

A search runs for days, and a disk that fills up in the night is cleared in the morning. Whatever writes into the run
folder waits for that instead of losing what was computed; nothing is written by halves meanwhile.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from macil.errors import MacilError

_T = TypeVar("_T")

# Seconds to wait for storage before the run stops (to be resumed); another number by this variable.
RETRY_VARIABLE = "MACIL_STORAGE_PATIENCE"
_RETRY_SECONDS = 600.0
_PAUSE = 1.0
# Seconds between two messages while it waits.
REMIND = 60.0
_TROUBLES = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EROFS,
        errno.ENXIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ENOTCONN,
        errno.EREMOTEIO,  # macil.io.remote
    }
)


class StorageError(MacilError):
    """The run's storage stayed full or out of reach; what was written before is whole, and the run can be resumed."""


def trouble(error: BaseException) -> OSError | None:
    """The refusal of the storage behind an error; None when the error is of another kind."""
    for each in _chain(error):
        if isinstance(each, OSError) and each.errno in _TROUBLES:
            return each
    return None


def with_retry(
    write: Callable[[], _T],
    where: str | os.PathLike[str],
    *,
    log: Callable[[str], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> _T:
    """Call `write` until the storage takes it.

    Args:
        write: Leaves nothing behind, or what was there before, when it fails.
        where: What is being written, for the message.
        log: Called with each message about the waiting; stderr if None.
        stop: Asked while waiting; true gives up at once.

    Raises:
        StorageError: It waited for the seconds of `MACIL_STORAGE_PATIENCE` (600), or was asked to stop.
    """
    log = log or _to_stderr
    began = last_logged = None
    while True:
        try:
            result = write()
        except Exception as error:
            refusal = trouble(error)
            if refusal is None:
                raise
            now = time.monotonic()
            began = now if began is None else began
            reason = f"cannot write {where}: {refusal.strerror or os.strerror(refusal.errno or errno.EIO)}"
            if stop() or now - began >= _limit():
                raise StorageError(
                    f"{reason}, for {now - began:.0f} s; make room or reconnect the storage, then go on with --resume"
                ) from error
            if last_logged is None or now - last_logged >= REMIND:
                last_logged = now
                log(f"{reason}; waiting for the storage")
            time.sleep(_PAUSE)
        else:
            if began is not None:
                log(f"the storage takes {where} again, after {time.monotonic() - began:.0f} s")
            return result


def append_whole(path: Path, text: str) -> None:
    """Append `text` to a file, all of it or nothing.

    Raises:
        OSError: The storage refused; the file is as long as it was.
    """
    data = text.encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        before = os.fstat(descriptor).st_size
        try:
            written = os.write(descriptor, data)
            if written < len(data):  # the last bytes of a disk: the rest would be refused
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)


def _limit() -> float:
    try:
        return float(os.environ[RETRY_VARIABLE])
    except (KeyError, ValueError):
        return _RETRY_SECONDS


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
