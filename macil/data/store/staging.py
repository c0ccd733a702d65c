"""A store on the disk of this host: one verified copy of it, made once, by whichever process needs it first.

Features are read at random by memory map, for hours, by every training on a host. A bucket has no memory map, and a
network file system serves all hosts at once; so each host copies the store to its own disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from macil.data.store.feature_store import (
    AUDIO,
    INDEX,
    LABELS,
    VISUAL,
    FeatureStore,
    looks_like_store,
)
from macil.data.store.meta import META, StoreMeta
from macil.data.store.verification import verify_store
from macil.errors import DataError, UsageError, WriteError
from macil.io.command_line import command_line
from macil.io.files import is_full, refusal
from macil.io.folders import atomic_folder, remove_unfinished
from macil.io.locks import exclusive
from macil.io.remote import Remote, RemoteError, error_text, is_uri, side_by_side
from macil.io.text import printable

Log = Callable[[str], None]

# "always" or "never"; else a store is copied when it lies on a network file system.
STAGING = "MACIL_STAGING"
# Seconds between two messages about one copy.
_LOG_INTERVAL = 5.0
_CHUNK = 8 * 1024**2
# Room for what else is written meanwhile.
_MARGIN = 64 * 1024**2
_FILES = (META, VISUAL, AUDIO, INDEX, LABELS)
# Types of file systems that are on a disk or in the memory of this host, as /proc/mounts has them.
_OF_THIS_HOST = re.compile(
    r"ext[234]|xfs|btrfs|zfs|overlay|tmpfs|ramfs|f2fs|bcachefs|jfs|apfs|squashfs|erofs"
)


class Source(Protocol):
    """A store elsewhere."""

    def meta(self) -> StoreMeta:
        """Read the store's meta.json.

        Raises:
            DataError: There is none that can be read.
        """

    def sizes(self) -> dict[str, int]:
        """Name -> bytes of its files."""

    def copy(self, name: str, target: Path, advance: Callable[[int], None]) -> None:
        """Copy a file."""


class FolderSource:
    """A store on a file system that this host sees."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def meta(self) -> StoreMeta:
        """See `Source.meta`."""
        return FeatureStore.open(self.path).meta

    def sizes(self) -> dict[str, int]:
        """See `Source.sizes`."""
        return {name: (self.path / name).stat().st_size for name in _FILES if (self.path / name).is_file()}

    def copy(self, name: str, target: Path, advance: Callable[[int], None]) -> None:
        """See `Source.copy`."""
        with (self.path / name).open("rb") as source, target.open("wb") as file:
            while block := source.read(_CHUNK):
                file.write(block)
                advance(len(block))
            file.flush()
            os.fsync(file.fileno())


