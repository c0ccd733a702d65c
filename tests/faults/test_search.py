"""Searches that are killed, stopped, starved and misled, each in processes of its own; nothing finished is lost.

Every fault has a scenario, which is run as it is, and again with the safeguard taken away (`-m mutation`): there it
must fail. Kills at exact moments are kills of the process by itself, put in by `tests/injected`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from macil.data.store.feature_store import FeatureStore
from tests.support.promise import Digits, assert_kept, assert_replays, assert_whole, digits, rows
from tests.support.repository import INJECTED, SEARCH_SCRIPT
from tests.support.search_command import Command, finish, info, lines_of, start, stop_when
from tune.results.run import load_run
from tune.storage.history import read_history
from tune.storage.retry import RETRY_VARIABLE

pytestmark = [pytest.mark.ray]
nightly = pytest.mark.nightly
Patch = dict[str, str]

EPOCHS, TRIALS = 12, 7
SMALL = ["--hidden-dim", "16", "--feedforward-dim", "16", "--batch-size", "12", "--max-snippets", "20"]
SMALL += ["--cpus-per-trial", "1"]
SEARCH = [*SMALL, "--epochs", str(EPOCHS), "--grace", "3", "--trials", str(TRIALS), "--no-report"]
ALONE = [*SEARCH, "--concurrent", "1"]

# A save is due after each epoch, so that a loss has a checkpoint to go on from.
SAVE_OFTEN = {"tune.execution.save_policy": "def is_save_due(cost, seconds, epochs):\n    return True\n"}
SAVE_NEVER = {"tune.execution.save_policy": "def is_save_due(cost, seconds, epochs):\n    return False\n"}


def slow(seconds: float) -> Patch:
    """Epochs long enough to be interrupted in."""
    return _step(f"    import time\n    time.sleep({seconds})\n")


def misbehave(number: int, epoch: int, what: str) -> Patch:
    """A trial does something in an epoch: `what` is a statement."""
    return _step(f"    if self.config.get('number') == {number} and self._next == {epoch}:\n        {what}\n")


def everyone(what: str) -> Patch:
    return _step(f"    {what}\n")


def _step(body: str) -> Patch:
    return {
        "tune.execution.trainable": "_step = MacilTrainable.step\n"
        "def step(self):\n"
        "    reported = self._reported if self._trainer is not None else None\n"
        "    self._next = 1 + (self.iteration if reported is None else min(reported, self._trainer.epoch))\n"
        f"{body}"
        "    return _step(self)\n"
        "MacilTrainable.step = step\n"
    }


def together(*patches: Patch) -> Patch:
    result: Patch = {}
    for patch in patches:
        for module, code in patch.items():
            result[module] = result.get(module, "") + code
    return result


@pytest.fixture(scope="module")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def unbroken(session_folder: Path, demo_store: FeatureStore) -> Path:
    """One trial at a time, disturbed by nobody."""
    code, output = finish(
        start("--data", str(demo_store.path), *ALONE, "--name", "unbroken", cwd=session_folder)
    )
    assert code == 0, output
    return session_folder / "runs" / "unbroken"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def begin(
    folder: Path, store: FeatureStore, *arguments: str, patch: Patch, variables: Patch | None = None
) -> Command:
    own = ["--data", str(store.path), *arguments, "--name", "run"]
    return start(*own, cwd=folder, patch=patch, variables=variables)


def resume(folder: Path, patch: Patch | None = None, *, report: bool = False) -> str:
    code, output = finish(start("--resume", "run", *["--no-report"][report:], cwd=folder, patch=patch))
    assert code == 0, output
    return output


def logged(folder: Path, number: int) -> int:
    return len(lines_of(folder / f"runs/run/trials/{number:05d}/result.json"))


def notes_of(folder: Path, number: int) -> list[str]:
    """What a trial's workers had to say."""
    notes = folder / f"runs/run/trials/{number:05d}/notes.txt"
    return notes.read_text().splitlines() if notes.exists() else []


def killed_by_itself(command: Command) -> None:
    """The process killed itself where the test put that; before it had ended."""
    assert command.process.wait(timeout=120) == -signal.SIGKILL, command.log.read_text()


def assert_same(folder: Path, unbroken: Path) -> None:
    run = folder / "runs" / "run"
    assert digits(run) == digits(unbroken)
    assert rows(run) == rows(unbroken)
    assert info(run)["winner"] == info(unbroken)["winner"]


