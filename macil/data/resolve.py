"""What `--data` means: a store, a layout folder (converted once into the cache), or nothing (the demo)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from macil.data.convert import convert
from macil.data.demo import write_demo
from macil.data.demo_generator import GENERATOR_VERSION
from macil.data.layout import layout_files, require_layout
from macil.data.locking import exclusive
from macil.data.staging import FolderSource, Tell, is_far, source_of, stage
from macil.data.store import FORMAT_VERSION, FeatureStore, is_store, looks_like_store
from macil.errors import DataError, UsageError
from macil.notes import note
from macil.remote import is_uri


def resolve(
    data: str | os.PathLike[str] | None,
    *,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> FeatureStore:
    """Open the features that `data` names, converting them first where needed.

    Args:
        data: A store, opened as it is; the URI of one, copied into the cache; a folder in the XD-Violence layout,
            checked and converted into the cache, again only when a file in it has changed; or None, the demo data set.
        cache: Where converted data are kept; None: `default_cache()`.
        progress: Show progress on stderr.

    Two processes at once convert once; a conversion that was killed is taken up where it stopped.

    Raises:
        DataError: There is no such data, or the data have faults.
        UsageError: The cache cannot be written.
    """
    if data is not None and is_uri(data):
        return FeatureStore.open(stage(source_of(data), _open_cache(cache), note))
    if data is not None:
        path = Path(data).absolute()
        if looks_like_store(path):
            return FeatureStore.open(path)
        require_layout(path)
        folder = _open_cache(cache)
        target = folder / _cache_name(path)
        _clear_stale(folder, target)
        return _open_or_make(
            target, lambda overwrite: convert(path, target, overwrite=overwrite, progress=progress)
        )
    target = _open_cache(cache) / f"demo-{GENERATOR_VERSION}.{FORMAT_VERSION}"
    store = _open_or_make(target, lambda overwrite: _make_demo(target, overwrite, progress))
    _clear_demo(target)
    return store


def open_here(
    store: str, data: str | None, hashes: tuple[str, str | None], tell: Tell = note, *, copy: bool = True
) -> FeatureStore:
    """Open on this host what another process, on this host or another, has resolved.

    A store in a bucket or on a network file system is copied to this host's disk. Where this host does not see the
    store, it makes the demo data set, or converts the layout folder, itself.

    Args:
        store: Path or URI of the store that was resolved.
        data: What it was resolved from, as for `resolve`.
        hashes: Of its content and of its test labels.
        tell: Told about progress.
        copy: Whether a store on a network file system is copied; off on the one machine that has resolved it.

    Raises:
        DataError: Nothing of that content is to be had here.
    """
    if is_uri(store):
        return FeatureStore.open(stage(source_of(store), _open_cache(None), tell, hashes))
    path = Path(store)
    if looks_like_store(path):
        if copy and is_far(path):
            path = stage(FolderSource(path), _open_cache(None), tell, hashes)
    elif data is None or (not is_uri(data) and data != store and Path(data).is_dir()):
        tell("making the demo data set on this host" if data is None else f"converting {data} on this host")
        path = resolve(data).path
    elif copy:
        raise DataError(
            f"{store} is not there; give as --data a folder that every host sees, or a URI such as s3://bucket/xd.store"
        )
    found = FeatureStore.open(path)
    if found.content_hash != hashes[0]:
        raise DataError(
            f"{path} has the content hash {found.content_hash}, the run was begun with {hashes[0]}: this host needs "
            f"the store of the run, {store}, at that path, or the run has to be begun anew"
        )
    return found


def default_cache() -> Path:
    """Return the folder of `MACIL_CACHE`, or `macil` in the user's cache folder of this platform."""
    if os.environ.get("MACIL_CACHE"):
        return Path(os.environ["MACIL_CACHE"]).absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "macil"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "macil"


def _open_cache(cache: str | os.PathLike[str] | None) -> Path:
    folder = Path(cache).absolute() if cache is not None else default_cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(
            f"cannot make the cache {folder}: {reason}; set MACIL_CACHE to a folder of yours"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write into the cache {folder}; set MACIL_CACHE to a folder of yours")
    return folder


def _cache_name(path: Path) -> str:
    """Name a layout folder's store by its path and by the names, sizes and times of its files."""
    where = hashlib.blake2b(os.fsencode(path.resolve()), digest_size=4).hexdigest()
    try:
        with contextlib.closing(layout_files(path)) as files:
            lines = [_describe_file(entry, path) for entry in files]
    except OSError as error:
        raise DataError(f"{error.filename or path} cannot be read: {error.strerror or error}") from None
    content = hashlib.blake2b(digest_size=8)
    content.update(f"{FORMAT_VERSION}\n".encode())
    for line in sorted(lines):
        content.update(os.fsencode(line))
    return f"{path.name}-{where}-{content.hexdigest()}"


def _describe_file(entry: os.DirEntry[str], root: Path) -> str:
    name = os.path.relpath(entry.path, root)
    try:
        stat = entry.stat()
    except FileNotFoundError:
        # A link to nowhere: the audit will say so.
        return f"{name}\n"
    return f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n"


def _clear_stale(folder: Path, target: Path) -> None:
    """Remove what was begun, and name what was made, from earlier states of the same layout folder."""
    prefix = target.name.rpartition("-")[0]
    for path in sorted(folder.glob("*")):
        if not path.name.startswith(f"{prefix}-") or path.name.startswith(target.name) or not path.is_dir():
            continue
        if path.suffix != ".partial":
            # A running search may still map it.
            note(f"{path} is an older conversion; delete it when nothing uses it")
            continue
        lock = path.with_suffix(".lock")
        with contextlib.suppress(UsageError), exclusive(lock, f"converting to {path}", wait=False):
            shutil.rmtree(path)


def _open_or_make(target: Path, make: Callable[[bool], object]) -> FeatureStore:
    there = target.is_dir() and any(target.iterdir())
    if there:
        try:
            return FeatureStore.open(target)
        except DataError as error:
            note(f"{error.message.splitlines()[0]}; making it again")
    make(there)
    return FeatureStore.open(target)


def _make_demo(target: Path, overwrite: bool, progress: bool) -> None:
    layout = _demo_layout(target)
    with exclusive(_demo_lock(target), f"making the demo in {target.parent}"):
        if is_store(target) and not overwrite:
            return
        if layout.exists():
            note(
                f"the demo was written already, by a process that was killed ({layout}); it is converted now"
            )
        else:
            write_demo(layout, progress=progress)
        convert(layout, target, overwrite=overwrite, progress=progress)
        _remove_layout(layout)


def _clear_demo(target: Path) -> None:
    """Remove the layout folder of a finished demo, which a process that was killed may have left."""
    layout = _demo_layout(target)
    if layout.exists() or _unfinished(layout).exists():
        with (
            contextlib.suppress(UsageError),
            exclusive(_demo_lock(target), f"making the demo in {target.parent}", wait=False),
        ):
            _remove_layout(layout)


def _remove_layout(layout: Path) -> None:
    """The store holds all of it."""
    # What a kill leaves half-removed must not be taken for a whole folder.
    if layout.exists():
        layout.rename(_unfinished(layout))
    shutil.rmtree(_unfinished(layout))


def _demo_layout(target: Path) -> Path:
    return target.with_name(f"{target.name}.layout")


def _unfinished(layout: Path) -> Path:
    return layout.with_name(f"{layout.name}.partial")


def _demo_lock(target: Path) -> Path:
    return target.with_name(f"{target.name}.demo.lock")
