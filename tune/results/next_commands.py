"""Commands about a run, to be pasted, and how a run is named on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from macil.io.command_line import command_line
from macil.io.remote import Remote, is_uri

SEARCH, REPORT = "tune/search.py", "tune/report.py"


def begin_command(flags: Mapping[str, Any], name: str, storage: str, address: str | None) -> str:
    """The command that begins a run called `name` with other flags (as `Options.flags` has them)."""
    arguments = [word for flag, value in flags.items() for word in _typed(flag, value)]
    return command_line(SEARCH, *arguments, "--name", name, "--storage", storage, *_cluster(address, storage))


def resume_command(location: str, address: str | None) -> str:
    """The command that goes on with the run at `location`, a path or a URI, here or on the cluster at `address`."""
    name, storage = name_and_storage(location)
    return command_line(SEARCH, "--resume", name, "--storage", storage, *_cluster(address, storage))


def replay_command(location: str, trial: str) -> str:
    """The command that trains a trial of the run at `location` again."""
    return command_line(SEARCH, "--replay", location, trial)


def report_command(*runs: str, out: Path | None = None) -> str:
    """The command that writes the report of runs, each a path or a URI."""
    arguments: list[str | Path] = [location if is_uri(location) else Path(location) for location in runs]
    return command_line(REPORT, *arguments, *(("--out", out) if out else ()))


def open_command(page: Path) -> str:
    """The command that shows a page in this machine's browser."""
    return command_line("webbrowser", "-t", page.absolute().as_uri())


def name_and_storage(location: str) -> tuple[str, str]:
    """Name and storage of the run at `location`, a path or a URI."""
    if is_uri(location):
        return Remote(location).name, Remote(location).parent.uri
    return Path(location).name, str(Path(location).parent)


def _typed(flag: str, value: Any) -> list[str]:
    if flag == "--asha":  # of an earlier version
        return ["--asha" if value else "--no-asha"]
    if flag == "--search":  # recorded as one text
        return [word for each in str(value).split() for word in (flag, each)]
    return [flag, str(value)]


def _cluster(address: str | None, storage: str) -> list[str]:
    if address is None:
        return []
    return ["--address", address, *([] if is_uri(storage) else ["--shared-storage"])]