# --- the driver -----------------------------------------------------------------------------------------------

KILL = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
# Moments between two writes that belong together, of a trial in the middle of the search.
MOMENTS = {
    "a suggestion half written": {
        "tune.algorithms.study": "_set = Trial.set_user_attr\n"
        "def set_user_attr(self, key, value):\n"
        f"    if key == TRIAL_ID and self.number == 3:\n        {KILL}\n"
        "    return _set(self, key, value)\n"
        "Trial.set_user_attr = set_user_attr\n"
    },
    "an epoch in the study and not in the log": {
        "tune.execution.epoch_log": "_on = RunRecorder.on_trial_result\n"
        "def on(self, iteration, trials, trial, result, **rest):\n"
        f"    if trial.config['number'] == 3 and result[TIME] == 2:\n        {KILL}\n"
        "    return _on(self, iteration, trials, trial, result, **rest)\n"
        "RunRecorder.on_trial_result = on\n"
    },
    "half a line in the log": {
        "tune.execution.epoch_log": "_append = append_whole\n"
        "def append_whole(path, text):\n"
        "    if path.parent.name == '00003' and '\"epoch\": 3,' in text:\n"
        f"        path.open('a').write(text[:40])\n        {KILL}\n"
        "    return _append(path, text)\n"
    },
    "a last epoch logged and not saved": {
        "tune.execution.epoch_log": "_on = RunRecorder.on_trial_result\n"
        "def on(self, iteration, trials, trial, result, **rest):\n"
        "    _on(self, iteration, trials, trial, result, **rest)\n"
        f"    if trial.config['number'] == 3 and result.get('done'):\n        {KILL}\n"
        "RunRecorder.on_trial_result = on\n"
    },
    "a trial saved and not in the study": {
        "tune.algorithms.study": "_end = SearchStudy.end\n"
        "def end(self, trial_id, *given):\n"
        f"    if self._trials[trial_id].number == 3:\n        {KILL}\n"
        "    return _end(self, trial_id, *given)\n"
        "SearchStudy.end = end\n"
    },
}


@nightly
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_driver_killed_between_two_writes_goes_on_as_if_nothing_had_happened(
    moment: str, folder: Path, unbroken: Path, demo_store: FeatureStore
) -> None:
    killed_by_itself(begin(folder, demo_store, *ALONE, patch=MOMENTS[moment]))
    before = digits(folder / "runs" / "run")
    assert len(before) < TRIALS, "there should be work outstanding"
    output = resume(folder)
    assert f"resuming {TRIALS} trials: " in output
    assert_kept(before, digits(folder / "runs" / "run"))
    assert_same(folder, unbroken)


def driver_killed(folder: Path, store: FeatureStore, unbroken: Path, patch: Patch) -> None:
    """Killed when the first trial that ASHA stops has begun: its rung must hold the trials before."""
    (number,) = stopped_trials(unbroken)[:1]
    command = begin(folder, store, *ALONE, patch=slow(0.05))
    stop_when(command, lambda: logged(folder, number) >= 1, signal.SIGKILL, group=False)
    assert command.process.wait() == -signal.SIGKILL
    before = digits(folder / "runs" / "run")
    assert len(before[f"trials/{number:05d}"]) < EPOCHS
    resume(folder, patch)
    assert_kept(before, digits(folder / "runs" / "run"))
    assert_same(folder, unbroken)


def killed_before_the_study_was_told(folder: Path, store: FeatureStore, unbroken: Path, patch: Patch) -> None:
    """The trial's folder says how it ended; the study does not."""
    killed_by_itself(begin(folder, store, *ALONE, patch=MOMENTS["a trial saved and not in the study"]))
    resume(folder, patch)
    assert_same(folder, unbroken)


def killed_in_a_write(folder: Path, store: FeatureStore, unbroken: Path, patch: Patch) -> None:
    """With half of run.json written."""
    half = {
        "macil.io.files": "def write_text_atomic(path, text):\n    with atomic_path(path) as temporary:\n"
        "        temporary.write_text(text[: len(text) // 2])\n"
        "        if Path(path).name == 'run.json' and '\"phase\": \"refit\"' in text:\n"
        f"            {KILL}\n        temporary.write_text(text)\n"
    }
    # The safeguard first: the kill goes through it.
    killed_by_itself(begin(folder, store, *ALONE, patch=together(patch, half)))
    resume(folder)
    assert_same(folder, unbroken)


