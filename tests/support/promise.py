"""What a search promises whatever happened to it, checked in its run folder."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from macil.data.store.feature_store import FeatureStore
from macil.io.files import read_json
from macil.training.metrics import EpochMetrics
from macil.training.trainer import trainer_from_record
from tests.support.search_command import lines_of
from tests.support.studies import load_study
from tune.storage.trial_log import METRIC

NUMBERS = [field.name for field in fields(EpochMetrics) if field.name != "seconds"]

Digits = dict[str, list[dict[str, Any]]]


def digits(run: Path, kind: str = "*") -> Digits:
    """Every epoch of every trial, without wall times; and where each trial was stopped."""
    return {
        f"{log.parent.parent.name}/{log.parent.name}": [
            {name: line.get(name) for name in [*NUMBERS, "done", "diverged"]} for line in whole_lines(log)
        ]
        for log in sorted(run.glob(f"{kind}/*/result.json"))
    }


def whole_lines(log: Path) -> list[dict[str, Any]]:
    """The lines of a log that may be being written."""
    text = log.read_text() if log.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def rows(run: Path) -> list[tuple[Any, ...]]:
    """The study."""
    study = load_study(run / "study.journal")
    return [(t.number, t.state, t.params, t.values, t.intermediate_values) for t in study.trials]


def assert_kept(before: Digits, after: Digits) -> None:
    """No epoch that was logged was taken back, and none came out otherwise."""
    for trial, epochs in before.items():
        assert after.get(trial, [])[: len(epochs)] == epochs, f"{trial} had {len(epochs)} epochs"


def assert_whole(run: Path, trials: int) -> None:
    """As many trials as were asked for, under unique numbers, each epoch once; the study says what the logs say."""
    study = load_study(run / "study.journal")
    assert [row.number for row in study.trials] == list(range(trials))
    folders = sorted(path.name for path in (run / "trials").iterdir() if path.is_dir())
    assert folders == [f"{number:05d}" for number in range(trials)]
    for row in study.trials:
        assert_row_follows(row, lines_of(run / "trials" / f"{row.number:05d}" / "result.json"), run)


def assert_row_follows(row: Any, log: list[dict[str, Any]], run: Path) -> None:
    """A row of the study is what its trial's log says."""
    assert [line["epoch"] for line in log] == list(range(1, len(log) + 1)), "every epoch once"
    assert row.intermediate_values == {line["epoch"]: line[METRIC] for line in log if not line["diverged"]}
    if row.state == TrialState.FAIL:
        assert (run / "trials" / f"{row.number:05d}" / "error.txt").exists()
        return
    epochs = read_json(run / "plan.json")["base"]["epochs"]
    assert log[-1]["done"] is True
    assert row.state == (TrialState.COMPLETE if len(log) == epochs else TrialState.PRUNED)
    assert row.value == log[-1][METRIC]


def assert_replays(run: Path, store: FeatureStore, kind: str = "trials") -> None:
    """Each trial's epochs are those of a training of its configuration that nobody disturbed."""
    for trial, epochs in digits(run, kind).items():
        trainer = trainer_from_record(read_json(run / trial / "record.json"), store)
        for epoch in epochs:
            alone = trainer.train_epoch()
            assert {name: epoch[name] for name in NUMBERS} == {name: alone[name] for name in NUMBERS}, trial
