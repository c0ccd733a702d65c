"""Where a run lies: a name in the storage, a path, or a URI that is mirrored to this machine."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from macil.data.cache import default_cache
from macil.errors import DataError, UsageError
from macil.io.reading import read_text
from macil.io.remote import Remote, RemoteError, bring, error_text, is_uri, local_path, open_remote, send
from tune.storage.listing import runs_text
from tune.storage.names import ORIGIN_FILE, RUN_FILE, TRIALS_FOLDER

# Weights and pickles are never needed to report a run, and are nearly all of its bytes.
_LEFT_BEHIND = (".pt", ".pkl", ".tmp")
_LEFT_BEHIND_PREFIX = "events.out.tfevents"


@dataclass(frozen=True)
class RunLocation:
    """A run folder that can be read as local files; `remote` is set when `path` is a copy of a run in a bucket."""

    path: Path
    shown: str
    remote: Remote | None = None

    def with_file(self, name: str) -> Path:
        """The local path of a file; of a run in a bucket it is brought here first, as weights are left there.

        Raises:
            UsageError: The bucket cannot be read.
        """
        if is_uri(self.shown):
            remote = open_remote(self.shown, "run")
            try:
                bring(remote, self.path, {name: remote.files().get(name)})
            except OSError as error:
                raise UsageError(f"{self.shown}/{name} cannot be read: {error_text(error)}") from None
        return self.path / name

    def publish(self, *parts: str) -> None:
        """Copy files and folders of a mirrored run back to where the run lies; a local run needs nothing.

        Raises:
            UsageError: It cannot be written there.
        """
        if self.remote is None:
            return
        for part in parts:
            local = self.path / part
            found = sorted(local.rglob("*")) if local.is_dir() else [local]
            names = [
                file.relative_to(self.path).as_posix()
                for file in found
                if file.is_file() and not file.name.startswith(".")
            ]
            try:
                send(self.path, self.remote, names)
            except RemoteError as error:
                raise UsageError(
                    f"{self.shown}/{part} cannot be written: {error_text(error)}; it is in {local}"
                ) from None


def locate_run(run: str | Path, storage: str | Path = "./runs") -> RunLocation:
    """Find a run by name (in `storage`), by path, or by URI (of the run, or of the storage).

    Raises:
        UsageError: Nothing is there, a file is there, or the URI cannot be read.
        DataError: The folder is not a run.
    """
    name, location = str(run), str(storage)
    if not name.strip():
        raise UsageError("the run's name is empty; expected a name in --storage, a path or a URI")
    if is_uri(name):
        return _from_uri(name)
    candidates = [local_path(name)]
    if is_uri(location):
        if not candidates[0].is_dir():
            return _from_uri(str(Remote(location).child(name)))
    elif not candidates[0].is_absolute():
        candidates.insert(0, local_path(location) / name)
    return _from_paths(name, location, candidates)


def copy_run(remote: Remote, target: Path) -> Path:
    """Copy a run into `target`, without weights and pickles; files of unchanged size and time stay."""
    wanted = {
        name: entry
        for name, entry in remote.files().items()
        if not name.endswith(_LEFT_BEHIND) and not name.rpartition("/")[2].startswith(_LEFT_BEHIND_PREFIX)
    }
    bring(remote, target, wanted)
    return target


def _from_paths(name: str, storage: str, candidates: list[Path]) -> RunLocation:
    folders = [path for path in candidates if path.is_dir()]
    runs = [path for path in folders if (path / RUN_FILE).exists() or (path / TRIALS_FOLDER).is_dir()]
    if runs:
        path = runs[0].absolute()
        return RunLocation(path, _origin(path) or str(path))
    if folders:
        raise DataError(
            f"{folders[0]} is not a run: it has neither {RUN_FILE} nor {TRIALS_FOLDER}/; "
            "give the folder of a search or sweep, or its name and --storage"
        )
    files = [path for path in candidates if path.exists()]
    if files:
        raise UsageError(f"{files[0]} is a file; expected the folder of a run")
    looked = " nor ".join(str(path) for path in candidates)
    hint = f"; {runs_text(Path(name).name, storage)}"
    raise UsageError(
        f"no run {name!r}: neither {looked} exists{hint}"
        if " nor " in looked
        else f"no run {name!r}: {looked} does not exist{hint}"
    )


def _origin(run: Path) -> str | None:
    """The URI of a run of which this is a working copy (`tune.storage.sync`)."""
    try:
        return read_text(run / ORIGIN_FILE).strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _from_uri(uri: str) -> RunLocation:
    remote = open_remote(uri, "run")
    if remote.name in ("", ".", ".."):
        raise UsageError(f"{uri} does not name a run; expected a URI such as s3://bucket/run")
    try:
        if not remote.files():
            raise UsageError(f"no run at {uri}; {runs_text(remote.name, remote.parent.uri)}")
        where = hashlib.blake2b(os.fsencode(uri), digest_size=6).hexdigest()
        target = default_cache() / "runs" / where / remote.name
        copy_run(remote, target)
    except (OSError, ValueError) as error:
        raise UsageError(f"{uri} cannot be copied to this machine: {error_text(error)}") from None
    location = _from_paths(uri, str(target.parent), [target])
    return RunLocation(location.path, uri, remote)
