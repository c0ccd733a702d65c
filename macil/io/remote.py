"""Files in a bucket, or on another file system that pyarrow opens by URI: whole objects, put and read by name.

Every error of such a file system is raised as a `RemoteError` with its message, so that a writer can wait for it; a
missing object is a `FileNotFoundError`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote_to_bytes, urlsplit, urlunsplit

from pyarrow import fs

from macil.errors import UsageError
from macil.io.files import atomic_path

_T = TypeVar("_T")

# Requests at a time: their latency is what takes the time, and one connection does not fill a network.
_AT_ONCE = 16
_CHUNK = 8 * 1024**2
# A bucket gives the time of a change in whole seconds; twice that, in nanoseconds, for clocks that differ.
_TICK = 2 * 10**9
# Small objects in one request instead of three.
_OPTIONS = {"s3": "allow_delayed_open=true"}
_SCHEME = re.compile("([A-Za-z][A-Za-z0-9+.-]*)://")
_FILE_URI = re.compile("(?i:file):(?://([^/]*)(/.*)?|(/(?!/).*))", re.DOTALL)
_REQUEST = re.compile(r"\s*\(Request ID: [^)]*\)")


class RemoteError(OSError):
    """A remote file system refused, or did not answer."""


@dataclass(frozen=True)
class Entry:
    """Size in bytes and time of last change, in nanoseconds since 1970, of a remote file."""

    size: int
    changed: int

    def is_copied_to(self, local: Path) -> bool:
        """Whether a local file is a copy of this one, as it was marked."""
        try:
            stat = local.stat()
        except FileNotFoundError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == (self.size, self.changed)

    def mark(self, local: Path) -> None:
        """Give a local copy the time of this file, unless this file may change once more within that time."""
        settled = time.time_ns() - self.changed > _TICK
        os.utime(local, ns=(self.changed - (not settled),) * 2)


@dataclass(frozen=True)
class Remote:
    """A folder of remote files.

    Attributes:
        uri: Its URI, e.g. `s3://bucket/runs`; a query says how to reach it (see pyarrow's `FileSystem.from_uri`).
    """

    uri: str

    def __str__(self) -> str:
        return self.uri

    @property
    def name(self) -> str:
        """The last part of its path."""
        return urlsplit(self.uri).path.rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> Remote:
        """The folder that holds it."""
        parts = urlsplit(self.uri)
        return Remote(urlunsplit(parts._replace(path=parts.path.rstrip("/").rpartition("/")[0])))

    def child(self, *names: str) -> Remote:
        """A folder in it."""
        parts = urlsplit(self.uri)
        return Remote(urlunsplit(parts._replace(path="/".join([parts.path.rstrip("/"), *names]))))

    def files(self) -> dict[str, Entry]:
        """Name relative to this folder -> entry of every file below it; empty if there is none.

        Raises:
            RemoteError: Also for a name that would lead out of the folder: in a bucket a name may be any text.
        """
        filesystem, root = _open(self.uri)
        with _remote_errors():
            infos = filesystem.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
        found = {}
        for info in infos:
            if info.type == fs.FileType.File:
                name = info.path[len(root) + 1 :]
                if not all(part and part not in (".", "..") for part in name.split("/")):
                    raise RemoteError(
                        errno.EREMOTEIO, f"{info.path}: a name that leads outside of its folder"
                    )
                found[name] = Entry(info.size, info.mtime_ns or 0)
        return found

    def folders_with(self, name: str) -> dict[str, Entry]:
        """Folder directly in this one -> the entry of its file `name`, of those that have it."""
        filesystem, root = _open(self.uri)
        with _remote_errors():
            infos = filesystem.get_file_info(fs.FileSelector(root, allow_not_found=True))
            folders = [info.base_name for info in infos if info.type == fs.FileType.Directory]
            files = filesystem.get_file_info([f"{root}/{folder}/{name}" for folder in folders])
        return {
            folder: Entry(info.size, info.mtime_ns or 0)
            for folder, info in zip(folders, files, strict=True)
            if info.type == fs.FileType.File
        }

    def exists(self, name: str) -> bool:
        """Whether a file of that name is there."""
        filesystem, root = _open(self.uri)
        with _remote_errors():
            return filesystem.get_file_info(f"{root}/{name}").type == fs.FileType.File

    def read(self, name: str) -> bytes:
        """A small file's content.

        Raises:
            FileNotFoundError: It is not there.
        """
        filesystem, root = _open(self.uri)
        with _remote_errors(), filesystem.open_input_stream(f"{root}/{name}") as stream:
            return stream.read()

    def write(self, name: str, content: bytes) -> None:
        """Put a file, all of it or nothing."""
        filesystem, root = _open(self.uri)
        with _remote_errors():
            self._make_folder(filesystem, f"{root}/{name}")
            with filesystem.open_output_stream(f"{root}/{name}") as stream:
                stream.write(content)

    def upload(self, local: Path, name: str) -> None:
        """Put a local file, all of it or nothing."""
        filesystem, root = _open(self.uri)
        with local.open("rb") as source, _remote_errors():
            self._make_folder(filesystem, f"{root}/{name}")
            with filesystem.open_output_stream(f"{root}/{name}") as stream:
                while block := source.read(_CHUNK):
                    stream.write(block)

    def download(self, name: str, local: Path, advance: Callable[[int], None] = lambda _: None) -> None:
        """Copy a file to `local`, in parts side by side.

        Args:
            name: Which.
            local: Is overwritten; its folder must exist. It is not whole until this returns.
            advance: Called with the bytes that came in, by one thread at a time or by several.
        """
        filesystem, root = _open(self.uri)
        with _remote_errors():
            file = filesystem.open_input_file(f"{root}/{name}")
            size = file.size()
        descriptor = os.open(local, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)

        def copy(start: int) -> None:
            with _remote_errors():
                block = file.read_at(min(_CHUNK, size - start), start)
            view, offset = memoryview(block), start
            while view:
                written = os.pwrite(descriptor, view, offset)
                view, offset = view[written:], offset + written
            advance(len(block))

        try:
            side_by_side(copy, range(0, size, _CHUNK))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            file.close()

    def delete(self, name: str) -> None:
        """Remove a file; it need not be there."""
        filesystem, root = _open(self.uri)
        with contextlib.suppress(FileNotFoundError), _remote_errors():
            filesystem.delete_file(f"{root}/{name}")

    def delete_all(self) -> None:
        """Remove every file below this folder."""
        side_by_side(self.delete, list(self.files()))

    @staticmethod
    def _make_folder(filesystem: fs.FileSystem, path: str) -> None:
        if filesystem.type_name not in ("s3", "gcs"):  # which have no folders
            filesystem.create_dir(path.rpartition("/")[0], recursive=True)


def is_uri(location: str | os.PathLike[str] | None) -> bool:
    """Whether `location` names something beyond this machine's own file systems."""
    scheme = _SCHEME.match(str(location or ""))
    return scheme is not None and scheme[1].lower() != "file"


def local_path(location: str | os.PathLike[str]) -> Path:
    """The path that `location` names: a path, from ~ on too, or a file:// URI.

    Raises:
        UsageError: It is empty, the URI of another host or no file:// URI at all, or not UTF-8.
    """
    text = os.fspath(location)
    if not text.strip():
        raise UsageError("the path is empty; leave it out, or give one (. is the current folder)")
    if is_uri(text):
        raise UsageError(f"{text} is a URI; expected a path on this machine")
    uri = _FILE_URI.fullmatch(text)
    if uri is None:
        path = os.path.expanduser(text)  # noqa: PTH111 (Path's own raises for a user that is not there)
    else:
        host, path = uri[1] or "", os.fsdecode(unquote_to_bytes(uri[2] or uri[3] or ""))
        if host.lower() not in ("", "localhost") or not path:
            raise UsageError(f"{text} names no file of this machine; expected file:///… or a path")
    try:
        os.path.abspath(path).encode()
    except UnicodeEncodeError:  # libraries refuse it, and so do JSON files, in the middle of the work
        raise UsageError(
            f"{os.path.abspath(path)} is not UTF-8; rename it, or choose a UTF-8 locale such as LC_ALL=C.UTF-8"
        ) from None
    return Path(path)


def open_remote(uri: str, flag: str) -> Remote:
    """The folder at `uri`, after asking whether it can be reached.

    Args:
        uri: What was given.
        flag: The option it was given with, for the message.

    Raises:
        UsageError: It is no URI that pyarrow opens, or its bucket is missing or out of reach.
    """
    remote = Remote(uri)
    if "@" in urlsplit(uri).netloc:
        raise UsageError(
            f"{flag}: the URI holds a user name or a key, which would be written into the run; "
            "leave it out, and give credentials in the environment"
        )
    try:
        filesystem, root = _open(uri)
        bucket = root.split("/", 1)[0]
        with _remote_errors():
            there = filesystem.get_file_info(bucket).type != fs.FileType.NotFound
    except (ValueError, ImportError, OSError) as error:
        raise UsageError(
            f"{flag} {uri} cannot be opened: {error_text(error)}; expected a URI such as s3://bucket/folder, with "
            "credentials in the environment, and AWS_ENDPOINT_URL for a server of your own"
        ) from None
    if not there:
        raise UsageError(
            f"{flag} {uri}: there is no bucket {bucket!r} that these credentials may see; make it first"
        )
    return remote


def side_by_side(work: Callable[[_T], object], items: Iterable[_T]) -> None:
    """Do `work` with every item, some at a time; the first error is raised when all have ended."""
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        done = [pool.submit(work, item) for item in items]
    for each in done:
        each.result()


def bring(remote: Remote, folder: Path, wanted: Mapping[str, Entry | None]) -> set[str]:
    """Copy files of `remote` into `folder`, each in one step; what is a copy of its entry already stays.

    Args:
        remote: Where from.
        folder: Where to; below it the files have the same names.
        wanted: Name to its entry; None copies it in any case.

    Returns:
        The names that were copied, without those that have been removed there meanwhile.

    Raises:
        OSError: It cannot be read or written; also for a name that a link leads out of the folder.
    """
    copied = set()

    def copy(name: str) -> None:
        local, entry = folder.joinpath(*name.split("/")), wanted[name]
        if not local.resolve().is_relative_to(folder.resolve()):
            raise OSError(f"{name} would be written outside of the copy")
        if entry is not None and entry.is_copied_to(local):
            return
        local.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError), atomic_path(local) as temporary:
            remote.download(name, temporary)
            if entry is not None:
                entry.mark(temporary)
            copied.add(name)

    side_by_side(copy, wanted)
    return copied


