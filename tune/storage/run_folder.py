"""The folder of a run while it is being run: made, locked, kept true."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from macil.data.cache import default_cache
from macil.errors import UsageError
from macil.io.folders import require_writable
from macil.io.locks import in_use
from macil.io.remote import Remote, RemoteError, error_text, is_uri, local_path, open_remote
from macil.io.wording import now
from tune.storage.listing import runs_text
from tune.storage.names import (
    CONFIG_FILE,
    JOURNAL_FILE,
    LEASE_FILE,
    LOCK_FILE,
    MODEL_FILE,
    ORIGIN_FILE,
    PLAN_FILE,
    RUN_FILE,
    SPACE_FILE,
    SPLIT_FILE,
)
from tune.storage.run_file import RunInfo, read_run_info, write_run_info
from tune.storage.sync import BucketSync, RunSync

# What `tune.execution.pipeline.begin` writes before run.json, which makes it a run.
_FIRST_FILES = (LOCK_FILE, PLAN_FILE, CONFIG_FILE, SPACE_FILE, SPLIT_FILE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Workspace:
    """Paths of one run; `info` is its `run.json`.

    Attributes:
        path: Its folder; of a run in a bucket, the working copy on this machine.
        sync: Brings what is written to where the run lies.
    """

    path: Path
    sync: RunSync = field(default_factory=RunSync, compare=False)

    @property
    def bucket(self) -> str | None:
        """URI of a run in a bucket."""
        return self.sync.remote.uri if isinstance(self.sync, BucketSync) else None

    @property
    def location(self) -> str:
        """Where the run lies, for people."""
        return self.bucket or str(self.path)

    @property
    def storage(self) -> str:
        """The value of `--storage`."""
        return self.sync.remote.parent.uri if isinstance(self.sync, BucketSync) else str(self.path.parent)

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def journal(self) -> Path:
        """The study."""
        return self.path / JOURNAL_FILE

    @property
    def split(self) -> Path:
        """The held-out split."""
        return self.path / SPLIT_FILE

    @property
    def model(self) -> Path:
        """The run's result."""
        return self.path / MODEL_FILE

    def experiment(self, kind: str) -> Path:
        """Tune's folder of the `trials` or of the `refit`."""
        return self.path / kind

    @property
    def info(self) -> RunInfo:
        """The content of `run.json`.

        Raises:
            DataError: It is missing, damaged or of another version.
        """
        return read_run_info(self.path)

    def update(self, **changes: Any) -> None:
        """Change fields of `run.json`, in one step."""
        info = self.info if (self.path / RUN_FILE).exists() else RunInfo()
        write_run_info(self.path, info, {**changes, "updated": now()})


def storage_folder(storage: str) -> Path:
    """The folder in which runs lie, a path or a file:// URI.

    Raises:
        UsageError: It is none.
    """
    return Path(os.path.abspath(local_path(storage)))


