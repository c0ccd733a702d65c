"""Training a recorded trial again, outside Tune, and comparing every number with what was recorded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from macil.config import TrialConfig
from macil.data.opening import resolve
from macil.data.origin import DEMO_NOTE, is_demo_data
from macil.data.split import Split
from macil.data.store.feature_store import FeatureStore
from macil.errors import DataError, DivergedError, UsageError
from macil.evaluation.average_precision import frame_average_precision
from macil.evaluation.protocols import CLOSED_PROTOCOLS, epoch_rule
from macil.io.files import read_json, write_json_atomic
from macil.io.progress import show_progress
from macil.io.remote import is_uri
from macil.io.text import printable
from macil.io.wording import now
from macil.training.metrics import EpochMetrics
from macil.training.record import TrainingRecord, describe_environment
from macil.training.trainer import Trainer, trainer_from_record
from tune.planning.equal_rows import trained_folder
from tune.results.label_access import open_for, read_label_accesses
from tune.results.measured import read_measured
from tune.results.rows import EpochRow
from tune.results.run_info import usable_info, usable_plan
from tune.results.trial_folder import TrialFolder, newest_scores, read_trial
from tune.storage.location import RunLocation, locate_run
from tune.storage.names import (
    CONFIRM_FOLDER,
    PLAN_FILE,
    RECORD_FILE,
    REFIT_FOLDER,
    REPLAYS_FOLDER,
    RUN_FILE,
    SPLIT_FILE,
    TRIALS_FOLDER,
)
from tune.storage.score_file import read_scores
from tune.storage.usable_fields import read_table

FORMAT_VERSION = 1
# Where a trial's folder may lie in a run.
_PARENTS = (TRIALS_FOLDER, "", CONFIRM_FOLDER, REFIT_FOLDER)
_NUMBERS = tuple(field.name for field in fields(EpochMetrics) if field.name != "seconds")
_SHOWN = ("selection_score", "heldout_ap", "ap", "ap_trapezoid", "loss_mil")


@dataclass(frozen=True)
class Difference:
    """How far a number of the replay is from the recorded one, at worst, and in which epoch that first is.

    `largest` is None where one of the two has no number.
    """

    name: str
    largest: float | None
    first_epoch: int

    def __str__(self) -> str:
        """The difference as text."""
        size = "only one has a number" if self.largest is None else f"by up to {self.largest:.3g}"
        return f"{self.name}, {size}, first in epoch {self.first_epoch}"


def replay_trial(
    run: str, trial: str, storage: str, data: str | None, seed: int | None, console: Console
) -> int:
    """Train TRIAL of RUN again from its record, print how the numbers compare, write RUN/replays/TRIAL.json.

    Args:
        run: A name in `storage`, or a path.
        trial: The trial's folder: `00004`, `10_seed0`, `confirm/00004_seed1000`, `refit/seed0`.
        storage: Folder of runs.
        data: The data where they lie now; None is where the run has them.
        seed: Another seed than the recorded one.
        console: Where to.

    Returns:
        Exit status: 1 when the environment is the recorded one and a digit differs, else 0.

    Raises:
        UsageError: There is no such run or trial.
        DataError: The trial has no record or no epoch, or the data are not those it was trained on.
    """
    location = locate_run(run, storage)
    root = location.path
    folder, same = find_trial(root, trial)
    if same:
        console.print(same, highlight=False, markup=False, soft_wrap=True)
    recorded = read_trial(folder, {})
    if not recorded.record:
        raise DataError(f"{folder} has no record.json that can be read, so it cannot be trained again")
    record = TrainingRecord.parse(recorded.record, str(folder / RECORD_FILE))
    if not recorded.measured:
        raise DataError(f"{folder} has no finished epoch to compare with")
    store = _open_store(root, data)
    recorded_seed = TrialConfig.from_dict(record.config).seed
    other = seed is not None and seed != recorded_seed
    trainer = _trainer(record, store, root / SPLIT_FILE, seed if other else None)
    name = folder.relative_to(root).as_posix()
    epochs = len(recorded.measured)
    line = _opening_line(name, trainer, epochs, record)
    console.print(line, highlight=False, markup=False, soft_wrap=True)
    reason = _train(trainer, epochs)
    here = describe_environment(trainer.device, trainer.threads)
    before = record.model_dump(include=set(here))
    found: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "time": now(),
        "trial": name,
        "demo": is_demo_data(store.path),
        "label_notes": store.label_notes,
        "seed": trainer.config.seed,
        "recorded_seed": recorded_seed,
        "environment": here,
        "recorded_environment": before,
        "epochs": trainer.history,
        "diverged": reason,
    }
    differences = [] if other else _compare(recorded.measured, trainer.history)
    scores = {} if other else _compare_scores(folder, trainer)
    equal = not other and reason is None and not differences and not any(scores.values())
    found["equal"] = None if other else equal
    found["differences"] = {
        one.name: {"largest": one.largest, "first_epoch": one.first_epoch} for one in differences
    }
    found["test_scores"] = scores
    found["test_ap"] = _test_ap(location, name, recorded, trainer, store, equal=equal)
    target = root / REPLAYS_FOLDER / f"{name.replace('/', '-')}{f'-seed{seed}' if other else ''}.json"
    write_json_atomic(target, found)
    _print_comparison(console, found, recorded, trainer, differences, other=other)
    location.publish(REPLAYS_FOLDER)
    shown = target if location.remote is None else f"{location.shown}/{REPLAYS_FOLDER}/{target.name}"
    console.print(f"written to {shown}", highlight=False, markup=False, soft_wrap=True)
    return 1 if not other and not equal and here == before else 0


def find_trial(run: Path, trial: str) -> tuple[Path, str]:
    """The folder of a trial by its name in the run, and a message about it.

    A row of a sweep that is the same training as an earlier one has no folder: that one's is found, with a message.

    Raises:
        UsageError: There is none; names those there are.
    """
    if folder := _folder(run, trial):
        return folder, ""
    plan = read_json(run / PLAN_FILE) if (run / PLAN_FILE).is_file() else {}
    found = trained_folder(usable_plan(plan if isinstance(plan, dict) else {}, []), Path(trial).name)
    if found and (folder := _folder(run, found[2])):
        return folder, f"row {found[0]} is the same training as row {found[1]}, which is replayed: {found[2]}"
    known = sorted(
        path.parent.relative_to(run).as_posix().removeprefix(f"{TRIALS_FOLDER}/")
        for path in run.glob(f"*/*/{RECORD_FILE}")
    )
    shown = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
    raise UsageError(
        f"--replay: run {run.name} has no trial {trial!r}; it has {shown or 'none with a record'}"
    )


def _folder(run: Path, trial: str) -> Path | None:
    for parent in _PARENTS:
        folder = Path(os.path.normpath(run / parent / trial))
        if run in folder.parents and folder.is_dir() and any(folder.glob("*.json")) and folder.parent != run:
            return folder
    return None


def _open_store(root: Path, data: str | None) -> FeatureStore:
    location = data or usable_info(read_table(root / RUN_FILE, [], RUN_FILE), []).data
    if not location:
        raise DataError(f"{root / RUN_FILE} does not say where the data lie; give them with --data")
    if data is None and not is_uri(location) and not Path(location).exists():
        raise DataError(f"the data of the run, {location}, are not there any more; give them with --data")
    return resolve(location, progress=True)


def _trainer(record: TrainingRecord, store: FeatureStore, split_file: Path, seed: int | None) -> Trainer:
    split = Split.load(split_file) if record.protocol == "heldout" and split_file.is_file() else None
    device = "cpu" if record.device == "cuda" and not torch.cuda.is_available() else None
    if seed is not None:
        record = record.model_copy(update={"config": {**record.config, "seed": seed}, "lockstep": [seed]})
    return trainer_from_record(record.model_dump(), store, split=split, device=device)


def _train(trainer: Trainer, epochs: int) -> str | None:
    """Train; why it ended early, or None."""
    with show_progress("training", epochs, "epochs") as advance:
        while trainer.epoch < epochs:
            try:
                trainer.train_epoch()
            except DivergedError as error:
                return str(error)
            advance(1)
    return None


def _compare(recorded: Sequence[EpochRow], replayed: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """Every number of every epoch; empty when all are equal to the last digit."""
    differences = []
    for name in _NUMBERS:
        unequal = [
            (_distance(getattr(before, name), after[name]), int(after["epoch"]))
            for before, after in zip(recorded, replayed, strict=False)
            if getattr(before, name) != after[name]
        ]
        if unequal:
            sizes = [size for size, _ in unequal]
            largest = None if None in sizes else max(size for size in sizes if size is not None)
            differences.append(Difference(name, largest, unequal[0][1]))
    return differences


def _distance(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else abs(before - after)


def _compare_scores(folder: Path, trainer: Trainer) -> dict[str, float]:
    """Largest difference of the test snippet scores that the trial kept, by epoch rule; labels are not needed."""
    path = newest_scores(folder)
    if path is None:
        return {}
    try:
        kept = read_scores(path, trainer.test_scores.__contains__)
    except DataError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    for name, scores in kept.items():
        if len(scores) != len(trainer.test_scores[name]):
            raise DataError(
                f"{path} keeps {len(scores)} test scores of the {name} epoch, the test videos have "
                f"{len(trainer.test_scores[name])} snippets; it is damaged, so nothing was compared"
            )
        if not np.isfinite(scores).all():
            raise DataError(
                f"{path} keeps test scores of the {name} epoch that are no finite numbers; it is damaged, so nothing "
                "was compared"
            )
    return {
        name: float(np.abs(scores - trainer.test_scores[name]).max(initial=0.0))
        for name, scores in kept.items()
    }


def _test_ap(
    location: RunLocation,
    name: str,
    recorded: TrialFolder,
    trainer: Trainer,
    store: FeatureStore,
    *,
    equal: bool,
) -> dict[str, Any] | None:
    """Recorded and replayed test AP (trapezoidal) at the last and at the chosen epoch; None while labels are closed.

    Under `published` every epoch has it. Else it is known once the run's labels have been opened; scores that are not
    the recorded ones are then measured, which is another look at the labels and is logged as such.
    """
    if trainer.protocol not in CLOSED_PROTOCOLS:
        last = trainer.history[-1] if trainer.history else {}
        reported = recorded.measured[-1]
        return {rule: [getattr(reported, rule), last.get(rule)] for rule in ("ap", "ap_trapezoid")}
    known = read_measured(location.path, [])[1].get(name)
    if known is None and not read_label_accesses(location.path, []):
        return None
    before = known.metrics if known else {}
    if equal:
        return {rule: [before.get(rule)] * 2 for rule in ("ap", "ap_trapezoid")}
    rule = epoch_rule(trainer.protocol)
    if rule not in trainer.test_scores:
        return None
    seed = trainer.config.seed
    stamp = hashlib.blake2b(trainer.test_scores[rule].tobytes(), digest_size=16).hexdigest()
    labels = open_for(location, store, {f"{name} seed {seed}": stamp}, f"replay of {name}, seed {seed}")
    measured = frame_average_precision(trainer.test_scores[rule], labels.frame_labels, store.snippet_frames)
    return {which: [before.get(which), getattr(measured, which)] for which in ("ap", "ap_trapezoid")}


def _opening_line(name: str, trainer: Trainer, epochs: int, record: TrainingRecord) -> str:
    others = [seed for seed in record.lockstep if seed != trainer.config.seed]
    together = (
        f", in lockstep with seeds {', '.join(map(str, others))}" if len(trainer.engine.seeds) > 1 else ""
    )
    return (
        f"replaying {name}: protocol {trainer.protocol}, seed {trainer.config.seed}{together}, {epochs} epochs on "
        f"{trainer.device.type}, {trainer.threads} threads, {trainer.precision}"
    )


def _print_comparison(
    console: Console,
    found: Mapping[str, Any],
    recorded: TrialFolder,
    trainer: Trainer,
    differences: Sequence[Difference],
    *,
    other: bool,
) -> None:
    table = Table(title=f"epoch {trainer.epoch}", title_justify="left")
    for column in ("", "recorded", f"seed {trainer.config.seed}" if other else "replayed", "difference"):
        table.add_column(column, justify="right" if column else "left")
    before, after = recorded.measured[-1], trainer.history[-1] if trainer.history else {}
    for name in _SHOWN:
        recorded_value = getattr(before, name)
        if recorded_value is not None:
            table.add_row(name, *_cells(recorded_value, after.get(name)))
    if trainer.protocol in CLOSED_PROTOCOLS and found["test_ap"]:
        for name, (first, second) in found["test_ap"].items():
            table.add_row(f"test {name}", *_cells(first, second))
    console.print(table)
    for doubt in found["label_notes"]:
        console.print(f"note: {printable(doubt)}", highlight=False, markup=False, soft_wrap=True)
    if found["demo"]:
        console.print(DEMO_NOTE, highlight=False)
    for line in _verdict(found, differences, other=other):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _verdict(found: Mapping[str, Any], differences: Sequence[Difference], *, other: bool) -> list[str]:
    lines = [] if found["diverged"] is None else [f"the replay {found['diverged']}"]
    if found["test_ap"] is None:
        lines.append(
            "test AP: not measured, since the labels of this run have not been opened, as a report does"
        )
    if other:
        return [
            *lines,
            f"another seed than the recorded {found['recorded_seed']}: the numbers are not meant to be equal",
        ]
    if found["equal"]:
        return [*lines, "equal: every number of every epoch, and every test score kept, to the last digit"]
    lines += [f"differs: {one}" for one in differences[:8]]
    lines += [
        f"differs: test scores of the {name} epoch, by up to {size:.3g}"
        for name, size in found["test_scores"].items()
        if size
    ]
    here, before = found["environment"], found["recorded_environment"]
    if here == before:
        return [
            *lines,
            "the environment is the recorded one, so the digits should have been equal: please report this",
        ]
    lines.append("the environment is not the recorded one; equal digits are promised on the same one only:")
    lines += [
        f"  {key}: recorded {before[key]}, here {here[key]}" for key in here if here[key] != before[key]
    ]
    return lines


def _cells(before: float | None, after: float | None) -> tuple[str, str, str]:
    first, second = ("–" if value is None else repr(value) for value in (before, after))
    if before is None or after is None:
        return first, second, "–"
    return first, second, "0" if before == after else f"{after - before:+.3g}"