@nightly
def test_a_driver_killed_in_the_middle_of_a_write_leaves_the_file_as_it_was(
    folder: Path, unbroken: Path, demo_store: FeatureStore
) -> None:
    killed_in_a_write(folder, demo_store, unbroken, {})


def stopped_trials(run: Path) -> list[int]:
    found = [
        int(trial.name)
        for trial in sorted((run / "trials").glob("0*"))
        if len(lines_of(trial / "result.json")) < EPOCHS
    ]
    assert found, "the example should have a trial that ASHA stops"
    return found


@nightly
def test_a_killed_driver_finds_the_rungs_as_they_were(
    folder: Path, unbroken: Path, demo_store: FeatureStore
) -> None:
    driver_killed(folder, demo_store, unbroken, {})


def journal_cut(folder: Path, store: FeatureStore, unbroken: Path, patch: Patch) -> None:
    """Killed, and the study's file then lost its second half, in the middle of a line."""
    command = begin(folder, store, *ALONE, patch=slow(0.05))
    stop_when(command, lambda: logged(folder, 4) >= 1, signal.SIGKILL, group=False)
    assert command.process.wait() == -signal.SIGKILL
    journal = folder / "runs/run/study.journal"
    journal.write_bytes(journal.read_bytes()[: journal.stat().st_size // 2])
    resume(folder, patch)
    assert_same(folder, unbroken)


@nightly
def test_half_of_the_study_is_made_again_from_the_trials(
    folder: Path, unbroken: Path, demo_store: FeatureStore
) -> None:
    journal_cut(folder, demo_store, unbroken, {})


@nightly
def test_a_damaged_line_of_the_study_is_named_and_the_rest_made_again(
    folder: Path, unbroken: Path, demo_store: FeatureStore
) -> None:
    command = begin(folder, demo_store, *ALONE, patch=slow(0.05))
    stop_when(command, lambda: logged(folder, 4) >= 1, signal.SIGKILL, group=False)
    assert command.process.wait() == -signal.SIGKILL
    journal = folder / "runs/run/study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[len(lines) // 2] = b"\x00" * 20 + b"\n"
    journal.write_bytes(b"".join(lines))
    output = resume(folder)
    assert f"{journal} is damaged from line {len(lines) // 2 + 1} on" in output
    assert_same(folder, unbroken)


@nightly
def test_a_run_killed_before_it_began_is_begun_anew(folder: Path, demo_store: FeatureStore) -> None:
    arguments = [*SMALL, "--epochs", "2", "--trials", "2"]
    at_once = {
        "macil.io.files": "_write = write_json_atomic\n"
        "def write_json_atomic(path, content):\n    _write(path, content)\n"
        f"    if Path(path).name == 'plan.json':\n        {KILL}\n"
    }
    killed_by_itself(begin(folder, demo_store, *arguments, patch=at_once))
    assert not (folder / "runs/run/run.json").exists()
    code, output = finish(start("--resume", "run", cwd=folder))
    assert code == 2
    assert "stopped before it began" in output
    code, output = finish(begin(folder, demo_store, *arguments, patch={}))
    assert code == 0, output
    assert "note: run 'run' was stopped before it began; it is begun anew" in output
    assert_whole(folder / "runs" / "run", 2)


@nightly
def test_a_run_killed_before_its_first_trial_goes_on(folder: Path, demo_store: FeatureStore) -> None:
    arguments = [*SMALL, "--epochs", "2", "--trials", "2"]
    first = {"tune.execution.phases": f"def run_batch(*given, **named):\n    {KILL}\n"}
    killed_by_itself(begin(folder, demo_store, *arguments, patch=first))
    resume(folder)
    assert_whole(folder / "runs" / "run", 2)


@nightly
def test_a_run_killed_in_its_refit_and_in_its_report_goes_on_there(
    folder: Path, unbroken: Path, demo_store: FeatureStore
) -> None:
    refit = {"tune.execution.phases": f"def _publish_model(*given):\n    {KILL}\n"}
    killed_by_itself(begin(folder, demo_store, *ALONE, patch=refit))
    report = {"tune.reporting.write": f"def write_table(*given, **named):\n    {KILL}\n"}
    assert info(folder / "runs/run")["phase"] == "refit"
    command = start("--resume", "run", cwd=folder, patch=report)
    command.process.wait(timeout=120)
    output = command.log.read_text()
    assert "resuming 1 refits: 1 finished" in output
    assert info(folder / "runs/run")["phase"] == "report"
    resume(folder, report=True)
    assert (folder / "runs/run/report/report.html").is_file()
    assert_same(folder, unbroken)


# --- signals --------------------------------------------------------------------------------------------------


def stopped_by(folder: Path, store: FeatureStore, number: signal.Signals, patch: Patch) -> None:
    """What a trial has trained is saved, though no save was due."""
    command = begin(folder, store, *ALONE, patch=together(slow(0.1), SAVE_NEVER, patch))
    stop_when(command, lambda: logged(folder, 1) >= 4, number, group=False)
    code, output = finish(command)
    assert code == 128 + number
    assert "stopping: saving the run" in output
    assert "--resume run" in output
    assert info(folder / "runs/run")["status"] == "interrupted"
    epochs = logged(folder, 1)
    assert epochs < EPOCHS
    resume(folder)
    notes = notes_of(folder, 1)
    assert [int(note.rsplit("epoch ", 1)[1]) >= epochs for note in notes] == [True], "saved at the stop"


@nightly
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_wish_to_stop_saves_what_was_trained(
    number: signal.Signals, folder: Path, unbroken: Path, demo_store: FeatureStore
) -> None:
    stopped_by(folder, demo_store, number, {})
    assert_same(folder, unbroken)


@nightly
def test_a_terminal_that_is_closed_lets_the_run_save(
    folder: Path, unbroken: Path, demo_store: FeatureStore
) -> None:
    """Every process of it hears of that, Ray's too, and nothing can be printed any more."""
    screen, terminal = os.openpty()
    words = [sys.executable, str(SEARCH_SCRIPT), "--data", str(demo_store.path), *ALONE, "--name", "run"]
    patch = json.dumps(together(slow(0.1), SAVE_NEVER))
    process = subprocess.Popen(
        words,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(INJECTED), "MACIL_TEST_PATCH": patch, "OMP_NUM_THREADS": "1"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        text=True,
    )
    os.close(terminal)
    os.set_blocking(screen, False)

    def reached() -> bool:
        with contextlib.suppress(BlockingIOError):
            os.read(screen, 2**16)  # a full screen makes the search wait
        return logged(folder, 1) >= 4

    stop_when(Command(process, folder / "none"), reached, signal.SIGCONT, group=False)
    os.close(screen)
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(timeout=120) == 128 + signal.SIGHUP
    assert info(folder / "runs/run")["status"] == "interrupted"
    epochs = logged(folder, 1)
    resume(folder)
    notes = notes_of(folder, 1)
    assert [int(note.rsplit("epoch ", 1)[1]) >= epochs for note in notes] == [True], "saved at the stop"
    assert_same(folder, unbroken)


@nightly
def test_a_run_whose_output_nobody_reads_goes_on(
    folder: Path, unbroken: Path, demo_store: FeatureStore
) -> None:
    words = [sys.executable, str(SEARCH_SCRIPT), "--data", str(demo_store.path), *ALONE, "--name", "run"]
    with subprocess.Popen(
        words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert_same(folder, unbroken)


@nightly
def test_a_second_ctrl_c_ends_at_once(folder: Path, demo_store: FeatureStore) -> None:
    """In the middle of an epoch of ten minutes."""
    long = misbehave(1, 3, "import time; time.sleep(600)")
    command = begin(folder, demo_store, *ALONE, patch=long)
    stop_when(command, lambda: logged(folder, 1) >= 2, signal.SIGINT, group=False)
    time.sleep(1)
    assert command.process.poll() is None
    os.kill(command.process.pid, signal.SIGINT)
    code, output = finish(command)
    assert code == 130
    assert "stopped at once" in output
    assert info(folder / "runs/run")["status"] == "interrupted"
    resume(folder)
    assert_whole(folder / "runs" / "run", TRIALS)


# --- workers --------------------------------------------------------------------------------------------------


def worker_killed(folder: Path, store: FeatureStore, patch: Patch, times: int = 1) -> None:
    """Goes on from its last checkpoint on another worker, `times` times."""
    command = begin(folder, store, *ALONE, patch=together(slow(0.05), SAVE_OFTEN, patch))
    log = folder / "runs/run/trials/00001/result.json"
    killed: list[int] = []
    for time_ in range(times):
        stop_when(command, lambda n=time_: len(lines_of(log)) >= 3 * (n + 1), signal.SIGCONT, group=False)  # type: ignore[misc]
        killed.append(int(lines_of(log)[-1]["pid"]))
        os.kill(killed[-1], 0)  # alive
        os.kill(killed[-1], signal.SIGKILL)
        epochs = len(lines_of(log))
        assert epochs < EPOCHS
    code, output = finish(command)
    assert code == 0, output
    assert output.count("trying again from its last checkpoint") == times
    assert len(set(killed)) == times
    notes = notes_of(folder, 1)
    assert len(notes) == times
    assert all(note.startswith("went on from checkpoint_") for note in notes)
    assert_whole(folder / "runs" / "run", TRIALS)
    assert not (log.parent / "error.txt").exists()


@nightly
def test_a_killed_worker_is_replaced_and_goes_on_from_its_last_checkpoint(
    folder: Path, unbroken: Path, demo_store: FeatureStore
) -> None:
    worker_killed(folder, demo_store, {}, times=3)
    assert_same(folder, unbroken)


def memory_short(folder: Path, store: FeatureStore, patch: Patch) -> None:
    """Ray's memory monitor ends the worker, when something else has taken the memory."""
    total, free = (_meminfo(name) for name in ("MemTotal", "MemAvailable"))
    limits = {
        "RAY_memory_usage_threshold": f"{1 - 0.7 * free / total:.4f}",
        "RAY_memory_monitor_refresh_ms": "100",
    }
    command = begin(folder, store, *ALONE, patch=together(slow(0.05), SAVE_OFTEN, patch), variables=limits)
    stop_when(command, lambda: logged(folder, 1) >= 3, signal.SIGCONT, group=False)
    assert logged(folder, 1) < EPOCHS
    # In steps, so that no more is taken than needed.
    growing = (
        "import time\nkept = []\n"
        f"while 2**26 * len(kept) < {int(0.6 * free)}:\n"
        "    kept.append(b'x' * 2**26)\n    time.sleep(0.02)\n"
        "input()\n"
    )
    eater = subprocess.Popen([sys.executable, "-c", growing], stdin=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while "OutOfMemory" not in command.log.read_text() and time.monotonic() < deadline:
            assert eater.poll() is None
            if command.process.poll() is not None:
                break
            time.sleep(0.05)
    finally:
        eater.kill()
        eater.communicate()
    code, output = finish(command)
    assert code == 0, output
    assert "WorkerLost: OutOfMemoryError" in output
    assert "trying again from its last checkpoint" in output
    assert_whole(folder / "runs" / "run", TRIALS)


def _meminfo(name: str) -> int:
    """Bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


@nightly
def test_a_worker_that_rays_memory_monitor_kills_is_replaced(
    folder: Path, unbroken: Path, demo_store: FeatureStore
) -> None:
    memory_short(folder, demo_store, {})
    assert_same(folder, unbroken)


@nightly
def test_a_trial_that_raises_is_tried_again_once_and_then_fails_with_its_reason(
    folder: Path, demo_store: FeatureStore
) -> None:
    always = misbehave(1, 3, "raise ValueError('the cat sat on the cable')")
    code, output = finish(begin(folder, demo_store, *ALONE, patch=always))
    assert code == 0, output
    assert output.count("trying again") == 1
    assert "trial 00001 failed" in output
    error = (folder / "runs/run/trials/00001/error.txt").read_text()
    assert error.count("Failure #") == 2
    assert "the cat sat on the cable" in error
    assert_whole(folder / "runs" / "run", TRIALS)
    results = load_run(folder / "runs" / "run")
    assert [row["status"] for row in results.trials.to_pylist()].count("failed") == 1


def raises_once(folder: Path, store: FeatureStore, patch: Patch) -> None:
    once = f"import pathlib; p = pathlib.Path({str(folder / 'once')!r}); q = p.exists(); p.touch()"
    raising = misbehave(1, 3, f"{once}; exec('if not q: raise ValueError(1)')")
    code, output = finish(begin(folder, store, *ALONE, patch=together(raising, patch)))
    assert code == 0, output
    assert_whole(folder / "runs" / "run", TRIALS)
    assert not list((folder / "runs/run/trials").glob("*/error.txt"))


@nightly
def test_a_trial_that_raises_once_recovers(folder: Path, unbroken: Path, demo_store: FeatureStore) -> None:
    raises_once(folder, demo_store, {})
    assert_same(folder, unbroken)


def all_raise(folder: Path, store: FeatureStore, patch: Patch) -> None:
    """A search that cannot work stops after three, with the reason."""
    broken = together(everyone("raise RuntimeError('no such kernel image')"), patch)
    code, output = finish(begin(folder, store, *ALONE, patch=broken))
    assert code == 1
    assert "3 trials in a row failed in the same way" in output
    assert "no such kernel image" in output
    assert len(list((folder / "runs/run/trials").iterdir())) < TRIALS
    assert info(folder / "runs/run")["status"] == "failed"
    # Put right, the rest is trained.
    resume(folder)
    run = folder / "runs" / "run"
    assert_whole(run, TRIALS)
    assert [path.parent.name for path in sorted(run.glob("trials/*/error.txt"))] == [
        "00000",
        "00001",
        "00002",
    ]


@nightly
def test_three_equal_exceptions_in_a_row_stop_the_search(folder: Path, demo_store: FeatureStore) -> None:
    all_raise(folder, demo_store, {})


def hangs(folder: Path, store: FeatureStore, patch: Patch) -> None:
    """Ended and named; the search goes on."""
    hanging = misbehave(1, 3, "import time; time.sleep(10_000)")
    command = begin(folder, store, *ALONE, "--trial-timeout", "8", patch=together(hanging, patch))
    try:
        command.process.wait(timeout=90)
    except subprocess.TimeoutExpired:
        command.process.kill()
        command.process.wait()
        raise AssertionError("the search hangs") from None
    code, output = finish(command)
    assert code == 0, output
    reason = "no report for 8 s (--trial-timeout)"
    assert f"trial 00001 failed after 2/{EPOCHS} epochs" in output
    assert reason in output
    assert reason in (folder / "runs/run/trials/00001/error.txt").read_text()
    assert_whole(folder / "runs" / "run", TRIALS)


@nightly
def test_a_trial_that_hangs_is_ended_and_named(folder: Path, demo_store: FeatureStore) -> None:
    hangs(folder, demo_store, {})


# --- storage --------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    disk = folder / "runs"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"needs to mount a file system: {mounted.stderr.strip() or 'not allowed'}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (2**16, 2**12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


def disk_full(folder: Path, disk: Path, store: FeatureStore, patch: Patch) -> None:
    """The search waits, the run stays readable, and all goes on when there is space."""
    command = begin(folder, store, *ALONE, patch=together(slow(0.05), SAVE_OFTEN, patch))
    stop_when(command, lambda: logged(folder, 1) >= 3, signal.SIGCONT, group=False)
    filler = fill(disk)
    try:
        stop_when(
            command, lambda: "waiting for the storage" in command.log.read_text(), signal.SIGCONT, group=False
        )
        time.sleep(2)
        before = digits(disk / "run")
        assert sum(map(len, before.values())) < EPOCHS * TRIALS
        results = load_run(disk / "run")
        assert results.trials.num_rows == len(before)
        assert not [problem for problem in results.problems if "not started" not in problem]
    finally:
        filler.unlink()
    code, output = finish(command)
    assert code == 0, output
    assert "No space left on device" in output
    assert_kept(before, digits(disk / "run"))
    assert_whole(disk / "run", TRIALS)


@nightly
def test_a_full_disk_is_waited_for(
    folder: Path, small_disk: Path, unbroken: Path, demo_store: FeatureStore
) -> None:
    disk_full(folder, small_disk, demo_store, {})
    assert_same(folder, unbroken)


@nightly
def test_a_disk_that_stays_full_ends_the_run_with_that_reason_and_it_is_resumed(
    folder: Path, small_disk: Path, unbroken: Path, demo_store: FeatureStore
) -> None:
    command = begin(folder, demo_store, *ALONE, patch=slow(0.05), variables={RETRY_VARIABLE: "3"})
    stop_when(command, lambda: logged(folder, 1) >= 3, signal.SIGCONT, group=False)
    filler = fill(small_disk)
    code, output = finish(command)
    assert code == 1
    reason, advice = output.splitlines()[-2:]
    assert "No space left on device" in reason
    assert "make room" in reason
    assert "--resume run" in advice
    before = digits(small_disk / "run")
    load_run(small_disk / "run")
    filler.unlink()
    resume(folder)
    assert_kept(before, digits(small_disk / "run"))
    assert_same(folder, unbroken)


@nightly
def test_ctrl_c_while_waiting_for_space_stops_the_run(
    folder: Path, small_disk: Path, unbroken: Path, demo_store: FeatureStore
) -> None:
    command = begin(folder, demo_store, *ALONE, patch=slow(0.05))
    stop_when(command, lambda: logged(folder, 1) >= 3, signal.SIGCONT, group=False)
    filler = fill(small_disk)
    stop_when(
        command, lambda: "waiting for the storage" in command.log.read_text(), signal.SIGINT, group=False
    )
    code, output = finish(command)
    assert code == 130
    assert "--resume run" in output
    filler.unlink()
    resume(folder)
    assert_same(folder, unbroken)


def checkpoint_damaged(folder: Path, store: FeatureStore, patch: Patch) -> None:
    """The one before is used, and the damaged one named."""
    command = begin(folder, store, *ALONE, patch=together(slow(0.05), SAVE_OFTEN))
    trial = folder / "runs/run/trials/00001"
    stop_when(command, lambda: logged(folder, 1) >= 5, signal.SIGKILL, group=False)
    assert command.process.wait() == -signal.SIGKILL
    wait_for_workers(trial)
    older, newest = sorted(trial.glob("checkpoint_*"))[-2:]
    weights = newest / "trainer.pt"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    output = resume(folder, patch)
    assert f"{weights} cannot be read" in output
    assert f"went on from {older.name}" in output
    assert_whole(folder / "runs" / "run", TRIALS)
    assert any("cannot be read" in problem for problem in load_run(folder / "runs" / "run").problems)


def wait_for_workers(trial: Path) -> None:
    """Until a killed driver's worker has gone, and writes no more."""
    pid = int(lines_of(trial / "result.json")[-1]["pid"])
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)


@nightly
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(
    folder: Path, unbroken: Path, demo_store: FeatureStore
) -> None:
    checkpoint_damaged(folder, demo_store, {})
    assert_same(folder, unbroken)


# --- two at once ----------------------------------------------------------------------------------------------


def two_of_one_name(folder: Path, store: FeatureStore, patch: Patch) -> None:
    first = begin(folder, store, *ALONE, patch=together(slow(0.2), patch))
    try:
        stop_when(first, lambda: logged(folder, 0) >= 1, signal.SIGCONT, group=False)
        code, output = finish(start("--resume", "run", cwd=folder, patch=patch or None))
        assert code == 2
        assert "in use by process" in output
        code, output = finish(first)
        assert code == 0, output
    finally:
        if first.process.poll() is None:
            first.process.kill()
            first.process.wait()


@nightly
def test_two_searches_of_one_name_are_refused_and_of_two_names_do_not_mix(
    folder: Path, unbroken: Path, demo_store: FeatureStore
) -> None:
    other = start("--data", str(demo_store.path), *ALONE, "--name", "other", cwd=folder)
    two_of_one_name(folder, demo_store, {})
    assert finish(other)[0] == 0
    assert_same(folder, unbroken)
    assert digits(folder / "runs" / "other") == digits(unbroken)
    assert rows(folder / "runs" / "other") == rows(unbroken)


# --- more than one trial at a time ----------------------------------------------------------------------------


@nightly
def test_two_trials_at_a_time_keep_every_epoch_through_kills_of_the_driver(
    folder: Path, demo_store: FeatureStore
) -> None:
    run = folder / "runs" / "run"
    command = begin(folder, demo_store, *SEARCH, "--concurrent", "2", patch=slow(0.05))
    logs: list[Digits] = []
    for number in (1, 3, 5):
        stop_when(command, lambda n=number: logged(folder, n) >= 2, signal.SIGKILL, group=False)  # type: ignore[misc]
        assert command.process.wait() == -signal.SIGKILL
        logs.append(digits(run))
        assert len(logs[-1]) < TRIALS or number == 5
        command = start("--resume", "run", cwd=folder, patch=slow(0.05))
    code, output = finish(command)
    assert code == 0, output
    for before in logs:
        assert_kept(before, digits(run))
    assert_whole(run, TRIALS)
    assert_replays(run, demo_store)


# --- what the safeguards are for ------------------------------------------------------------------------------

Scenario = Callable[[Path, FeatureStore, Path, Patch], None]

MUTATIONS: dict[str, tuple[Patch, Scenario]] = {
    "rung replay": (
        {
            "tune.execution.tune_scheduler": "_init = StoppingScheduler.__init__\n"
            "def init(self, settings, epochs, histories=None):\n    _init(self, settings, epochs, None)\n"
            "StoppingScheduler.__init__ = init\n"
        },
        driver_killed,
    ),
    "study repair": (
        {"tune.algorithms.study": "def repair_study(*given):\n    pass\n"},
        killed_before_the_study_was_told,
    ),
    "atomic rename": (
        {
            "macil.io.files": "@contextlib.contextmanager\ndef atomic_path(path):\n"
            "    Path(path).parent.mkdir(parents=True, exist_ok=True)\n    yield Path(path)\n"
        },
        killed_in_a_write,
    ),
    "journal repair": (
        {"tune.algorithms.journal": "def repair_journal(path):\n    return None\n"},
        journal_cut,
    ),
    "checkpoint restore": (
        {"tune.storage.checkpoints": "def last_good(trial, warn):\n    return None\n"},
        lambda folder, store, _, patch: worker_killed(folder, store, patch),
    ),
    "fallback to an older checkpoint": (
        {
            "tune.storage.checkpoints": "def last_good(trial, warn):\n"
            "    found = checkpoint_folders(trial)\n"
            "    return load_checkpoint(found[-1] / TRAINER_FILE) if found else None\n"
        },
        lambda folder, store, _, patch: checkpoint_damaged(folder, store, patch),
    ),
    "replacement of lost workers": (
        {"tune.execution.failure_policy": "MAX_WORKER_FAILURES = 0\n"},
        lambda folder, store, _, patch: worker_killed(folder, store, patch),
    ),
    "worker failures that Tune does not know": (
        {
            "tune.execution.worker_failures": "import contextlib\n"
            "tolerating_worker_failures = contextlib.nullcontext\n",
        },
        lambda folder, store, _, patch: memory_short(folder, store, patch),
    ),
    "retry": (
        {"tune.execution.failure_policy": "OWN_RETRIES = 0\n"},
        lambda folder, store, _, patch: raises_once(folder, store, patch),
    ),
    "stop after equal failures": (
        {"tune.execution.failure_policy": "EQUAL_FAILURES = 10**9\n"},
        lambda folder, store, _, patch: all_raise(folder, store, patch),
    ),
    "end of what hangs": (
        {"tune.execution.failure_policy": "FailurePolicy._end = lambda self, trial: None\n"},
        lambda folder, store, _, patch: hangs(folder, store, patch),
    ),
    "saving at a wish to stop": (
        {"tune.execution.trainable": "MacilTrainable.cleanup = lambda self: None\n"},
        lambda folder, store, _, patch: stopped_by(folder, store, signal.SIGINT, patch),
    ),
    "lock of the run": (
        {
            "tune.storage.run_folder": "import contextlib\n@contextlib.contextmanager\ndef locked(run):\n"
            "    run.path.mkdir(parents=True, exist_ok=True)\n    yield\n"
        },
        lambda folder, store, _, patch: two_of_one_name(folder, store, patch),
    ),
}


@pytest.mark.mutation
@pytest.mark.parametrize("mechanism", MUTATIONS)
def test_without_it_the_promise_is_broken(
    mechanism: str, folder: Path, unbroken: Path, demo_store: FeatureStore
) -> None:
    patch, scenario = MUTATIONS[mechanism]
    with pytest.raises(AssertionError):
        scenario(folder, demo_store, unbroken, patch)
    shutil.rmtree(folder / "runs", ignore_errors=True)


@pytest.mark.mutation
def test_without_waiting_a_full_disk_breaks_the_promise(
    folder: Path, small_disk: Path, demo_store: FeatureStore
) -> None:
    with pytest.raises(AssertionError):
        disk_full(folder, small_disk, demo_store, {"tune.storage.retry": "_RETRY_SECONDS = 0.0\n"})


@nightly
def test_the_past_of_a_trial_is_read_from_its_folder(unbroken: Path) -> None:
    """What a resume knows is what the run was."""
    trials = sorted((unbroken / "trials").glob("0*"))
    assert len(trials) == TRIALS
    for trial in trials:
        history = read_history(unbroken / "trials", trial.name)
        assert history.ended
        assert history.epochs == len(lines_of(trial / "result.json"))
