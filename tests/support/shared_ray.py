"""One Ray for all tests that need no Ray of their own: its start and its end cost more than most of them."""

from __future__ import annotations

import contextlib
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from tune.execution.session import quiet_ray, ray_running
from tune.planning.resources import Machine

CPUS = 2


class SharedRay:
    """A local Ray that is started when it is first wanted, and again after it was ended for a test."""

    def __init__(self, together: Path) -> None:
        """`together` is a folder that all processes of this test run share."""
        self._running: ExitStack | None = None
        self._owner = together / "process-with-ray"

    def start(self) -> None:
        """Connect this process to it: a search in this process takes the Ray that is there."""
        if self._running is None:
            mine = str(os.getpid())
            with contextlib.suppress(FileExistsError), self._owner.open("x") as file:
                file.write(mine)
            assert self._owner.read_text() == mine, (
                "tests with Ray share a process: tests/support/distribution.py"
            )
            quiet_ray()
            with pytest.MonkeyPatch.context() as environment, ExitStack() as stack:
                environment.setenv("OMP_NUM_THREADS", "1")  # its workers inherit that
                stack.enter_context(ray_running(None, Machine(cpus=CPUS, gpus=0), debug=False))
                self._running = stack.pop_all()

    def stop(self) -> None:
        """End it."""
        if self._running is not None:
            self._running.close()
            self._running = None
