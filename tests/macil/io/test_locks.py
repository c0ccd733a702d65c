from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from macil.errors import UsageError, WriteError
from macil.io.locks import exclusive, in_use

HOLD = """
import sys, time
from pathlib import Path
from macil.io.locks import exclusive, in_use
with exclusive(Path(sys.argv[1]), "holding"):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_leaves_nothing_behind_however_its_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive(path, "working") as held:
        assert held == (False, False)
        assert path.exists()
    with pytest.raises(ZeroDivisionError), exclusive(path, "working"):
        _ = 1 / 0
    assert not path.exists()
    with exclusive(path, "working") as held:
        assert not held.cut_short


@pytest.mark.nightly
def test_the_lock_of_a_killed_process_is_free_and_tells_of_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold(path) as process:
        with (
            pytest.raises(UsageError, match="another process is working"),
            exclusive(path, "working", wait=False),
        ):
            pass
        assert process.poll() is None
        process.kill()
    with exclusive(path, "working") as held:
        assert held == (True, False)
    with exclusive(path, "working") as held:
        assert held == (False, False)


def test_who_waited_keeps_out_whoever_comes_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file that it waited for was removed by its holder: a lock on that one would keep nobody out."""
    path, inside, leave = tmp_path / "lock", threading.Event(), threading.Event()
    waited = []

    def wait() -> None:
        with exclusive(path, "working") as held:
            waited.append(held.waited)
            inside.set()
            leave.wait(60)

    with exclusive(path, "working"):
        thread = threading.Thread(target=wait)
        thread.start()
        while "waiting for it" not in capsys.readouterr().err:
            time.sleep(0.01)
    assert inside.wait(60)
    with pytest.raises(UsageError, match="another process"), exclusive(path, "working", wait=False):
        pass
    leave.set()
    thread.join()
    assert waited == [True]
    assert not path.exists()


def test_a_folder_that_cannot_be_written_is_reported_and_not_waited_for() -> None:
    with pytest.raises(WriteError, match="cannot write /proc/lock"), exclusive(Path("/proc/lock"), "working"):
        pass


def test_a_file_in_use_says_by_whom_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with in_use(path, "run 'a'"):
        with (
            pytest.raises(
                UsageError, match=rf"run 'a' is in use by process {os.getpid()} on .+; wait for it"
            ),
            in_use(path, "run 'a'"),
        ):
            pass
        assert path.read_text().startswith(f"process {os.getpid()} on ")
    assert path.exists()
    with in_use(path, "run 'a'"):
        pass


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_written_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with exclusive(tmp_path / "lock", "working") as held, exclusive(tmp_path / "lock", "working"):
        assert held == (False, False)
    assert list(tmp_path.iterdir()) == []
