"""The meaning of `--data`: a store, a layout folder (converted once into the cache), or nothing (the demo)."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
from pathlib import Path

from macil.data.cache import default_cache
from macil.data.demo.digits import DEMO_VERSION
from macil.data.demo.writing import write_demo
from macil.data.manifest import is_manifest
from macil.data.reading import AS_USUAL, Reading
from macil.data.store.conversion import convert, holds, read_source, write_store
from macil.data.store.feature_store import FeatureStore, is_store, looks_like_store
from macil.data.store.meta import FORMAT_VERSION
from macil.data.store.provenance import NOTES, Comparison, FolderState, Options, is_known, look_at, note_path
from macil.data.store.staging import FolderSource, Log, is_far, source_of, stage
from macil.data.xd.folders import Part
from macil.data.xd.layout import require_layout
from macil.errors import DataError, UsageError
from macil.io.locks import exclusive
from macil.io.notes import note
from macil.io.remote import is_uri, local_path

_DEMO_STORE = f"demo-{DEMO_VERSION}.{FORMAT_VERSION}"


def resolve(
    data: str | os.PathLike[str] | None,
    *,
    reading: Reading = AS_USUAL,
    part: Part | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> FeatureStore:
    """Open the features that `data` names, converting them first where needed.

    Args:
        data: A store, opened as it is; the URI of one, copied into the cache; a folder in the XD-Violence layout,
            checked and converted into the cache, where no store holds the same already; or None, the demo data set.
        reading: How a folder is read; a store was read so.
        part: The only split that is needed, so that no other is read of a folder that is not in the cache yet.
        cache: Where converted data are kept; None: `default_cache()`.
        progress: Show progress on stderr.

    Two processes at once convert once; a conversion that was killed is taken up where it stopped.

    Raises:
        DataError: There is no such data, or the data have faults.
        UsageError: The cache cannot be written, or a store was made otherwise than `reading` asks for.
    """
    if data is not None and is_uri(data):
        return _require_read_so(FeatureStore.open(stage(source_of(data), _open_cache(cache), note)), reading)
    if data is not None:
        path = local_path(data).absolute()
        if looks_like_store(path):
            return _require_read_so(FeatureStore.open(path), reading)
        if not is_manifest(path):
            require_layout(path)
        return _resolve_folder(path, Options(reading=reading), part, _open_cache(cache), progress)
    require_own_data(reading)
    target = _open_cache(cache) / _DEMO_STORE
    there = target.is_dir() and any(target.iterdir())
    store = _try_to_open(target) if there else None
    if store is None:
        _make_demo(target, there, progress)
        store = FeatureStore.open(target)
    _clear_demo(target)
    return store


def require_own_data(reading: Reading) -> None:
    """Refuse options of reading where the data are the demo.

    Raises:
        UsageError: There are some.
    """
    if reading.given:
        raise UsageError(f"{' '.join(reading.words)} belongs to a data folder of your own, given with --data")


def at_hand(data: str | os.PathLike[str] | None, reading: Reading = AS_USUAL) -> FeatureStore | None:
    """The store that `resolve` gives, where it can be opened as it is; None where it would be made or copied first.

    Raises:
        DataError: It is damaged.
        UsageError: It was made otherwise than `reading` asks for.
    """
    if data is not None and is_uri(data):
        return None
    path = default_cache() / _DEMO_STORE if data is None else local_path(data)
    return _require_read_so(FeatureStore.open(path), reading) if is_store(path) else None


def open_here(
    store: str,
    data: str | None,
    hashes: tuple[str, str | None],
    log: Log = note,
    *,
    reading: Reading = AS_USUAL,
    copy: bool = True,
) -> FeatureStore:
    """Open on this host what another process, on this host or another, has resolved.

    A store in a bucket or on a network file system is copied to this host's disk. Where this host does not see the
    store, it makes the demo data set, or converts the layout folder, itself.

    Args:
        store: Path or URI of the store that was resolved.
        data: What it was resolved from, as for `resolve`.
        hashes: Of its content and of its test labels.
        log: Called with a line about progress.
        reading: How the folder was read.
        copy: Whether a store on a network file system is copied; off on the one machine that has resolved it.

    Raises:
        DataError: Nothing of that content is to be had here.
    """
    if is_uri(store):
        return FeatureStore.open(stage(source_of(store), _open_cache(None), log, hashes))
    path = Path(store)
    if looks_like_store(path):
        if copy and is_far(path):
            path = stage(FolderSource(path), _open_cache(None), log, hashes)
    elif data is None or (not is_uri(data) and data != store and Path(data).exists()):
        log(
            "making the demo data set on this host"
            if data is None
            else f"looking {data} up in the cache of this host"
        )
        path = resolve(data, reading=reading).path
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


def _require_read_so(store: FeatureStore, reading: Reading) -> FeatureStore:
    """The store, where the options given are those that it was made with: it is not read anew."""
    have = {**store.reading.model_dump(), "snippet_frames": store.snippet_frames}
    wrong = {name: each for name, each in reading.given.items() if each != have[name]}
    if wrong:
        made = " ".join(store.reading.words) or "without such options"
        raise UsageError(
            f"{' '.join(Reading(**wrong).words)} is for a folder that is converted; the store {store.path} was made "
            f"{made}, with {store.snippet_frames} frames a snippet: convert its folder again, or leave the options out"
        )
    return store


def _resolve_folder(
    path: Path, options: Options, part: Part | None, cache: Path, progress: bool
) -> FeatureStore:
    """The store of a layout folder; nothing is read while the stamps of its files are unchanged."""
    state = look_at(path)
    name = f"{path.name}-{state.where}{options.reading.key}"
    known = _known_store(cache, state, options)
    if part is not None and known is None:
        options, name = options._replace(part=part), f"{name}+{part}"
        known = _known_store(cache, state, options)
    store = known and _try_to_open(known)
    if not store:
        with exclusive(cache / f"{name}.lock", f"comparing or converting {path}") as held:
            if held.waited or not known:  # another process may just have done it
                known = _known_store(cache, look_at(path), options)
                store = known and _try_to_open(known)
            store = store or _compare_or_convert(path, options, cache, name, known, progress)
    _remove_begun(cache, name, store.path)
    _name_older(cache, name, store.path)
    return store


def _compare_or_convert(
    path: Path, options: Options, cache: Path, name: str, damaged: Path | None, progress: bool
) -> FeatureStore:
    """The store of a folder that no store in the cache is known to be of; a damaged one is replaced."""
    source = read_source(path, options, progress=progress)
    comparison = Comparison(source, progress=progress)
    for location in _stores_in(cache, name):
        with contextlib.suppress(DataError):
            store = FeatureStore.open(location)
            if holds(store, source, comparison):
                return store
    # A store of another format stays: a run that was begun on it goes on with it.
    target = damaged or cache / f"{name}-v{FORMAT_VERSION}-{source.state.digest}"
    if not damaged and target.is_dir() and any(target.iterdir()):
        _try_to_open(target)
    _remove_begun(cache, name, target)
    return FeatureStore.open(write_store(source, target, overwrite=True, progress=progress))


def _known_store(cache: Path, state: FolderState, options: Options) -> Path | None:
    """A store, damaged or not, that was made from the folder in its present state, by its files' stamps."""
    for path in sorted(cache.glob(f"*/{note_path(cache, state).name}")):
        if path.parent.suffix != ".partial" and is_known(path.parent, state, options):
            return path.parent
    return None


