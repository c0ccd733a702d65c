"""A worker failure is one trial's, whatever Ray calls it and whatever the worker was doing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle, tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import (
    ActorDiedError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfDiskError,
    OutOfMemoryError,
    RaySystemError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.tune.execution.tune_controller import TuneController

from macil.errors import MacilError
from tune.execution.ray_internals import check
from tune.execution.session import ROOT
from tune.execution.worker_failures import WorkerLostError, as_worker_failure, tolerating_worker_failures

EPOCHS, HELD = 8, 5
GIB = 2**30

# The driver has a process of its own: the memory monitor is set up by the environment, when Ray starts.
_DRIVER = """
import contextlib, json, sys
from pathlib import Path
from tune.execution.session import quiet_ray, ray_running
from tune.planning.resources import Machine
quiet_ray()
from ray import cloudpickle, tune
from tests.tune.execution.test_worker_failures import Chain
from tune.execution.worker_failures import tolerating_worker_failures

options = json.loads(sys.argv[1])
folder = Path(options["folder"])
tolerating = tolerating_worker_failures() if options["tolerated"] else contextlib.nullcontext()
with ray_running(None, Machine(cpus=2, gpus=0), debug=False), tolerating:
    analysis = tune.run(
        Chain,
        config={"trial": tune.grid_search(list(range(options["trials"]))), **options},
        storage_path=str(folder),
        name="run",
        resources_per_trial={"cpu": 1},
        max_concurrent_trials=options["concurrent"],
        max_failures=9,
        reuse_actors=True,
        raise_on_failed_trial=False,
        checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
        verbose=0,
    )
    found = {}
    for trial in analysis.trials:
        error = trial.pickled_error_file and cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        found[trial.config["trial"]] = {
            "status": trial.status,
            "failures": trial.run_metadata.num_failures,
            "value": trial.last_result.get("value"),
            "error": type(error).__name__,
            "text": str(error),
        }
    (folder / "found.json").write_text(json.dumps(found))
