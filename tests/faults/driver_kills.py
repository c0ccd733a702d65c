"""Kill -9 of the driver at random moments of one search, resumed each time, until it ends; what each kill cost.

    python -m tests.faults.driver_kills --kills 20 --seed 0

prints a line a kill and a summary. Three of ten moments are a random time after the driver was started, which may fall
into Ray's start or into the resume itself; the others a random time after the first new epoch, between trials, into an
epoch or a save.
"""

from __future__ import annotations

import json
import random
import signal
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from macil.data import FeatureStore, convert, write_demo
from tests.support.promise import Digits, digits, rows
from tests.support.search_command import Command, finish, start

EPOCHS, TRIALS = 20, 24
SEARCH = [
    *["--hidden-dim", "16", "--feedforward-dim", "16", "--batch-size", "12", "--max-snippets", "20"],
    *[
        "--epochs",
        str(EPOCHS),
        "--grace",
        "4",
        "--trials",
        str(TRIALS),
        "--cpus-per-trial",
        "1",
        "--no-report",
    ],
]
# Epochs that take a while, so that the search outlives the kills; the numbers do not depend on it.
_SLOW = {
    "tune.execution.trainable": "import time as _time\n_step = MacilTrainable.step\n"
    "def step(self):\n    _time.sleep(0.25)\n    return _step(self)\nMacilTrainable.step = step\n"
}
_EARLY = 0.3
# Seconds: at most so long after the start, or after the first new epoch.
_STARTING, _RUNNING = 8.0, 5.0


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        after: Seconds after the driver was started.
        epochs: Epochs in the logs at that moment, of all trials.
        equal: Whether they are those of the undisturbed search, digit by digit.
        kept: Whether all of them were still there at the next kill or at the end.
        recovery: Seconds from the next start to the next epoch in the logs; None if it was killed before.
    """

    after: float
    epochs: int
    equal: bool
    kept: bool
    recovery: float | None


@dataclass(frozen=True)
class Outcome:
    """A search that was killed again and again."""

    kills: list[Kill]
    seconds: float
    undisturbed: float
    digits_equal: bool
    study_equal: bool


def kill_again_and_again(folder: Path, store: FeatureStore, kills: int, seed: int) -> Outcome:
    """Run a search undisturbed and once more with kills, one trial at a time, and compare."""
    began = time.monotonic()
    whole = _run_undisturbed(folder, store)
    undisturbed = time.monotonic() - began
    expected = digits(whole)
    draw = random.Random(seed)
    run = folder / "runs" / "killed"
    recorded: list[Kill] = []
    logged: list[Digits] = []
    began = time.monotonic()
    command = _start(folder, store, resume=False)
    while True:
        started, before = time.monotonic(), _epochs(digits(run))
        early = draw.random() < _EARLY
        wait = draw.uniform(0.0, _STARTING if early else _RUNNING)
        recovery = None
        while command.process.poll() is None:
            now = time.monotonic() - started
            if recovery is None and _epochs(digits(run)) > before:
                recovery = now
            since = now if early else (-1.0 if recovery is None else now - recovery)
            if since >= wait and len(recorded) < kills:
                break
            time.sleep(0.02)
        if recorded:
            recorded[-1] = Kill(
                **{**asdict(recorded[-1]), "recovery": recovery, "kept": _kept(logged[-1], digits(run))}
            )
        if command.process.poll() is not None:
            break
        logged.append(digits(run))
        command.process.send_signal(signal.SIGKILL)
        assert command.process.wait() == -signal.SIGKILL
        recorded.append(
            Kill(time.monotonic() - started, _epochs(logged[-1]), _kept(logged[-1], expected), False, None)
        )
        # A run that was killed before it began has nothing to resume.
        command = _start(folder, store, resume=(run / "run.json").exists())
    code, output = finish(command)
    assert code == 0, output
    assert len(recorded) == kills, f"the search ended after {len(recorded)} kills"
    return Outcome(
        recorded, time.monotonic() - began, undisturbed, digits(run) == expected, rows(run) == rows(whole)
    )


def _run_undisturbed(folder: Path, store: FeatureStore) -> Path:
    name = "undisturbed"
    arguments = ["--data", str(store.path), *SEARCH, "--concurrent", "1", "--name", name]
    code, output = finish(start(*arguments, cwd=folder, patch=_SLOW))
    assert code == 0, output
    return folder / "runs" / name


def _start(folder: Path, store: FeatureStore, *, resume: bool) -> Command:
    new = ["--data", str(store.path), *SEARCH, "--concurrent", "1", "--name", "killed"]
    return start(*(["--resume", "killed", "--no-report"] if resume else new), cwd=folder, patch=_SLOW)


def _epochs(found: Digits) -> int:
    return sum(map(len, found.values()))


def _kept(before: Digits, after: Digits) -> bool:
    """Whether every epoch of `before` is in `after`, the same."""
    return all(after.get(trial, [])[: len(epochs)] == epochs for trial, epochs in before.items())


@click.command(help=__doc__.split("\n\n", maxsplit=1)[0] if __doc__ else None)
@click.option("--kills", type=click.IntRange(1), default=20, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(kills: int, seed: int, json_path: Path | None) -> None:
    """Entry point."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        layout = write_demo(
            folder / "demo", train_videos=24, test_videos=10, max_snippets=30, visual_dim=64, audio_dim=16
        )
        outcome = kill_again_and_again(
            folder, FeatureStore.open(convert(layout, folder / "store")), kills, seed
        )
    for number, kill in enumerate(outcome.kills, start=1):
        recovery = "killed again before an epoch" if kill.recovery is None else f"{kill.recovery:.1f} s"
        print(
            f"kill {number:2d}: {kill.after:4.1f} s after the start, {kill.epochs:3d} epochs logged, equal "
            f"{kill.equal}, kept {kill.kept}, next epoch {recovery}"
        )
    recoveries = [kill.recovery for kill in outcome.kills if kill.recovery is not None]
    equal = sum(kill.equal and kill.kept for kill in outcome.kills)
    print(
        f"equal digits after {equal} of {kills} kills; all digits {outcome.digits_equal}, "
        f" study {outcome.study_equal}; recovery {statistics.median(recoveries):.1f} s (median), "
        f"{max(recoveries):.1f} s (longest); {outcome.seconds:.0f} s in all, {outcome.undisturbed:.0f} s undisturbed"
    )
    if json_path:
        json_path.write_text(json.dumps(asdict(outcome), indent=2))


if __name__ == "__main__":
    main()