def send(
    folder: Path,
    remote: Remote,
    names: Iterable[str],
    *,
    last: str | None = None,
    sent: Callable[[str], None] = lambda _: None,
) -> None:
    """Copy files of `folder` to `remote`, where they have the same names; one that has been removed here is left out.

    Args:
        folder: Where from.
        remote: Where to.
        names: The files, relative to `folder`.
        last: The one of them that makes the others a whole: it is put when they are there.
        sent: Called with the name of each file that is there, by several threads.

    Raises:
        OSError: A file cannot be read or written.
    """

    def copy(name: str) -> None:
        local = folder / name
        try:
            remote.upload(local, name)
        except FileNotFoundError:
            if local.exists():
                raise
        else:
            sent(name)

    names = list(names)
    side_by_side(copy, [name for name in names if name != last])
    side_by_side(copy, [name for name in names if name == last])


def error_text(error: BaseException) -> str:
    """The message of a remote file system, in one line, without the names that the caller knows."""
    text = getattr(error, "strerror", None) or str(error)
    text = text[max(text.find("AWS Error"), 0) :].partition("; Details: ")[0]
    return " ".join(_REQUEST.sub("", text).split()) or type(error).__name__


@lru_cache(maxsize=16)
def _open_once(uri: str, _process: int) -> tuple[fs.FileSystem, str]:
    parts = urlsplit(uri)
    extra = _OPTIONS.get(parts.scheme)
    if extra:
        parts = parts._replace(query="&".join(filter(None, [parts.query, extra])))
    filesystem, root = fs.FileSystem.from_uri(urlunsplit(parts))
    return filesystem, root.rstrip("/")


def _open(uri: str) -> tuple[fs.FileSystem, str]:
    # A connection does not survive a fork.
    with _remote_errors():
        return _open_once(uri, os.getpid())


@contextlib.contextmanager
def _remote_errors() -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, RemoteError):
        raise
    except OSError as error:
        raise RemoteError(errno.EREMOTEIO, error_text(error)) from error
