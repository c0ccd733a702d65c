"""Errors that a user can cause, as exceptions whose text is the whole message."""

from __future__ import annotations

import os
from collections.abc import Sequence


class MacilError(Exception):
    """Root of every error meant for people; the command line prints its text and leaves with `exit_code`."""

    exit_code = 1


class UsageError(MacilError):
    """The command or the configuration asks for something impossible."""

    exit_code = 2


class WriteError(UsageError):
    """A file cannot be written: the disk is full, or the system refuses.

    Args:
        path: The file.
        reason: Why, and what to do.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.path, self.reason = os.fspath(path), reason
        super().__init__(f"cannot write {self.path}: {reason}")

    def __reduce__(self) -> tuple[type[WriteError], tuple[str, str]]:
        return type(self), (self.path, self.reason)


class ConfigError(UsageError, ValueError):
    """A hyperparameter is unknown, of the wrong type, out of range, or at odds with another one."""


class DataError(MacilError):
    """The data, a store, a checkpoint or a run folder is not what it should be.

    Args:
        message: What is wrong, where, what was expected and what to do.
        problems: Further faults, one line each, printed as a list below the message.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        self.message = message
        self.problems = tuple(problems)
        super().__init__("\n".join([message, *(f"  - {problem}" for problem in problems)]))

    def __reduce__(self) -> tuple[type[DataError], tuple[str, tuple[str, ...]]]:
        # Exceptions cross process boundaries in a search; the default would lose `problems`.
        return type(self), (self.message, self.problems)


class DivergedError(MacilError):
    """A training went to NaN or to constant scores: it has no result that could be ranked."""
