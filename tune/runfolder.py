"""Where a run lies: a name in the storage, a path, or a URI that is mirrored to this machine."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pyarrow import fs

from macil.errors import DataError, UsageError

# Weights and pickles are never needed to report a run, and are nearly all of its bytes.
_LEFT_BEHIND = (".pt", ".pkl", ".tmp")
_LEFT_BEHIND_PREFIX = "events.out.tfevents"


@dataclass(frozen=True)
class RunLocation:
    """A run folder that can be read as local files; `remote` is set when `path` mirrors another place."""

    path: Path
    shown: str
    remote: tuple[fs.FileSystem, str] | None = None

    def publish(self, folder: str) -> None:
        """Copy `folder` of a mirrored run back to where the run lies; a local run needs nothing."""
        if self.remote is None:
            return
        filesystem, root = self.remote
        filesystem.create_dir(f"{root}/{folder}", recursive=True)
        for file in sorted((self.path / folder).rglob("*")):
            if file.is_file():
                with filesystem.open_output_stream(
                    f"{root}/{file.relative_to(self.path).as_posix()}"
                ) as stream:
                    stream.write(file.read_bytes())


def locate_run(run: str | Path, storage: str | Path = "./runs") -> RunLocation:
    """Find a run by name (in `storage`), by path, or by URI (of the run, or of the storage).

    Raises:
        UsageError: Nothing is there, a file is there, or the URI cannot be read.
        DataError: The folder is not a run.
    """
    name, place = str(run), str(storage)
    if not name.strip():
        raise UsageError("the run's name is empty; expected a name in --storage, a path or a URI")
    if "://" in name:
        return _from_uri(name)
    candidates = [Path(name).expanduser()]
    if "://" in place:
        if not candidates[0].is_dir():
            return _from_uri(f"{place.rstrip('/')}/{name}")
    elif not candidates[0].is_absolute():
        candidates.insert(0, Path(place).expanduser() / name)
    return _from_paths(name, place, candidates)


def mirror(filesystem: fs.FileSystem, root: str, target: Path) -> Path:
    """Copy a run from `root` into `target`, without weights and pickles; files of unchanged size and time stay."""
    for info in filesystem.get_file_info(fs.FileSelector(root, recursive=True)):
        name = info.base_name
        if (
            info.type != fs.FileType.File
            or name.endswith(_LEFT_BEHIND)
            or name.startswith(_LEFT_BEHIND_PREFIX)
        ):
            continue
        parts = PurePosixPath(info.path).relative_to(root).parts
        if ".." in parts:
            raise OSError(f"{info.path} would be written outside of the copy")
        local = target.joinpath(*parts)
        changed = info.mtime_ns if info.mtime_ns is not None else 0
        if local.is_file() and local.stat().st_size == info.size and local.stat().st_mtime_ns == changed:
            continue
        local.parent.mkdir(parents=True, exist_ok=True)
        with filesystem.open_input_stream(info.path) as stream:
            local.write_bytes(stream.read())
        os.utime(local, ns=(changed, changed))
    return target


def _from_paths(name: str, storage: str, candidates: list[Path]) -> RunLocation:
    folders = [path for path in candidates if path.is_dir()]
    runs = [path for path in folders if (path / "run.json").exists() or (path / "trials").is_dir()]
    if runs:
        path = runs[0].absolute()
        return RunLocation(path, str(path))
    if folders:
        raise DataError(
            f"{folders[0]} is not a run: it has neither run.json nor trials/; "
            "give the folder that tune/search.py wrote, or its name and --storage"
        )
    files = [path for path in candidates if path.exists()]
    if files:
        raise UsageError(f"{files[0]} is a file; expected the folder of a run")
    looked = " nor ".join(str(path) for path in candidates)
    known = _names_in(Path(storage)) if "://" not in storage else []
    hint = f"; runs in {storage}: {', '.join(known)}" if known else f"; there is no run in {storage}"
    raise UsageError(
        f"no run {name!r}: neither {looked} exists{hint}"
        if " nor " in looked
        else f"no run {name!r}: {looked} does not exist{hint}"
    )


def _names_in(storage: Path, most: int = 10) -> list[str]:
    try:
        runs = sorted(
            (p for p in storage.iterdir() if (p / "run.json").is_file()), key=lambda p: p.stat().st_mtime
        )
    except OSError:
        return []
    return [path.name for path in reversed(runs)][:most]


def _from_uri(uri: str) -> RunLocation:
    try:
        filesystem, root = fs.FileSystem.from_uri(uri)
        if isinstance(filesystem, fs.LocalFileSystem):
            return _from_paths(uri, str(Path(root).parent), [Path(root)])
        root = root.rstrip("/")
        info = filesystem.get_file_info(root)
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"{uri} cannot be read: {reason}; expected a path or a URI such as s3://bucket/run"
        ) from None
    if info.type == fs.FileType.File:
        raise UsageError(f"{uri} is a file; expected the folder of a run")
    if info.type == fs.FileType.NotFound:
        raise UsageError(f"no run at {uri}")
    name = root.rsplit("/", 1)[-1]
    if name in ("", ".", ".."):
        raise UsageError(f"{uri} does not name a run; expected a URI such as s3://bucket/run")
    target = _mirrors() / hashlib.blake2b(os.fsencode(uri), digest_size=6).hexdigest() / name
    try:
        mirror(filesystem, root, target)
    except (OSError, ValueError) as error:
        raise UsageError(f"{uri} cannot be copied to {target}: {' '.join(str(error).split())}") from None
    location = _from_paths(uri, str(target.parent), [target])
    return RunLocation(location.path, uri, (filesystem, root))


def _mirrors() -> Path:
    cache = os.environ.get("MACIL_CACHE")
    if cache:
        return Path(cache) / "runs"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "macil" / "runs"
