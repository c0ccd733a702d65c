"""What the fault tests share: commands in processes of their own, disks that fill up, bits that flip."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.repository import ROOT

MACIL = "from macil.__main__ import main; main()"
REPORT = "from tune.commands.report import main; main()"
SEARCH = "from tune.commands.search import main; main()"


def pause(function: str, calls: int, go: Path | None = None) -> str:
    """Code that holds the process at a function ("module:name") after so many calls of it, until `go` exists."""
    module, _, name = function.partition(":")
    owner, _, name = name.rpartition(".")
    there = "False" if go is None else f"os.path.exists({str(go)!r})"
    return f"""
import importlib, os, time
def hold():
    owner = importlib.import_module({module!r}){"." + owner if owner else ""}
    function, calls = owner.{name}, [0]
    def held(*given, **named):
        while calls[0] >= {calls} and not {there}:
            time.sleep(0.005)
        calls[0] += 1
        return function(*given, **named)
    owner.{name} = held
hold()
"""


# Makes a line of the code the one where the process is killed, by itself and with no chance to tidy up.
DIE = """
import os, signal
def die(*given, **named):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@dataclass
class Command:
    """A running command line; its output goes to files."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def finish(self) -> Ended:
        code = self.process.wait(timeout=240)
        return Ended(code, self.out.read_text(), self.err.read_text())

    def kill_when(self, reached: Callable[[], bool]) -> None:
        """SIGKILL as soon as it has got so far, which it must while it is alive."""
        self.wait_for(reached)
        os.kill(self.process.pid, signal.SIGKILL)
        assert self.process.wait() == -signal.SIGKILL, "it had ended by itself"

    def wait_for(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not reached():
            assert self.process.poll() is None, (
                f"ended too early:\n{self.out.read_text()}{self.err.read_text()}"
            )
            assert time.monotonic() < deadline, "it did not get so far in two minutes"
            time.sleep(0.001)
        assert self.process.poll() is None


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def done(self) -> Ended:
        assert self.code == 0, self.out + self.err
        assert "Traceback" not in self.err
        return self

    def refused(self, *messages: object) -> Ended:
        """It failed as documented, and named all of these."""
        assert self.code in (1, 2), f"exit status {self.code}\n{self.out}{self.err}"
        assert "Traceback" not in self.err
        assert "internal error" not in self.err
        for text in messages:
            assert str(text) in self.err, f"{text} is not in:\n{self.err}"
        return self

    def killed(self) -> Ended:
        assert self.code == -signal.SIGKILL, f"exit status {self.code}\n{self.out}{self.err}"
        return self


def start(main: str, *arguments: object, logs: Path, before: str = "", **environment: str) -> Command:
    """Run `main` (one of the above) with a command line in a process of its own, after the code `before`."""
    name = uuid.uuid4().hex
    out, err = logs / f"{name}.out", logs / f"{name}.err"
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{before}\n{main}"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    return Command(process, out, err)


def run(main: str, *arguments: object, logs: Path, before: str = "", **environment: str) -> Ended:
    """As `start`, to its end."""
    return start(main, *arguments, logs=logs, before=before, **environment).finish()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def half_written(folder: Path) -> list[str]:
    """Files and folders that only a process at work may have."""
    marks = (".tmp", ".partial", ".old", ".lock", ".writing")
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.name.endswith(marks)
    )


def flip(path: Path, position: float) -> None:
    """Flip a bit of the byte at this share of a file."""
    content = bytearray(path.read_bytes())
    content[int(position * (len(content) - 1))] ^= 16
    path.write_bytes(content)


@dataclass(frozen=True)
class SmallDisk:
    """A file system of its own."""

    path: Path

    def fill(self, leave: int = 0) -> None:
        """Leave room for so many bytes."""
        with (self.path / ".filler").open("ab", buffering=0) as file:
            while (room := self._free() - leave) > 0:
                try:
                    file.write(b"x" * min(room, 2**20))
                except OSError:  # another process was faster
                    return

    def make_room(self) -> None:
        (self.path / ".filler").unlink()

    def _free(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_bsize


@contextlib.contextmanager
def small_disk(folder: Path, size: str, options: str = "") -> Iterator[SmallDisk]:
    """Mount a disk of `size` ("24m"); skips the test where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}{options}", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
