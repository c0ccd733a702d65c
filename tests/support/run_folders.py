"""Run folders for tests: real trainings in this process, written down as a search under Ray writes them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from macil.config import TrialConfig
from macil.data import FeatureStore
from macil.evaluation.protocols import Protocol, epoch_rule
from macil.io.files import write_json_atomic
from macil.training.checkpoint import save_checkpoint
from macil.training.trainer import Trainer
from tune.storage.saved_epochs import SavedEpochs

EPOCHS = 3
BASE = TrialConfig(
    epochs=EPOCHS,
    hidden_dim=16,
    num_heads=2,
    feedforward_dim=16,
    batch_size=64,
    max_snippets=20,
    learning_rate=2e-3,
)

End = Literal["finished", "stopped", "killed", "failed", "diverged"]


@dataclass
class RunFolder:
    """A run being written."""

    path: Path
    store: FeatureStore
    protocol: Protocol = "heldout"
    info: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)

    def begin(self, status: str = "finished", **changes: Any) -> RunFolder:
        """Write run.json, plan.json and config.toml."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.info = {
            "format_version": 1,
            "name": self.path.name,
            "status": status,
            "created": "2026-01-01T00:00:00+00:00",
            "updated": "2026-01-01T00:10:00+00:00",
            "command": ["tune/search.py", "--data", str(self.store.path)],
            "protocol": self.protocol,
            "epoch_rule": epoch_rule(self.protocol),
            "sweep": None,
            "metric": "selection_score",
            "seeds": [0],
            "options": {"data": str(self.store.path)},
            "data": str(self.store.path),
            "store_hash": self.store.content_hash,
            "labels_hash": self.store.labels_hash,
            "data_notes": [],
            "dataset": {split: len(self.store.videos(split).names) for split in ("train", "test")},
            "refit": None,
            "versions": {"macil": "0", "ray": "0"},
        } | changes
        write_json_atomic(self.path / "run.json", self.info)
        self.plan = {
            "kind": "search",
            "space": {"lambda_v2b": "0.25 to 4, logarithmic"},
            "rows": [],
            "notes": [],
        }
        write_json_atomic(
            self.path / "plan.json", self.plan | {"stopping": {"rule": "asha", "grace": 1, "reduction": 3}}
        )
        BASE.save(self.path / "config.toml")
        return self

    def add(
        self,
        name: str,
        end: End = "finished",
        epochs_run: int | None = None,
        *,
        kind: str = "trials",
        row: str | None = None,
        error: str = "ValueError: no such thing",
        **changes: Any,
    ) -> Trainer:
        """Train for `epochs_run` of the configuration's and write the trial as it is when it ends so."""
        config = BASE.replace(**changes)
        protocol = "refit" if kind == "refit" else self.protocol
        trainer = Trainer(config, self.store, protocol=protocol, device="cpu", threads=1)
        folder = self.path / kind / name
        folder.mkdir(parents=True)
        trial_id = f"{kind}-{name}"
        write_json_atomic(folder / "record.json", trainer.record())
        write_json_atomic(folder / "params.json", {**config.to_dict(), "row": row, "trial_id": trial_id})
        epochs = config.epochs if epochs_run is None else epochs_run
        for epoch in range(1, epochs + 1):
            metrics = trainer.train_epoch()
            done = epoch == config.epochs or (epoch == epochs and end == "stopped")
            write_report_line(folder, {**metrics, "diverged": False, "done": done, "trial_id": trial_id})
            write_checkpoint(folder, trainer)
        if end == "diverged":
            reason = f"diverged in epoch {epochs + 1}: the loss is no finite number"
            line = {
                "epoch": epochs + 1,
                "selection_score": None,
                "diverged": True,
                "reason": reason,
                "done": True,
            }
            write_report_line(folder, {**line, "trial_id": trial_id})
            (folder / "error.txt").write_text(f"{reason}\n")
        if end == "failed":
            (folder / "error.txt").write_text(
                "Failure # 1 (occurred at 2026-01-01_00-00-00)\n"
                "[36mray::MacilTrainable.train()[39m (pid=1, ip=192.0.2.1)\n"
                '  File "trainable.py", line 1, in step\n'
                f"{error}\n"
            )
        return trainer


def write_report_line(folder: Path, content: dict[str, Any]) -> None:
    """Append an epoch to result.json, with what Tune adds to it."""
    line = {
        **content,
        "training_iteration": content["epoch"],
        "date": "2026-01-01_00-00-00",
        "timestamp": 1.0,
    }
    with (folder / "result.json").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def edit_report(folder: Path, epoch: int, **changes: Any) -> None:
    """Change what result.json says of an epoch."""
    path = folder / "result.json"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line | changes if line["epoch"] == epoch else line for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_checkpoint(folder: Path, trainer: Trainer) -> None:
    """Write the next checkpoint of the trial, as the trainable does."""
    checkpoint = folder / f"checkpoint_{trainer.epoch - 1:06d}"
    checkpoint.mkdir(exist_ok=True)
    save_checkpoint(trainer, checkpoint / "trainer.pt")
    SavedEpochs(last=trainer.epoch, chosen=trainer.chosen_epoch).write(checkpoint / "saved.json")
    np.savez(checkpoint / "scores.npz", **trainer.test_scores)  # type: ignore[arg-type]