def _stores_in(cache: Path, name: str) -> list[Path]:
    """Stores that may hold what a folder holds, the folder's own first."""
    found = [path for path in cache.iterdir() if path.suffix != ".partial" and is_store(path)]
    return sorted(found, key=lambda path: (not path.name.startswith(f"{name}-"), path.name))


def _remove_begun(cache: Path, name: str, target: Path) -> None:
    """Remove what was begun from earlier states of the same layout folder."""
    for path in sorted(cache.glob(f"{glob.escape(name)}-*.partial")):
        if path.stem != target.name and path.is_dir():
            lock = path.with_suffix(".lock")
            with contextlib.suppress(UsageError), exclusive(lock, f"converting to {path}", wait=False):
                shutil.rmtree(path)


def _name_older(cache: Path, name: str, used: Path) -> None:
    """Name what was made from earlier states of the same layout folder: a running search may still map it."""
    for path in sorted(cache.glob(f"{glob.escape(name)}-*")):
        if path.is_dir() and path != used and path.suffix != ".partial" and not _is_shared(path, name):
            note(f"{path} is an older conversion; delete it when no run that was begun on it is to go on")


def _is_shared(store: Path, name: str) -> bool:
    """Whether it holds what another folder holds, too."""
    where = name.rpartition("-")[2].partition("+")[0]
    return any(where not in path.name for path in store.glob(NOTES))


def _try_to_open(target: Path) -> FeatureStore | None:
    try:
        return FeatureStore.open(target)
    except DataError as error:
        note(f"{error.message.splitlines()[0]}; making it again")
        return None


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
