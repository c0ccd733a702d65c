"""What `--data` means: a store, a layout folder (converted once into the cache), or nothing (the demo)."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from macil.data.convert import convert
from macil.data.demo import write_demo
from macil.data.demo_generator import GENERATOR_VERSION
from macil.data.layout import layout_files, require_layout
from macil.data.locking import exclusive
from macil.data.store import FORMAT_VERSION, META, FeatureStore, is_store
from macil.errors import DataError, UsageError


def resolve(
    data: str | os.PathLike[str] | None,
    *,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> FeatureStore:
    """Open the features that `data` names, converting them first where needed.

    Args:
        data: A store, opened as it is; a folder in the XD-Violence layout, checked and converted into the cache, again
            only when a file in it has changed; or None, the demo data set.
        cache: Where converted data are kept; None: `default_cache()`.
        progress: Show progress on stderr.

    Two processes at once convert once; a conversion that was killed is taken up where it stopped.

    Raises:
        DataError: There is no such data, or the data have faults.
        UsageError: The cache cannot be written.
    """
    if data is not None:
        path = Path(data).absolute()
        if (path / META).exists():
            return FeatureStore.open(path)
        require_layout(path)
        folder = _open_cache(cache)
        target = folder / _cache_name(path)
        _clear_stale(folder, target)
        return _open_or_make(
            target, lambda overwrite: convert(path, target, overwrite=overwrite, progress=progress)
        )
    target = _open_cache(cache) / f"demo-{GENERATOR_VERSION}.{FORMAT_VERSION}"
    return _open_or_make(target, lambda overwrite: _make_demo(target, overwrite, progress))


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
        lines = [_describe_file(entry, path) for entry in layout_files(path)]
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
            print(f"note: {path} is an older conversion; delete it when nothing uses it", file=sys.stderr)
            continue
        try:
            with FileLock(path.with_suffix(".lock"), timeout=0):
                shutil.rmtree(path)
                path.with_suffix(".lock").unlink(missing_ok=True)
        except Timeout:
            pass


def _open_or_make(target: Path, make: Callable[[bool], object]) -> FeatureStore:
    if not is_store(target):
        make(False)
        return FeatureStore.open(target)
    try:
        return FeatureStore.open(target)
    except DataError as error:
        print(f"note: {error.message.splitlines()[0]}; making it again", file=sys.stderr)
        make(True)
        return FeatureStore.open(target)


def _make_demo(target: Path, overwrite: bool, progress: bool) -> None:
    layout = target.with_name(f"{target.name}.layout")
    with exclusive(target.with_name(f"{target.name}.demo.lock"), f"making the demo in {target.parent}"):
        if is_store(target) and not overwrite:
            return
        if not layout.exists():
            write_demo(layout, progress=progress)
        convert(layout, target, overwrite=overwrite, progress=progress)
        # The store holds all of it.
        shutil.rmtree(layout)