"""

# Takes memory, bit by bit, until one of the processes has ended; then gives it back at once.
_EATER = """
import sys, time
def alive(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
most, pids, eaten, end = int(sys.argv[1]), sys.argv[2:], [], time.monotonic() + 60
while all(map(alive, pids)) and time.monotonic() < end:
    if len(eaten) * 2**26 < most:
        eaten.append(bytearray(b"x") * 2**26)
    time.sleep(0.01)
sys.exit(all(map(alive, pids)))
"""


def after(trial: int, epochs: int) -> int:
    """A number that depends on every epoch, in order."""
    value = trial
    for epoch in range(1, epochs + 1):
        value = (value * 6364136223846793005 + epoch) % 2**61
    return value


class Chain(tune.Trainable):
    """Counts, and is killed where its configuration says so; each epoch is logged with the process that made it."""

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)
        if config["trial"] > 0:
            self._perhaps_killed("setup")

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        self._perhaps_killed("reset")
        if self._once("raise in reset"):
            raise ValueError("no such store")
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._own, self._folder = config, Path(config["folder"])
        self._epoch, self._value = 0, config["trial"]

    def step(self) -> dict[str, Any]:
        trial, epoch = self._own["trial"], self._epoch + 1
        if epoch == HELD and self._own["held"]:
            (self._folder / f"held_{trial}").write_text(str(os.getpid()))
            while not (self._folder / "freed").exists():
                time.sleep(0.02)
        if epoch > 2:
            self._perhaps_killed("step")
        self._value = (self._value * 6364136223846793005 + epoch) % 2**61
        self._epoch = epoch
        with (self._folder / f"log_{trial}").open("a") as log:
            print(os.getpid(), epoch, file=log)
        return {"value": self._value, "done": epoch == EPOCHS}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        if self._epoch > 4:
            self._perhaps_killed("save")
        Path(checkpoint_dir, "state").write_text(f"{self._epoch} {self._value}")

    def load_checkpoint(self, checkpoint: Any) -> None:
        self._perhaps_killed("restore")
        self._epoch, self._value = map(int, Path(checkpoint, "state").read_text().split())

    def cleanup(self) -> None:
        self._perhaps_killed("stop")

    def _perhaps_killed(self, where: str) -> None:
        if self._once(where):
            os.kill(os.getpid(), signal.SIGKILL)

    def _once(self, where: str) -> bool:
        if where not in self._own["faults"]:
            return False
        try:
            (self._folder / f"fault {where}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


@contextlib.contextmanager
def driving(
    folder: Path, variables: dict[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    options = {"folder": str(folder), "held": False, "faults": [], "tolerated": True, **options}
    # To a file: processes of a killed Ray hold a pipe open for long.
    with (folder / "output").open("w") as output:
        driver = subprocess.Popen(
            [sys.executable, "-c", _DRIVER, json.dumps(options)],
            cwd=ROOT,
            env={**os.environ, **(variables or {})},
            stdout=output,
            stderr=output,
            text=True,
        )
    try:
        yield driver
    finally:
        driver.kill()
        driver.wait()


def found(folder: Path, driver: subprocess.Popen[str]) -> dict[int, dict[str, Any]]:
    assert driver.wait(timeout=240) == 0, (folder / "output").read_text()
    return {int(key): value for key, value in json.loads((folder / "found.json").read_text()).items()}


def log_of(folder: Path, trial: int) -> list[tuple[int, int]]:
    """Process and number of each epoch."""
    lines = (folder / f"log_{trial}").read_text().splitlines()
    return [(int(process), int(epoch)) for process, epoch in map(str.split, lines)]


def assert_finished(folder: Path, trials: dict[int, dict[str, Any]]) -> None:
    for trial, ended in trials.items():
        assert ended["status"] == "TERMINATED", ended
        assert ended["value"] == after(trial, EPOCHS)
        assert sorted({epoch for _, epoch in log_of(folder, trial)}) == list(range(1, EPOCHS + 1))


def memory_of(name: str) -> int:
    """Bytes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def memory_short(folder: Path, *, one_worker: bool, tolerated: bool = True) -> dict[int, dict[str, Any]]:
    """Two trials are in the middle of an epoch when something else takes the machine's memory."""
    total, available = memory_of("MemTotal"), memory_of("MemAvailable")
    if available < 4 * GIB:
        pytest.skip("needs 4 GiB of free memory")
    variables = {
        # Others on this machine may come and go meanwhile.
        "RAY_memory_usage_threshold": f"{1 - 0.7 * available / total:.4f}",
        "RAY_memory_monitor_refresh_ms": "1000",
        # Otherwise it ends as many workers as would make good what is missing, and 5 % of the memory.
        "RAY_worker_killing_policy_by_group": str(one_worker).lower(),
    }
    with driving(folder, variables, trials=2, concurrent=2, held=True, tolerated=tolerated) as driver:
        marks = [folder / "held_0", folder / "held_1"]
        deadline = time.monotonic() + 120
        while not all(mark.exists() and mark.read_text() for mark in marks):
            assert driver.poll() is None, (folder / "output").read_text()
            assert time.monotonic() < deadline, "the trials did not get so far in two minutes"
            time.sleep(0.05)
        pids = [mark.read_text() for mark in marks]
        assert [[epoch for _, epoch in log_of(folder, trial)] for trial in (0, 1)] == [
            list(range(1, HELD))
        ] * 2
        most = str(int(0.6 * available))
        eater = subprocess.run([sys.executable, "-c", _EATER, most, *pids], check=False)
        assert eater.returncode == 0, "the memory monitor ended no worker"
        (folder / "freed").touch()
        return found(folder, driver)


@pytest.mark.ray
@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux", reason="Ray's memory monitor is there on Linux only")
@pytest.mark.parametrize("one_worker", [True, False])
def test_a_worker_that_the_memory_monitor_ends_is_one_failure_of_its_trial(
    one_worker: bool, tmp_path: Path
) -> None:
    trials = memory_short(tmp_path, one_worker=one_worker)
    assert_finished(tmp_path, trials)
    lost = [trial for trial, ended in trials.items() if ended["failures"]]
    assert len(lost) == 1 if one_worker else lost
    for trial in (0, 1):
        epochs = log_of(tmp_path, trial)
        assert [epoch for _, epoch in epochs] == list(range(1, EPOCHS + 1)), "went on where it was saved"
        assert len({process for process, _ in epochs}) == (2 if trial in lost else 1)
    for trial in lost:
        assert trials[trial]["failures"] == 1
        assert trials[trial]["error"] == "WorkerLostError"
        *_, reason = trials[trial]["text"].splitlines()
        assert reason.startswith("OutOfMemoryError: ")
        assert "memory" in reason
        assert trials[trial]["text"].count("\n") > 3, "the whole of what Ray says"


@pytest.mark.ray
@pytest.mark.nightly
def test_a_worker_killed_at_whatever_it_does_is_one_failure_of_its_trial(tmp_path: Path) -> None:
    faults = ["setup", "reset", "raise in reset", "step", "save", "restore", "stop"]
    with driving(tmp_path, trials=5, concurrent=1, faults=faults) as driver:
        trials = found(tmp_path, driver)
    assert {path.name for path in tmp_path.glob("fault *")} == {f"fault {fault}" for fault in faults}
    assert_finished(tmp_path, trials)
    # Whoever is killed when it is no longer needed is no failure.
    assert sum(ended["failures"] for ended in trials.values()) == len(faults) - 1


@pytest.mark.ray
@pytest.mark.mutation
@pytest.mark.skipif(sys.platform != "linux", reason="Ray's memory monitor is there on Linux only")
def test_without_it_the_memory_monitor_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"RuntimeError: Caught unexpected exception: .*memory"):
        memory_short(tmp_path, one_worker=True, tolerated=False)