def new_workspace(storage: str, name: str, *, overwrite: bool) -> Workspace:
    """Where a new run will lie; nothing is written yet.

    Raises:
        UsageError: A name that is no folder name, or that is taken and not to be overwritten; a folder that cannot be
            written; a bucket out of reach.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"--name {name!r} is not allowed: expected letters, digits, '.', '_' and '-', at most 100, no '/'"
        )
    if is_uri(storage):
        return _new_in_bucket(open_remote(storage, "--storage").child(name), overwrite=overwrite)
    folder = storage_folder(storage)
    require_writable(folder, f"--storage {storage}")
    run = Workspace(folder / name)
    if never_begun(run):
        print(f"note: run {name!r} was stopped before it began; it is begun anew", file=sys.stderr)
    elif run.path.exists():
        if not overwrite:
            raise UsageError(
                f"run {name!r} exists already in {run.path.parent}; "
                f"use --resume {name} to go on with it, --overwrite to replace it, or another --name"
            )
        # Only what this program wrote may be deleted by it.
        empty = run.path.is_dir() and not any(run.path.iterdir())
        if not empty and not (run.path / RUN_FILE).is_file():
            raise UsageError(
                f"--overwrite: {run.path} is not a run (it has no run.json), so it is not removed"
            )
    return run


def existing_workspace(storage: str, name: str) -> Workspace:
    """The run to resume: a name in the storage, a path or a URI.

    Raises:
        UsageError: There is none.
    """
    if is_uri(name) or is_uri(storage):
        remote = Remote(name) if is_uri(name) else Remote(storage).child(name)
        return _existing_in_bucket(open_remote(remote.parent.uri, "--storage").child(remote.name))
    for path in (storage_folder(storage) / name, local_path(name)):
        if (path / RUN_FILE).is_file():
            return Workspace(Path(os.path.abspath(path)))
        if never_begun(Workspace(path)):
            raise UsageError(
                f"--resume {name}: that run was stopped before it began, so there is nothing to go on with; "
                f"begin it again with the same command and --name {name}"
            )
    raise UsageError(f"--resume {name}: there is no run of that name; {runs_text(Path(name).name, storage)}")


def _new_in_bucket(remote: Remote, *, overwrite: bool) -> Workspace:
    try:
        names = set(remote.files()) - {LEASE_FILE}
    except RemoteError as error:
        raise UsageError(f"--storage {remote.parent} cannot be read: {error_text(error)}") from None
    if RUN_FILE in names and not overwrite:
        raise UsageError(
            f"run {remote.name!r} exists already in {remote.parent}; "
            f"use --resume {remote.name} to go on with it, --overwrite to replace it, or another --name"
        )
    if RUN_FILE not in names and names - set(_FIRST_FILES):
        raise UsageError(f"{remote} is not a run (it has no run.json); choose another --name or --storage")
    return _in_bucket(remote)


def _existing_in_bucket(remote: Remote) -> Workspace:
    try:
        there = remote.exists(RUN_FILE)
    except RemoteError as error:
        raise UsageError(f"--storage {remote.parent} cannot be read: {error_text(error)}") from None
    if not there:
        raise UsageError(
            f"--resume {remote.name}: there is no run of that name; {runs_text(remote.name, remote.parent.uri)}"
        )
    run = _in_bucket(remote)
    if isinstance(run.sync, BucketSync):
        run.sync.peek()
    return run


def _in_bucket(remote: Remote) -> Workspace:
    """The run at `remote`, with its working copy in this user's cache."""
    where = hashlib.blake2b(os.fsencode(remote.parent.uri), digest_size=6).hexdigest()
    folder = default_cache() / "work" / where / remote.name
    return Workspace(folder, BucketSync(remote, folder))


def never_begun(run: Workspace) -> bool:
    """Whether nothing but the first files of a start that was killed is there."""
    if not run.path.is_dir() or (run.path / RUN_FILE).exists():
        return False
    names = {path.name for path in run.path.iterdir()}
    return LOCK_FILE in names and all(name in _FIRST_FILES or name.endswith(".tmp") for name in names)


@contextlib.contextmanager
def locked(run: Workspace) -> Iterator[None]:
    """Hold the run for this process; the lock goes with the process, however it ends.

    Raises:
        UsageError: Another live process holds it, or the folder or bucket cannot be written.
        StorageError: A bucket that was in reach did not take the end of the run.
    """
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write {run.path}: {error.strerror}; choose another --storage") from None
    with in_use(run.path / LOCK_FILE, f"run {run.name!r}"):
        run.sync.open()
        try:
            yield
        except BaseException:
            run.sync.stop()
            if {path.name for path in run.path.iterdir()} == {LOCK_FILE}:  # of a start that was taken back
                shutil.rmtree(run.path)
            raise
        run.sync.close()


def clear(run: Workspace) -> None:
    """Remove what a former run of this name left, but for the lock."""
    run.sync.clear()
    for path in run.path.iterdir():
        if path.name in (LOCK_FILE, LEASE_FILE, ORIGIN_FILE):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def versions() -> dict[str, str]:
    """Versions that a run depends on."""
    packages = ("torch", "ray", "optuna", "numpy", "pyarrow", "scikit-learn")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}
