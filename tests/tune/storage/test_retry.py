from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from macil.errors import UsageError
from tune.storage.retry import RETRY_VARIABLE, StorageError, append_whole, trouble, with_retry


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_trouble_is_found_behind_what_was_made_of_it() -> None:
    try:
        try:
            raise full()
        except OSError:
            raise UsageError("cannot write") from None
    except UsageError as error:
        found = trouble(error)
    assert found is not None
    assert found.errno == errno.ENOSPC
    assert trouble(ValueError()) is None
    assert trouble(PermissionError(errno.EACCES, "no")) is None, "waiting would not help"


def test_it_waits_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune.storage.retry._PAUSE", 0.001)
    refusals = [full(), full(), full()]
    messages: list[str] = []

    def write() -> int:
        if refusals:
            raise refusals.pop()
        return 7

    assert with_retry(write, "x", log=messages.append) == 7
    assert messages[0] == "cannot write x: No space left on device; waiting for the storage"
    assert len(messages) == 2, "once a minute"


def test_it_gives_up_after_the_time_to_retry_or_when_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune.storage.retry._PAUSE", 0.001)

    def refuse() -> None:
        raise full()

    with pytest.raises(StorageError, match="cannot write x: No space left on device"):
        with_retry(refuse, "x", log=lambda _: None, stop=lambda: True)
    monkeypatch.setenv(RETRY_VARIABLE, "0.01")
    with pytest.raises(StorageError, match="go on with --resume"):
        with_retry(refuse, "x", log=lambda _: None)


def test_other_errors_are_not_waited_for() -> None:
    def fail() -> None:
        raise ValueError("no number")

    with pytest.raises(ValueError, match="no number"):
        with_retry(fail, "x")


def test_a_line_is_appended_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    append_whole(log, "one\n")
    append_whole(log, "zwölf\n")
    assert log.read_text(encoding="utf-8") == "one\nzwölf\n"
    real = os.write
    monkeypatch.setattr("tune.storage.retry.os.write", lambda descriptor, data: real(descriptor, data[:3]))
    with pytest.raises(OSError, match="No space left"):
        append_whole(log, "three\n")
    monkeypatch.undo()
    assert log.read_text(encoding="utf-8") == "one\nzwölf\n"
