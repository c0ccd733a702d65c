"""Time and memory of `python tune/report.py` on a run of 1,000 trials of 50 epochs: first, and with the labels opened.

The run is written in the formats of a search from one real training, whose figures are varied from trial to trial: a
record, a log, a checkpoint and test scores each.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from optuna.distributions import FloatDistribution

from benchmarks.common import describe_machine, finish, json_option, machine_line, make_table
from macil.config import TrialConfig
from macil.data import FeatureStore, convert, write_demo
from macil.io.files import write_json_atomic
from macil.training.trainer import Trainer
from tune.algorithms.asking import distributions
from tune.algorithms.space import Space
from tune.algorithms.stopping.asha import AshaSettings
from tune.planning.space import published_point, search_space
from tune.storage.saved_epochs import SavedEpochs

GOAL_SECONDS, GOAL_BYTES, GOAL_PAGE = 30.0, 10**9, 5 * 10**6
_SCRIPT = Path(__file__).resolve().parent.parent / "tune" / "report.py"


def write_run(folder: Path, store: FeatureStore, trials: int, epochs: int) -> Path:
    """Write a finished search, trials stopped early among them, and its winner's refit."""
    base = TrialConfig(
        epochs=epochs, hidden_dim=16, num_heads=2, feedforward_dim=16, batch_size=64, max_snippets=20
    )
    space = search_space(base, ("hidden_dim",))
    trainer = Trainer(base.replace(epochs=1), store, protocol="heldout", device="cpu", threads=1)
    line, state, record = trainer.train_epoch(), trainer.state_dict(), trainer.record()
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(trials):
        point = {
            name: float(rng.uniform(each.low, each.high))
            for name, each in distributions(space).items()
            if isinstance(each, FloatDistribution)
        }
        config = base.replace(**(published_point(space) if number == 0 else point))
        run = epochs if number % 4 else max(1, epochs // 3)
        _write_trial(
            folder / "trials" / f"{number:05d}", config, run, (line, state, record), trainer.test_scores, rng
        )
    refit = base.replace(epochs=epochs // 2)
    record = {**record, "protocol": "refit"}
    _write_trial(
        folder / "refit" / "seed0", refit, epochs // 2, (line, state, record), trainer.test_scores, rng
    )
    _write_head(folder, store, base, space, dict(published_point(space)), trials)
    return folder


def _write_trial(
    folder: Path,
    config: TrialConfig,
    run: int,
    real: tuple[dict[str, Any], dict[str, Any], dict[str, Any]],
    scores: dict[str, np.ndarray],
    rng: np.random.Generator,
) -> None:
    line, state, record = real
    checkpoint = folder / f"checkpoint_{run - 1:06d}"
    checkpoint.mkdir(parents=True)
    trial_id = f"{folder.parent.name}-{folder.name}"
    write_json_atomic(folder / "record.json", {**record, "config": config.to_dict()})
    write_json_atomic(folder / "params.json", {**config.to_dict(), "row": None, "trial_id": trial_id})
    best = np.maximum.accumulate(rng.uniform(0.4, 0.9, run))
    chosen = [int(np.argmax(best[: n + 1])) + 1 for n in range(run)]
    lines = []
    for epoch in range(1, run + 1):
        drawn = {
            name: float(value * rng.uniform(0.9, 1.0))
            for name, value in line.items()
            if isinstance(value, float)
        }
        selection = {"selection_score": float(best[epoch - 1]), "chosen_epoch": chosen[epoch - 1]}
        report = {**line, **drawn, **selection, "epoch": epoch, "diverged": False, "done": epoch == run}
        report |= {
            "trial_id": trial_id,
            "training_iteration": epoch,
            "date": "2026-01-01_00-00-00",
            "timestamp": 1.0,
        }
        lines.append(json.dumps(report))
    (folder / "result.json").write_text("\n".join(lines) + "\n", encoding="utf-8")
    torch.save({**state, "epoch": run, "chosen_epoch": chosen[-1]}, checkpoint / "trainer.pt")
    SavedEpochs(last=run, chosen=chosen[-1]).write(checkpoint / "saved.json")
    noisy = {
        name: np.clip(array + rng.normal(0, 0.1, array.shape), 0, 1).astype(array.dtype)
        for name, array in scores.items()
    }
    np.savez(checkpoint / "scores.npz", **noisy)  # type: ignore[arg-type]


def _write_head(
    folder: Path,
    store: FeatureStore,
    base: TrialConfig,
    space: Space,
    initial: dict[str, Any],
    trials: int,
) -> None:
    info = {
        "format_version": 1,
        "name": folder.name,
        "status": "finished",
        "created": "2026-01-01T00:00:00+00:00",
        "updated": "2026-01-01T00:10:00+00:00",
        "command": ["tune/search.py", "--data", str(store.path)],
        "protocol": "heldout",
        "epoch_rule": "chosen",
        "sweep": None,
        "metric": "selection_score",
        "seeds": [0],
        "trials": trials,
        "options": {"data": str(store.path)},
        "data": str(store.path),
        "store_hash": store.content_hash,
        "labels_hash": store.labels_hash,
        "dataset": {split: len(store.videos(split).names) for split in ("train", "test")},
    }
    write_json_atomic(folder / "run.json", info)
    stopping = AshaSettings(grace=max(1, base.epochs // 3)).model_dump()
    recorded = {name: dimension.model_dump(mode="json") for name, dimension in space.items()}
    plan = {
        "kind": "search",
        "space": recorded,
        "first": initial,
        "rows": [],
        "stopping": stopping,
        "notes": [],
    }
    write_json_atomic(folder / "plan.json", plan)
    base.save(folder / "config.toml")


def measure(run: Path) -> dict[str, float]:
    """Wall seconds and peak bytes of the command in a process of its own, and the size of the page.

    Raises:
        click.ClickException: It failed.
    """
    started = time.perf_counter()
    process = os.posix_spawn(sys.executable, [sys.executable, str(_SCRIPT), str(run)], os.environ)
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - started
    if status:
        raise click.ClickException(f"tune/report.py ended with status {os.waitstatus_to_exitcode(status)}")
    page = (run / "report" / "report.html").stat().st_size
    return {"seconds": seconds, "peak_bytes": 1024 * usage.ru_maxrss, "page_bytes": page}


@click.command(help=__doc__.split("\n\n")[0] if __doc__ else None)
@click.option("--trials", type=click.IntRange(4), default=1000, show_default=True, help="Trials of the run.")
@click.option("--epochs", type=click.IntRange(3), default=50, show_default=True, help="Epochs of a trial.")
@click.option(
    "--test-videos", type=click.IntRange(4), default=20, show_default=True, help="800 are XD-Violence's."
)
@click.option(
    "--snippets", type=click.IntRange(20), default=60, show_default=True, help="Of the longest video."
)
@json_option
def main(trials: int, epochs: int, test_videos: int, snippets: int, json_path: Path | None) -> None:
    """Write the run, report it twice, print."""
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        demo = write_demo(
            folder / "demo",
            train_videos=24,
            test_videos=test_videos,
            min_snippets=20,
            max_snippets=snippets,
            visual_dim=64,
            audio_dim=16,
        )
        store = FeatureStore.open(convert(demo, folder / "store"))
        run = write_run(folder / "many", store, trials, epochs)
        measured = {"first": measure(run), "again": measure(run)}
        tables = ("trials.parquet", "epochs.parquet", "trials.csv")
        written = {file: (run / "report" / file).stat().st_size for file in tables}
    table = make_table(
        f"{machine_line(machine)}\n{trials:,} trials of {epochs} epochs, {test_videos} test videos",
        ["report"],
        ["seconds", "goal", "peak MiB", "goal", "page MB", "goal"],
    )
    for which, each in measured.items():
        table.add_row(
            which,
            f"{each['seconds']:.1f}",
            f"< {GOAL_SECONDS:g}",
            f"{each['peak_bytes'] / 2**20:.0f}",
            f"< {GOAL_BYTES / 2**20:.0f}",
            f"{each['page_bytes'] / 1e6:.2f}",
            f"< {GOAL_PAGE / 1e6:g}",
        )
    remark = "First: the test labels are opened and every trial measured; again: its figures are kept."
    finish([table], [remark], {"machine": machine, **measured, "files": written}, json_path)


if __name__ == "__main__":
    main()
