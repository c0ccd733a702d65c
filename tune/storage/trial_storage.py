"""Where a trial's worker writes: its folder in the run, on a file system or in a bucket."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from macil.io.files import atomic_path, write_json_atomic
from macil.io.remote import Remote, bring, send
from macil.training.checkpoint import load_checkpoint
from tune.storage.checkpoints import (
    KEPT,
    bucket_checkpoints,
    highest_number,
    last_good,
    newest_readable,
    prune,
    put,
)
from tune.storage.names import DAMAGED_PREFIX, TRAINER_FILE


class TrialStorage(Protocol):
    """A trial's folder in the run. Every method raises OSError where the storage refuses, and leaves no half."""

    @property
    def name(self) -> str:
        """The folder's name."""

    def sibling(self, name: str) -> TrialStorage:
        """The folder of another row of the tables."""

    def write_json(self, name: str, content: Any) -> None:
        """Put a small file."""

    def last_good(self, warn: Callable[[str], None]) -> dict[str, Any] | None:
        """See `tune.storage.checkpoints.last_good`."""

    def newest_number(self) -> int:
        """The highest number of a checkpoint, also of one that is damaged; -1 without any."""

    def put(self, source: Path, checkpoint: str) -> str:
        """Put a checkpoint of that name, in one step, and remove the older ones; returns where it is."""

    def put_over(self, source: Path, checkpoint: str) -> None:
        """Put a checkpoint in place of an earlier one of that name, file by file, the weights last."""


class FolderStorage:
    """A folder on a file system that this host sees."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __str__(self) -> str:
        return str(self._folder)

    @property
    def name(self) -> str:
        """See `TrialStorage.name`."""
        return self._folder.name

    def sibling(self, name: str) -> FolderStorage:
        """See `TrialStorage.sibling`."""
        return FolderStorage(self._folder.parent / name)

    def write_json(self, name: str, content: Any) -> None:
        """See `TrialStorage.write_json`."""
        write_json_atomic(self._folder / name, content)

    def last_good(self, warn: Callable[[str], None]) -> dict[str, Any] | None:
        """See `TrialStorage.last_good`."""
        return last_good(self._folder, warn)

    def newest_number(self) -> int:
        """See `TrialStorage.newest_number`."""
        there = self._folder.is_dir()
        return highest_number(path.name for path in self._folder.iterdir()) if there else -1

    def put(self, source: Path, checkpoint: str) -> str:
        """See `TrialStorage.put`."""
        target = self._folder / checkpoint
        put(source, target)
        prune(self._folder)
        return str(target)

    def put_over(self, source: Path, checkpoint: str) -> None:
        """See `TrialStorage.put_over`."""
        for file in sorted(source.iterdir(), key=lambda file: file.name == TRAINER_FILE):
            with atomic_path(self._folder / checkpoint / file.name) as temporary:
                shutil.copyfile(file, temporary)


class BucketStorage:
    """A folder in a bucket. A checkpoint is there once its weights are, which are put last."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def __str__(self) -> str:
        return self._remote.uri

    @property
    def name(self) -> str:
        """See `TrialStorage.name`."""
        return self._remote.name

    def sibling(self, name: str) -> BucketStorage:
        """See `TrialStorage.sibling`."""
        return BucketStorage(self._remote.parent.child(name))

    def write_json(self, name: str, content: Any) -> None:
        """See `TrialStorage.write_json`."""
        self._remote.write(name, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())

    def last_good(self, warn: Callable[[str], None]) -> dict[str, Any] | None:
        """See `TrialStorage.last_good`."""
        with tempfile.TemporaryDirectory(prefix="macil-") as scratch:

            def load(name: str) -> dict[str, Any]:
                local = Path(scratch) / name
                local.mkdir(exist_ok=True)
                self._remote.download(f"{name}/{TRAINER_FILE}", local / TRAINER_FILE)
                return load_checkpoint(local / TRAINER_FILE)

            return newest_readable(bucket_checkpoints(self._remote), load, self._set_aside, warn)

    def newest_number(self) -> int:
        """See `TrialStorage.newest_number`."""
        return highest_number(name.partition("/")[0] for name in self._remote.files())

    def put(self, source: Path, checkpoint: str) -> str:
        """See `TrialStorage.put`."""
        self.put_over(source, checkpoint)
        for name in bucket_checkpoints(self._remote)[:-KEPT]:
            # The weights first: what is left of it if this is cut short is no checkpoint.
            self._remote.delete(f"{name}/{TRAINER_FILE}")
            self._remote.child(name).delete_all()
        return self._remote.child(checkpoint).uri

    def put_over(self, source: Path, checkpoint: str) -> None:
        """See `TrialStorage.put_over`."""
        names = [file.name for file in source.iterdir()]
        send(source, self._remote.child(checkpoint), names, last=TRAINER_FILE)

    def _set_aside(self, name: str) -> None:
        folder, aside = self._remote.child(name), self._remote.child(f"{DAMAGED_PREFIX}{name}")
        with tempfile.TemporaryDirectory(prefix="macil-") as scratch:
            names = bring(folder, Path(scratch), dict.fromkeys(folder.files()))
            send(Path(scratch), aside, names)
        folder.delete_all()
