"""`python tune/search.py` as a user runs it: in a process of its own, with real Ray, trainings and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.repository import INJECTED, ROOT, SEARCH_SCRIPT

SMALL = ["--hidden-dim", "16", "--feedforward-dim", "16", "--batch-size", "24", "--max-snippets", "20"]


@dataclass
class Command:
    """A running command; its output goes to a file, since processes of a killed Ray hold a pipe open for minutes."""

    process: subprocess.Popen[str]
    log: Path


# What a GPU decides, without one: a configuration's seeds are one trial.
LOCKSTEP = f"""
import dataclasses, sys
sys.path.insert(0, {str(ROOT)!r})
import tune.search
resolve = tune.search.resolve_plan
tune.search.resolve_plan = lambda *given: dataclasses.replace(resolve(*given), lockstep=True)
tune.search.main()
"""


def start(
    *arguments: str,
    cwd: Path,
    lockstep: bool = False,
    patch: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
) -> Command:
    """Start the search.

    Args:
        arguments: Its command line.
        cwd: Where; its output goes to a file there.
        lockstep: Train seeds together, as on a GPU.
        patch: Module -> code to run in it when it has been imported (tests/injected).
        variables: Environment variables.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {**(variables or {}), "OMP_NUM_THREADS": "1"}
    if patch:
        environment |= {"PYTHONPATH": str(INJECTED), "MACIL_TEST_PATCH": json.dumps(patch)}
    log = cwd / f"{uuid.uuid4().hex}.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *(["-c", LOCKSTEP] if lockstep else [str(SEARCH_SCRIPT)]), *arguments],
            cwd=cwd,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    return Command(process, log)


def finish(command: Command) -> tuple[int, str]:
    code = command.process.wait(timeout=240)
    output = command.log.read_text()
    assert "Traceback" not in output, output
    return code, output


def stop_when(command: Command, reached: Callable[[], bool], number: signal.Signals, *, group: bool) -> None:
    """Send a signal as soon as the run has got so far."""
    deadline = time.monotonic() + 120
    while not reached():
        assert command.process.poll() is None, f"ended before it could be stopped:\n{command.log.read_text()}"
        assert time.monotonic() < deadline, "the run did not get so far in two minutes"
        time.sleep(0.002)
    (os.killpg if group else os.kill)(command.process.pid, number)


def lines_of(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def info(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "run.json").read_text())
    return content