class RemoteSource:
    """A store in a bucket."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote

    def __str__(self) -> str:
        return self.remote.uri

    def meta(self) -> StoreMeta:
        """See `Source.meta`."""
        try:
            content = json.loads(self.remote.read(META))
        except FileNotFoundError:
            raise DataError(
                f"{self} is not a feature store: it has no {META}; expected the folder that "
                f"`{command_line('macil', 'convert', 'DIR', 'OUT')}` writes, copied there"
            ) from None
        except RemoteError as error:
            raise DataError(f"{self} cannot be read: {error_text(error)}") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self}: {META} is damaged ({error})") from None
        return StoreMeta.parse(content, f"{self}: {META}")

    def sizes(self) -> dict[str, int]:
        """See `Source.sizes`."""
        try:
            return {name: entry.size for name, entry in self.remote.files().items() if name in _FILES}
        except RemoteError as error:
            raise DataError(f"{self} cannot be read: {error_text(error)}") from None

    def copy(self, name: str, target: Path, advance: Callable[[int], None]) -> None:
        """See `Source.copy`."""
        try:
            self.remote.download(name, target, advance)
        except (RemoteError, FileNotFoundError) as error:
            raise DataError(f"{self}: {name} cannot be read: {error_text(error)}") from None


def source_of(location: str | os.PathLike[str]) -> Source:
    """The store at a path or URI."""
    return (
        RemoteSource(Remote(str(location))) if is_uri(location) else FolderSource(Path(location).absolute())
    )


def is_far(path: Path) -> bool:
    """Whether a folder lies on a file system of another host, as far as /proc/mounts shows."""
    wish = os.environ.get(STAGING, "")
    if wish in ("always", "never"):
        return wish == "always"
    best, kind = "", "ext4"
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
            fields = line.split(" ")
            point = fields[1].replace("\\040", " ") if len(fields) > 2 else ""
            inside = os.path.commonpath([point, path.resolve()]) == point if point.startswith("/") else False
            if inside and len(point) >= len(best):
                best, kind = point, fields[2]
    return not _OF_THIS_HOST.fullmatch(kind)


def stage(source: Source, cache: Path, log: Log, hashes: tuple[str, str | None] | None = None) -> Path:
    """The copy of a store on this host, made if it is not there.

    Processes that want it at the same moment make it once: one copies, the others wait and log so. A copy has the name
    of its content, and is checked against it to the last byte before it gets that name.

    Args:
        source: The store.
        cache: Folder of the copies.
        log: Called with a line about progress, every few seconds.
        hashes: The content hash and the labels' hash that it must have; None: those that it has.

    Returns:
        The copy; the store itself where that is possible and this host has no room.

    Raises:
        DataError: It is no store, holds something else, or came out damaged.
        WriteError: The cache cannot be written.
    """
    known = hashes or hashes_of(source)
    target = cache / "staged" / f"{_safe(known[0], source)}-{_safe(known[1] or 'none', source)[:12]}.store"
    if _is_whole(target):
        return target
    found = hashes_of(source)
    if found != known:
        raise DataError(
            f"{source} has the content hash {found[0]} and the labels {found[1]}; the run was begun with {known[0]} "
            f"and {known[1]}"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refusal(target.parent, error) from None
    with _turn(target.with_suffix(".lock"), f"copying {source} to this host", log):
        return target if _is_whole(target) else _make(source, target, log)


def hashes_of(source: Source) -> tuple[str, str | None]:
    """The hashes of a store's content and of its test labels, as its meta.json has them.

    Raises:
        DataError: It is no store, or out of reach.
    """
    meta = source.meta()
    return meta.content_hash, meta.labels_hash


def _safe(name: str, source: Source) -> str:
    if not re.fullmatch(r"[0-9a-z]{4,64}", name):
        raise DataError(f"{source}: {META} has a hash that is none ({name[:80]!r}); it is damaged")
    return name


def _is_whole(target: Path) -> bool:
    if not looks_like_store(target):
        return False
    try:
        FeatureStore.open(target)
    except DataError:
        return False
    return True


@contextlib.contextmanager
def _turn(lock: Path, what: str, log: Log) -> Iterator[None]:
    """Hold the lock; while another process holds it, log that this one waits."""
    last_logged = 0.0
    while True:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(exclusive(lock, what, wait=False))
            except WriteError:
                raise
            except UsageError:
                if time.monotonic() - last_logged > 6 * _LOG_INTERVAL:
                    last_logged = time.monotonic()
                    log(f"another trial is {what}; waiting for it")
                time.sleep(0.2)
                continue
            yield
            return


def _make(source: Source, target: Path, log: Log) -> Path:
    sizes = source.sizes()
    need = sum(sizes.values())
    remove_unfinished(target)
    shutil.rmtree(target, ignore_errors=True)
    free = shutil.disk_usage(target.parent).free
    if free < need + _MARGIN:
        return _in_place(source, target, f"{need / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free", log)
    log(f"copying {source} to this host's disk ({need / 1e9:.2f} GB, {target.parent})")
    began = time.monotonic()
    advance = _progress(need, log)
    try:
        with atomic_folder(target) as folder:
            # meta.json last: a folder is a store by it.
            names = sorted(sizes, key=lambda name: name == META)
            side_by_side(lambda name: source.copy(name, folder / name, advance), names[:-1])
            source.copy(names[-1], folder / names[-1], advance)
            if problems := verify_store(folder):
                raise DataError(f"the copy of {source} on this host is not what was converted:", problems)
    except OSError as error:
        if is_full(error):
            return _in_place(source, target, "its disk is full", log)
        raise
    seconds = time.monotonic() - began
    log(f"copied and checked {need / 1e9:.2f} GB in {seconds:.1f} s")
    return target


def _in_place(source: Source, target: Path, why: str, log: Log) -> Path:
    if not isinstance(source, FolderSource):
        raise DataError(
            f"there is no room for {source} on this host: {why} at {target.parent}; make room, or set MACIL_CACHE to a "
            "folder on a larger disk"
        )
    log(
        printable(
            f"no room for a copy of {source} on this host: {why} at {target.parent}; it is read in place"
        )
    )
    return source.path


def _progress(total: int, log: Log) -> Callable[[int], None]:
    lock = threading.Lock()
    done, last_logged = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, last_logged
        with lock:
            done += count
            if time.monotonic() - last_logged > _LOG_INTERVAL:
                last_logged = time.monotonic()
                log(f"copied {done / 1e9:.2f} of {total / 1e9:.2f} GB ({done / max(1, total):.0%})")

    return advance
