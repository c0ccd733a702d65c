"""Folders that are either whole or absent."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from macil.errors import UsageError
from macil.io.files import TEMPORARY

_REPLACED = ".old"


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target`; on success it replaces `target`, on failure it is removed.

    Raises:
        OSError: The storage refused; nothing is left of it, and `target` is what it was.
    """
    building = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{TEMPORARY}")
    try:
        building.mkdir(parents=True)
        yield building
        sync_folder(building)
        replace_folder(building, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def replace_folder(built: Path, target: Path) -> None:
    """Give the folder `built` the name `target`, in place of a folder that has it.

    A process that is killed here leaves one of both at `target`, or none and the replaced one beside it.
    """
    if target.is_dir() and any(target.iterdir()):
        os.replace(target, target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{_REPLACED}"))
    os.replace(built, target)
    _sync(target.parent)
    remove_replaced(target)


def require_creatable(folder: Path) -> None:
    """Refuse a folder that cannot be made, before any work for it is done.

    Raises:
        UsageError: A file is there, or the folder to make it in may not be written to.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a folder that does not exist yet")
    require_writable(folder.parent, f"cannot write {folder}")


def require_writable(folder: Path, refusal: str) -> None:
    """Refuse a folder that takes no files, or that cannot be made; nothing is left of the attempt.

    Args:
        folder: Need not exist.
        refusal: The beginning of the message.

    Raises:
        UsageError: It, or the nearest folder above it that is there, is a file or takes nothing new.
    """
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir():
        raise UsageError(f"{refusal}: {there} is a file; expected a folder")
    try:
        # The system alone knows: to root every folder seems writable, those of /proc as well.
        with tempfile.TemporaryDirectory(prefix=".", suffix=TEMPORARY, dir=there):
            pass
    except OSError as error:
        raise UsageError(
            f"{refusal}: {there} takes nothing new ({error.strerror}); choose a folder you may write to"
        ) from None


def remove_unfinished(target: Path) -> None:
    """Remove what killed processes left half-written of `target`; no other process may be writing it."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.*{TEMPORARY}"):
        shutil.rmtree(left, ignore_errors=True)


def remove_replaced(target: Path) -> None:
    """Remove the folders that `target` replaced, also one that a killed process had put aside."""
    for old in target.parent.glob(f".{glob.escape(target.name)}.*{_REPLACED}"):
        shutil.rmtree(old, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Wait until everything in a folder is on the disk."""
    for path in folder.rglob("*"):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
