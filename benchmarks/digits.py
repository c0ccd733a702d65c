"""Do two checkouts train the same? The same runs in both, and every digit of logs, stops, studies and weights compared.

    python -m benchmarks.digits OLD NEW

A search with one trial at a time, its confirmation and its refit, and a sweep with two seeds a row, on a small data set
that OLD generates. Nothing of either checkout is imported: what it writes is read. What a run must not depend on,
times, process numbers and ids, is left out.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from rich.console import Console
from rich.table import Table

DATA = "--train-videos 40 --test-videos 16 --visual-dim 32 --audio-dim 16 --crops 2 --min-snippets 8 --max-snippets 20"
SMALL = "--batch-size 8 --hidden-dim 16 --num-heads 2 --feedforward-dim 16 --concurrent 1 --cpus-per-trial 1"
RUNS = {
    "search, confirmation, refit": (
        "--trials 6 --epochs 6 --grace 2 --confirm 2 --confirm-seeds 2 --seeds 2 "
        "--batch-size 8 --num-heads 2 --feedforward-dim 16 --concurrent 1 --cpus-per-trial 1"
    ),
    "sweep": f"--sweep table3 --seeds 2 --epochs 3 {SMALL}",
}
# What a log says of the process, the machine and the clock.
_PASSING = re.compile(r"(.*_)?(time|seconds|date|timestamp|pid|hostname|node_ip|trial_id|iterations?)(_.*)?")


@click.command()
@click.argument("old", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("new", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep the runs in this folder."
)
def main(old: Path, new: Path, keep: Path | None) -> None:
    """Train the same in the checkouts OLD and NEW and compare every digit; ends with 1 when one differs."""
    with tempfile.TemporaryDirectory(prefix="digits-") as scratch:
        folder = Path(scratch) if keep is None else keep.absolute()
        checkouts = {"old": old.absolute(), "new": new.absolute()}
        data = folder / "data"
        if not data.exists():
            _call(old.absolute(), folder / "old", f"-m macil demo {{data}} {DATA}", data)
        table = Table(
            "run", "compared", "values", "different", title=f"{old} and {new}", title_justify="left"
        )
        differ = False
        for number, (title, options) in enumerate(RUNS.items()):
            runs = {}
            for which, checkout in checkouts.items():
                command = (
                    f"tune/search.py --data {{data}} --storage {{own}}/runs --name run{number} {options}"
                )
                runs[which] = folder / which / "runs" / f"run{number}"
                if not (runs[which] / "report" / "report.html").exists():
                    _call(checkout, folder / which, command, data)
            for what, values, unequal in compare(runs["old"], runs["new"]):
                table.add_row(title, what, f"{values:,}", ", ".join(unequal[:3]) or "none")
                differ |= bool(unequal)
        Console(width=140).print(table)
    sys.exit(1 if differ else 0)


def compare(old: Path, new: Path) -> Iterator[tuple[str, int, list[str]]]:
    """(what, how many values, places that differ) of two folders of runs."""
    readings = {
        "logs": read_logs,
        "stops": read_stops,
        "study rows": read_study,
        "weights and scores": read_arrays,
    }
    for what, read in readings.items():
        before, after = read(old), read(new)
        unequal = [
            position
            for position in sorted(before.keys() | after.keys())
            if not _equal(before.get(position), after.get(position))
        ]
        yield what, len(before), unequal


def read_logs(run: Path) -> dict[str, Any]:
    """Every number that a training reported, by trial, epoch and name; of a repeated epoch the first."""
    found: dict[str, Any] = {}
    for log in sorted(run.glob("*/*/result.json")):
        for line in log.read_text(encoding="utf-8").splitlines():
            report = json.loads(line)
            for name, value in report.items():
                if not _PASSING.fullmatch(name):
                    found.setdefault(
                        f"{log.parent.relative_to(run)} epoch {report.get('epoch')} {name}", value
                    )
    return found


def read_stops(run: Path) -> dict[str, Any]:
    """How many epochs each training had, and who won with what."""
    found: dict[str, Any] = {
        str(log.parent.relative_to(run)): len(log.read_text(encoding="utf-8").splitlines())
        for log in run.glob("*/*/result.json")
    }
    info = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return found | {
        name: info.get(name) for name in ("status", "winner", "confirm", "store_hash", "labels_hash")
    }


def read_study(run: Path) -> dict[str, Any]:
    """State, parameters and scores of every row of the study; empty for a sweep."""
    path = run / "study.journal"
    if not path.exists():
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(path)))
    trials = optuna.load_study(study_name=None, storage=storage).trials
    return {
        f"trial {trial.number}": [
            trial.state.name,
            trial.params,
            trial.values,
            sorted(trial.intermediate_values.items()),
        ]
        for trial in trials
    }


def read_arrays(run: Path) -> dict[str, Any]:
    """Hashes of all weights of the newest checkpoints and of `model.pt`, and of the test scores kept."""
    found: dict[str, Any] = {}
    for folder in sorted({path.parent for path in run.glob("*/*/checkpoint_*")}):
        newest = max(folder.glob("checkpoint_*"))
        where = str(folder.relative_to(run))
        for archive in newest.glob("*.npz"):
            with zipfile.ZipFile(archive) as files:
                found |= {f"{where} {member.filename}": member.CRC for member in files.infolist()}
        for file in newest.glob("*.pt"):
            found |= {f"{where} {name}": value for name, value in _tensors(file)}
    if (run / "model.pt").exists():
        found |= {f"model.pt {name}": value for name, value in _tensors(run / "model.pt")}
    return found


def _tensors(file: Path) -> Iterator[tuple[str, str]]:
    def walk(value: Any, position: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, torch.Tensor | np.ndarray):
            array = np.ascontiguousarray(value.numpy() if isinstance(value, torch.Tensor) else value)
            yield position, hashlib.blake2b(array.tobytes(), digest_size=8).hexdigest()
        elif isinstance(value, dict):
            for name, inner in value.items():
                yield from walk(inner, f"{position}.{name}")
        elif isinstance(value, list | tuple):
            for index, inner in enumerate(value):
                yield from walk(inner, f"{position}[{index}]")

    yield from walk(torch.load(file, map_location="cpu", weights_only=True), file.name)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    return bool(one == other)


def _call(checkout: Path, own: Path, command: str, data: Path) -> None:
    """A command of a checkout by this interpreter, with a cache of its own."""
    own.mkdir(parents=True, exist_ok=True)
    words = [word.format(data=data, own=own) for word in command.split()]
    environment = {**os.environ, "MACIL_CACHE": str(own / "cache"), "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, *words], cwd=checkout, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise click.ClickException(
            f"{checkout}: {' '.join(words)} ended with {done.returncode}:\n{done.stderr[-2000:]}"
        )


if __name__ == "__main__":
    main()