@pytest.mark.ray
@pytest.mark.mutation
@pytest.mark.parametrize("fault", ["reset", "raise in reset"])
def test_without_it_a_trial_that_is_handed_a_dying_worker_has_failed(fault: str, tmp_path: Path) -> None:
    with driving(tmp_path, trials=3, concurrent=1, faults=[fault], tolerated=False) as driver:
        trials = found(tmp_path, driver)
    assert sorted(ended["status"] for ended in trials.values()) == ["ERROR", "TERMINATED", "TERMINATED"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            OutOfMemoryError("1 worker(s) were killed\nMemory on the node: 23 GB"),
            "OutOfMemoryError: 1 worker(s) were",
        ),
        (NodeDiedError("the node is gone"), "NodeDiedError: the node is gone"),
        (NodeDiedError(""), "NodeDiedError: Ray gives no reason"),
        (WorkerCrashedError(), "WorkerCrashedError: The worker died unexpectedly"),
        (LocalRayletDiedError(), "LocalRayletDiedError: The task's local raylet died."),
        (ObjectLostError("ab", None, ""), "ObjectLostError: Failed to retrieve object ab."),
        (
            RaySystemError("the worker did not start"),
            "RaySystemError: System error: the worker did not start",
        ),
        (OutOfDiskError("full"), "OutOfDiskError: full"),
    ],
)
def test_what_ray_says_of_a_worker_failure_is_kept_and_said_in_short_at_its_end(
    error: Exception, reason: str
) -> None:
    failure = cloudpickle.loads(cloudpickle.dumps(as_worker_failure(error)))  # as Tune keeps it
    assert isinstance(failure, WorkerLostError)
    assert str(failure).splitlines()[-1].startswith(reason)
    assert str(failure).startswith(str(error))


@pytest.mark.parametrize(
    "error", [ActorDiedError(), RayTaskError("step", "…", ValueError(1)), ValueError(1), OSError(28, "full")]
)
def test_a_dead_actor_a_trials_own_exception_and_the_drivers_are_told_as_they_are(error: Exception) -> None:
    assert as_worker_failure(error) is error


def test_tune_is_as_before_afterwards() -> None:
    before = RayActorManager._actor_task_failed, TuneController._trial_task_failure
    with contextlib.suppress(ZeroDivisionError), tolerating_worker_failures():
        assert RayActorManager._actor_task_failed is not before[0]
        assert TuneController._trial_task_failure is not before[1]
        raise ZeroDivisionError
    assert (RayActorManager._actor_task_failed, TuneController._trial_task_failure) == before


def test_a_ray_of_another_shape_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(self: Any, tracked_actor: Any, reason: str) -> None: ...

    monkeypatch.setattr(RayActorManager, "_actor_start_failed", other)
    monkeypatch.delattr(TuneController, "_trial_task_failure")
    with pytest.raises(MacilError) as raised:
        check()
    assert "RayActorManager._actor_start_failed(…, exception), " in str(raised.value)
    assert "TuneController._trial_task_failure(…, exception): this program relies on" in str(raised.value)
    assert "pip install 'ray==2.60.0'" in str(raised.value)
