"""The runs of a storage by name."""

from __future__ import annotations

import contextlib
import difflib

from macil.errors import UsageError
from macil.io.remote import Remote, RemoteError, error_text, is_uri, local_path, open_remote
from tune.storage.names import RUN_FILE

_MOST = 10


def runs_in(storage: str) -> list[str]:
    """The names of the runs in a folder or in a bucket, the one that was changed last first.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        changed = _changed_in_bucket(storage) if is_uri(storage) else _changed_in_folder(storage)
    except RemoteError as error:
        raise UsageError(f"--storage {storage} cannot be read: {error_text(error)}") from None
    except OSError as error:
        raise UsageError(f"--storage {storage} cannot be read: {error.strerror}") from None
    return sorted(changed, key=lambda name: (-changed[name], name))


def runs_text(name: str, storage: str) -> str:
    """For a message that there is no run `name`: those there are, the most similar names first."""
    known: list[str] = []
    with contextlib.suppress(UsageError):  # what is at fault is the name
        known = runs_in(storage)
    if not known:
        return f"there is no run in {storage}"
    likeness = {each: difflib.SequenceMatcher(None, name, each).ratio() for each in known}
    shown = sorted(known, key=lambda each: -likeness[each])[:_MOST]
    more = f" and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
    return f"runs in {storage}: {', '.join(shown)}{more}"


def _changed_in_folder(storage: str) -> dict[str, float]:
    changed = {}
    folder = local_path(storage)
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(OSError):  # no run, or one that is removed meanwhile
            changed[path.name] = (path / RUN_FILE).stat().st_mtime
    return changed


def _changed_in_bucket(storage: str) -> dict[str, float]:
    found: Remote = open_remote(storage, "--storage")
    return {name: entry.changed / 1e9 for name, entry in found.folders_with(RUN_FILE).items()}
