"""A search on hosts of the lab: begun, killed, resumed, and its logs watched as they grow."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from macil.data import convert, write_demo
from tests.cluster.lab import DRIVER, PORT, Host, Lab

SMALL = ["--hidden-dim", "16", "--feedforward-dim", "16", "--batch-size", "12", "--max-snippets", "20"]
_LOST = re.compile(r"^(\d{5}|refit/seed\d+): (.*); trying again from its last checkpoint$")


def slow(seconds: float) -> dict[str, str]:
    """A patch: epochs that take a while without taking processors. No number depends on it."""
    code = (
        "import time as _time\n_train = Trainer.train_epoch\n"
        f"def train_epoch(self):\n    _time.sleep({seconds})\n    return _train(self)\n"
        "Trainer.train_epoch = train_epoch\n"
    )
    return {"tune.execution.trainable": code}


def small_store(lab: Lab) -> Path:
    """Made-up data on the storage that all hosts share."""
    layout = write_demo(
        lab.folder / "demo",
        train_videos=24,
        test_videos=10,
        min_snippets=8,
        max_snippets=30,
        visual_dim=64,
        audio_dim=16,
    )
    return convert(layout, lab.shared / "store")


@dataclass(frozen=True)
class Line:
    """An epoch in a trial's log.

    Attributes:
        trial: Folder below the run.
        seen: When it was first seen, in seconds of the monotonic clock.
        look: Number of the look at the logs that saw it.
    """

    trial: str
    epoch: int
    seen: float
    look: int
    content: dict[str, Any]

    @property
    def address(self) -> str:
        """The host that trained it."""
        return str(self.content["node_ip"])


@dataclass(frozen=True)
class WorkerFailure:
    """The search has reported that a trial's worker was lost.

    Attributes:
        trial: Folder below the run.
    """

    trial: str
    reason: str
    seen: float


class Search:
    """`python tune/search.py` on a cluster of the lab.

    Args:
        lab: Where.
        name: Of the run.

    Attributes:
        process: Its present life.
        host: Where that is.
        lines: Epochs in the logs as of the last `look`, in the order in which they were seen.
        worker_failures: Lost workers that it has reported.
    """

    def __init__(self, lab: Lab, name: str = "run") -> None:
        self.lab = lab
        self.name = name
        self.log = lab.folder / f"{name}.log"
        self.run = lab.shared / "runs" / name
        self.process: subprocess.Popen[bytes] | None = None
        self.host: Host | None = None
        self.lines: list[Line] = []
        self.worker_failures: list[WorkerFailure] = []
        self._looks = 0
        self._read: dict[Path, int] = {}

    def begin(self, head: Host, store: Path, *options: str) -> None:
        """Begin it on the head of a cluster."""
        self._start(
            head, "--data", str(store), *SMALL, *options, "--cpus-per-trial", "1", "--name", self.name
        )

    def resume(self, head: Host) -> None:
        """Go on with it on the head of a cluster, this or another."""
        self._start(head, "--resume", self.name)

    def _start(self, head: Host, *arguments: str) -> None:
        storage = [
            "--storage",
            str(self.run.parent),
            "--shared-storage",
            "--address",
            f"{head.address}:{PORT}",
        ]
        self.process = head.start(sys.executable, DRIVER, *arguments, *storage, log=self.log)
        self.host = head

    @property
    def code(self) -> int | None:
        """Exit status of its present life, None while it lives."""
        return None if self.process is None else self.process.poll()

    def kill(self) -> None:
        """Kill -9 of the driver, which must be alive."""
        assert self.host is not None
        assert self.process is not None
        (driver,) = self.host.processes(DRIVER)
        driver.kill()
        assert self.process.wait(timeout=30) != 0, "it had ended by itself"

    def look(self) -> list[Line]:
        """What is new in the logs and in the output of the search since the last look."""
        now = time.monotonic()
        self._looks += 1
        new = []
        for log in sorted(self.run.glob("*/*/result.json")):
            for text in self._new_lines(log):
                content = json.loads(text)
                trial = f"{log.parent.parent.name}/{log.parent.name}"
                new.append(Line(trial, int(content["epoch"]), now, self._looks, content))
        self.lines += new
        for text in self._new_lines(self.log):
            if found := _LOST.match(text):
                kind = "refit" if found[1].startswith("seed") else "trials"
                self.worker_failures.append(WorkerFailure(f"{kind}/{found[1]}", found[2], now))
        return new

    def _new_lines(self, file: Path) -> Iterator[str]:
        """Whole lines, each once; what is cut off later was no whole line."""
        at = self._read.get(file, 0)
        if not file.exists() or file.stat().st_size <= at:
            return
        with file.open("rb") as opened:
            opened.seek(at)
            new = opened.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read[file] = at + len(whole)
        yield from whole.decode(errors="replace").splitlines()

    def wait_for(self, reached: Callable[[], bool], seconds: float = 180.0) -> float:
        """Look until something has come true, which it must while the search lives; how many seconds that took."""
        began = time.monotonic()
        self.look()
        while not reached():
            assert self.code is None, f"it ended too early:\n{self.output}"
            assert time.monotonic() - began < seconds, (
                f"not within {seconds:g} s:\n{self.output}\n{self.lab.logs()}"
            )
            time.sleep(0.05)
            self.look()
        return time.monotonic() - began

    def finish(self, seconds: float = 400.0) -> str:
        """Wait for its end, which must be a success, and return its output."""
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while self.code is None and time.monotonic() < deadline:
            time.sleep(0.1)
            self.look()
        assert self.code == 0, f"exit status {self.code}\n{self.output}"
        return self.output

    @property
    def output(self) -> str:
        """The output of all its processes."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def unfinished(self, host: Host | None = None) -> list[str]:
        """Trials with epochs outstanding that run, on a host if one is given, as far as their logs say."""
        last = {line.trial: line for line in self.lines}
        return [
            trial
            for trial, line in last.items()
            if not line.content["done"] and (host is None or line.address == host.address)
        ]
