"""`python tune/search.py`: as a user runs it, a process of its own with real Ray and signals; and in this process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tune.commands.search
import tune.execution.launch
from macil.commands import cli
from tests.support.repository import INJECTED, ROOT, SEARCH_SCRIPT
from tune.planning.resolve import resolve_plan

SMALL = ["--hidden-dim", "16", "--feedforward-dim", "16", "--batch-size", "24", "--max-snippets", "20"]
# Tensors are tiny: a trial alone on two CPUs would have two threads, which wait for one another.
SMALL += ["--cpus-per-trial", "1"]


@dataclass
class Command:
    """A running command; its output goes to a file, since processes of a killed Ray hold a pipe open for minutes."""

    process: subprocess.Popen[str]
    log: Path


# Runs this module's own `search_in_lockstep` in a process of its own.
LOCKSTEP = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from {__name__} import search_in_lockstep
search_in_lockstep()
"""


def plan_in_lockstep(*given: Any) -> Any:
    """What a GPU decides, without one: a configuration's seeds are one trial."""
    return resolve_plan(*given).model_copy(update={"lockstep": True})


def search_in_lockstep() -> None:
    """The script, on such plans."""
    setattr(tune.execution.launch, "resolve_plan", plan_in_lockstep)  # noqa: B010 (it is imported there)
    tune.commands.search.main()


def search_here(*arguments: str, cwd: Path, lockstep: bool = False) -> tuple[int, str]:
    """Run the search in this process, on the Ray that it is connected to (fixture `shared_ray`).

    Args:
        arguments: Its command line.
        cwd: Where.
        lockstep: Train seeds together, as on a GPU.

    Returns:
        Exit status and output.
    """
    output = io.StringIO()
    with ExitStack() as stack:
        stack.enter_context(contextlib.chdir(cwd))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(sys, "argv", [str(SEARCH_SCRIPT), *arguments])
        if lockstep:
            patch.setattr(tune.execution.launch, "resolve_plan", plan_in_lockstep)
        for redirected in (contextlib.redirect_stdout, contextlib.redirect_stderr):
            stack.enter_context(redirected(output))
        with pytest.raises(SystemExit) as stop:
            cli.main(tune.commands.search.search, list(arguments))
    text = output.getvalue()
    assert "Traceback" not in text, text
    return int(stop.value.code or 0), text


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
