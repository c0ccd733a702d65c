"""A run in a bucket: the driver works in a copy on its own disk and keeps the bucket up to date.

Logs and the study are appended to line by line, which a bucket does not offer; so they are appended to in the working
copy, and put as whole objects. The bucket is what a run is resumed from, on whatever machine: it lags by about a
second, and by nothing once a trial has ended. What workers write (records, checkpoints) they put themselves. Only one
driver at a time: it holds a lease, an object that it renews.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path

from macil.errors import UsageError
from macil.io.remote import Entry, Remote, RemoteError, bring, send
from tune.storage.checkpoints import bucket_checkpoints
from tune.storage.names import (
    ACCESS_LOG,
    CHECKPOINT_PREFIX,
    DAMAGED_PREFIX,
    JOURNAL_FILE,
    LEASE_FILE,
    LOCK_FILE,
    ORIGIN_FILE,
    PLAN_FILE,
    RECORD_FILE,
    RUN_FILE,
    TRAINER_FILE,
    TUNE_FILES,
)
from tune.storage.retry import StorageError, with_retry

# Seconds between two renewals; a search that finds a lease watches it for longer than that before taking it over.
RENEWAL = 5.0
WATCHED = 20.0
# Seconds without a renewal after which a report takes the driver to be gone.
EXPIRED = 120.0
# Seconds between two looks at what has changed, at least; and a share of the time that these looks may take.
_PERIOD = 1.0
_SHARE = 0.05
_LONGEST = 10.0


class RunSync:
    """Keeps the storage of a run up to date. This one is of a run in a folder, where there is nothing to do."""

    def open(self) -> None:
        """Take the run into use, before anything is read or written."""

    def close(self) -> None:
        """Leave the run, with everything written."""

    def stop(self) -> None:
        """Leave the run as it is, because of an error that is being reported."""

    def check(self) -> None:
        """Wait here while the storage is out of reach."""

    def flush(self) -> None:
        """Return when everything written so far has reached the storage."""

    def clear(self) -> None:
        """Remove what a former run left in the storage."""

    def pull(self) -> None:
        """Bring what workers have written here."""

    def fetch(self, trial: Path) -> None:
        """Bring the newest checkpoint of a trial here, with its weights."""

    def report_to(self, log: Callable[[str], None], stop: Callable[[], bool]) -> None:
        """Set what logs messages and what ends the waiting (see `tune.storage.retry.with_retry`)."""


class BucketSync(RunSync):
    """Keeps the storage of a run in a bucket up to date.

    Args:
        remote: Where the run lies.
        folder: The working copy.
    """

    def __init__(self, remote: Remote, folder: Path) -> None:
        self.remote = remote
        self._folder = folder
        self._token = ""
        self._holder = f"process {os.getpid()} on {socket.gethostname()}"
        self._put: dict[str, tuple[int, ...]] = {}
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failed = False
        self._lost: StorageError | None = None
        self._log: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)
        self._stop: Callable[[], bool] = lambda: False

    def report_to(self, log: Callable[[str], None], stop: Callable[[], bool]) -> None:
        """See `RunSync.report_to`."""
        self._log, self._stop = log, stop

    def peek(self) -> None:
        """Bring run.json and plan.json here, which say what the run is, unless this copy is the newer one.

        Raises:
            UsageError: The bucket is out of reach.
        """
        try:
            lease = self._read_lease()
            if lease is None or lease.get("token") != self._own_token():
                bring(self.remote, self._folder, {PLAN_FILE: None, RUN_FILE: None})
        except RemoteError as error:
            raise UsageError(f"{self.remote} cannot be read: {error.strerror}") from None

    def open(self) -> None:
        """Take the lease, and make the working copy that of the bucket.

        Raises:
            UsageError: Another process holds the run, or the bucket cannot be written.
        """
        try:
            before = self._read_lease()
            if before is not None:
                self._wait_for(before)
            kept = before is not None and before.get("token") == self._own_token()
            self._token = uuid.uuid4().hex
            self._write_lease()
            if not kept:
                # Whatever is here is older, or of another run.
                self._empty()
                self._bring(lambda name: not name.endswith((".pt", ".pkl")))
            else:
                # What the killed process had put is not known: all of it is put again, or removed.
                self._put = {
                    name: ()
                    for name in self.remote.files()
                    if name != LEASE_FILE and not _of_worker(name) and not name.endswith(".pt")
                }
            self._write_local(LEASE_FILE, self._token.encode())
            self._write_local(ORIGIN_FILE, self.remote.uri.encode())
            self._pull()
        except RemoteError as error:
            raise UsageError(f"{self.remote} cannot be used: {error.strerror}") from None
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._keep_up, self._hold)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Put the rest and give the lease back.

        Raises:
            StorageError: The bucket stayed out of reach.
        """
        try:
            self.flush()
        finally:
            self._end()
        with contextlib.suppress(OSError):
            self._release()

    def stop(self) -> None:
        """See `RunSync.stop`: one more attempt, without waiting for storage that is out of reach.

        If that fails the lease stays, and with it the knowledge that this copy is the newest.
        """
        self._end()
        if self._lost is None:
            with contextlib.suppress(OSError):
                self._push()
                self._release()

    def _end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=60.0)
        self._threads = []

    def _release(self) -> None:
        if (self._read_lease() or {}).get("token") == self._token:
            self.remote.delete(LEASE_FILE)
            (self._folder / LEASE_FILE).unlink(missing_ok=True)

    def check(self) -> None:
        """See `RunSync.check`.

        Raises:
            StorageError: It stayed out of reach, or another process has taken the run over.
        """
        if self._lost:
            raise self._lost
        if self._failed:
            self.flush()

    def flush(self) -> None:
        """See `RunSync.flush`.

        Raises:
            StorageError: See `check`.
        """
        if self._lost:
            raise self._lost  # what is there is another's now
        with_retry(self._push, self.remote.uri, log=self._log, stop=self._stop)
        self._failed = False

    def clear(self) -> None:
        """See `RunSync.clear`."""
        with self._lock:
            for name in self.remote.files():
                if name != LEASE_FILE:
                    self.remote.delete(name)
            self._put.clear()

    def pull(self) -> None:
        """See `RunSync.pull`; checkpoints that were removed in the bucket are removed here.

        Raises:
            StorageError: The bucket stayed out of reach.
        """
        with_retry(self._pull, self.remote.uri, log=self._log, stop=self._stop)

    def _pull(self) -> None:
        self._bring_access_log()
        there = self._bring(lambda name: _of_worker(name) and not name.endswith(".pt"))
        folders = {name.rpartition("/")[0] for name in there}
        for folder in [
            *self._folder.glob(f"*/*/{CHECKPOINT_PREFIX}*"),
            *self._folder.glob(f"*/*/{DAMAGED_PREFIX}*"),
        ]:
            if folder.relative_to(self._folder).as_posix() not in folders:
                shutil.rmtree(folder, ignore_errors=True)

    def _bring_access_log(self) -> None:
        """Bring the log of test-label access if somebody has reported the run meanwhile, on this machine or another.

        It only grows, so the longer one is the newer one.
        """
        local = self._folder / ACCESS_LOG
        there = self.remote.files().get(ACCESS_LOG)
        if there is not None and (not local.exists() or local.stat().st_size < there.size):
            self._download({ACCESS_LOG: there})

    def fetch(self, trial: Path) -> None:
        """See `RunSync.fetch`.

        Raises:
            StorageError: The bucket stayed out of reach.
        """
        with_retry(lambda: self._fetch(trial), self.remote.uri, log=self._log, stop=self._stop)

    def _fetch(self, trial: Path) -> None:
        there = trial.relative_to(self._folder).as_posix()
        for name in bucket_checkpoints(self.remote.child(there))[-1:]:
            self._download({f"{there}/{name}/{TRAINER_FILE}": None})

    # --- up ---------------------------------------------------------------------------------------------------

    def _keep_up(self) -> None:
        pause = _PERIOD
        while not self._ended.wait(pause):
            began = time.monotonic()
            try:
                self._push()
                self._failed = False
            except OSError:
                # Whoever has something to write next waits for the storage, and says so.
                self._failed = True
            took = time.monotonic() - began
            pause = _PERIOD if self._failed else min(max(_PERIOD, took / _SHARE), _LONGEST)

    def _hold(self) -> None:
        """Renew the lease, however long the putting takes."""
        while not self._ended.wait(RENEWAL):
            with contextlib.suppress(OSError):
                self._renew()

    def _push(self) -> None:
        """Put what has changed since the last time; the study first read and last put.

        So the study in the bucket never knows of an epoch that is in no log there.
        """
        with self._lock:
            study = self._changed(JOURNAL_FILE)
            content = (self._folder / JOURNAL_FILE).read_bytes() if study else b""
            stamps = {
                name: stamp
                for name in self._names()
                if name != JOURNAL_FILE and (stamp := self._changed(name)) is not None
            }

            def note(name: str) -> None:
                self._put[name] = stamps[name]

            # run.json goes last: a folder with it is a whole run.
            send(self._folder, self.remote, stamps, last=RUN_FILE, sent=note)
            for name in [name for name in self._put if not _of_worker(name)]:
                if not (self._folder / name).exists():  # such as the error of a trial that is tried again
                    self.remote.delete(name)
                    del self._put[name]
            if study:
                self.remote.write(JOURNAL_FILE, content)
                self._put[JOURNAL_FILE] = study

    def _changed(self, name: str) -> tuple[int, ...] | None:
        """The stamp of a file that is not in the bucket as it is here; None if it is."""
        try:
            stamp = _stamp(self._folder / name)
        except FileNotFoundError:
            return None
        return None if self._put.get(name) == stamp else stamp

    def _names(self) -> list[str]:
        """The driver's own files: everything but temporary files and the workers' files."""
        names = []
        for root, folders, files in os.walk(self._folder):
            inside = os.path.relpath(root, self._folder)
            folders[:] = [
                name for name in folders if not name.startswith((".", CHECKPOINT_PREFIX, DAMAGED_PREFIX))
            ]
            start = "" if inside == "." else f"{inside}/"
            names += [f"{start}{name}" for name in files if _of_driver(name)]
        return names

    # --- down -------------------------------------------------------------------------------------------------

    def _bring(self, wanted: Callable[[str], bool]) -> dict[str, Entry]:
        """Bring what is wanted here; returns what is there of it."""
        there = {
            name: entry for name, entry in self.remote.files().items() if name != LEASE_FILE and wanted(name)
        }
        self._download(there)
        return there

    def _download(self, wanted: Mapping[str, Entry | None]) -> None:
        for name in bring(self.remote, self._folder, wanted):
            self._put[name] = _stamp(self._folder / name)

    def _empty(self) -> None:
        for path in self._folder.iterdir():
            if path.name == LOCK_FILE:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _write_local(self, name: str, content: bytes) -> None:
        (self._folder / name).write_bytes(content)

    # --- the lease --------------------------------------------------------------------------------------------

    def _own_token(self) -> str:
        try:
            return (self._folder / LEASE_FILE).read_text(encoding="utf-8")
        except OSError:
            return ""

    def _read_lease(self) -> dict[str, str] | None:
        try:
            content = json.loads(self.remote.read(LEASE_FILE))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    def _write_lease(self) -> None:
        content = {"token": self._token, "holder": self._holder, "turn": uuid.uuid4().hex}
        self.remote.write(LEASE_FILE, json.dumps(content).encode())

    def _renew(self) -> None:
        lease = self._read_lease()
        if lease is not None and lease.get("token") != self._token:
            self._lost = StorageError(
                f"{self.remote} was taken over by {lease.get('holder', 'another process')}; this one stops"
            )
            self._ended.set()
            return
        self._write_lease()

    def _wait_for(self, lease: dict[str, str]) -> None:
        """Look on until it is clear whether the holder of a lease lives: no clocks are compared.

        Raises:
            UsageError: It does.
        """
        holder = lease.get("holder", "another process")
        number, _, host = holder.removeprefix("process ").partition(" on ")
        if host == socket.gethostname() and number.isdecimal() and not _lives(int(number)):
            return
        self._log(f"{self.remote} is held by {holder}; looking for {WATCHED:.0f} s whether that is alive")
        began = time.monotonic()
        while time.monotonic() - began < WATCHED:
            time.sleep(1.0)
            now = self._read_lease()
            if now is None:
                return  # given back
            if now != lease:
                raise UsageError(
                    f"run {self.remote.name!r} is in use by {holder}; wait for it or stop it first"
                )


def _stamp(local: Path) -> tuple[int, ...]:
    """Changes whenever a file is written or replaced: two of the same size may have the same time."""
    stat = local.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_ctime_ns


def _of_driver(file: str) -> bool:
    """Whether a file outside of checkpoints is the driver's, and worth keeping."""
    return not (file.startswith(".") or file == RECORD_FILE or any(fnmatch(file, one) for one in TUNE_FILES))


def _of_worker(name: str) -> bool:
    parts = name.split("/")
    return parts[-1] == RECORD_FILE or any(
        part.startswith((CHECKPOINT_PREFIX, DAMAGED_PREFIX)) for part in parts[:-1]
    )


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
