"""What `python -m macil train` does: one training without Ray."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from macil.commands.cli import (
    PlainConsole,
    echo,
    given_hyperparameters,
    given_reading,
    resolve_config,
)
from macil.data.opening import resolve
from macil.data.origin import DEMO_NOTE, is_demo_data
from macil.data.reading import AS_USUAL, Reading
from macil.data.split import Split, split_doubt
from macil.data.store.feature_store import FeatureStore, looks_like_store
from macil.data.xd.names import source_doubts
from macil.errors import DataError, UsageError, WriteError
from macil.evaluation.average_precision import frame_average_precision
from macil.evaluation.protocols import epoch_rule
from macil.io.command_line import command_line
from macil.io.files import (
    atomic_path,
    refusal,
    remove_temporaries,
    write_json_atomic,
    write_text_atomic,
)
from macil.io.locks import exclusive
from macil.io.notes import note
from macil.io.remote import is_uri
from macil.training.checkpoint import load_checkpoint
from macil.training.files import (
    BEST_FILE,
    CONFIG_FILE,
    EPOCHS_FILE,
    LAST_FILE,
    RECORD_FILE,
    SCORES_FILE,
    SPLIT_FILE,
)
from macil.training.record import TrainingRecord
from macil.training.silent_terms import WHY, silence_text, silent_epochs
from macil.training.trainer import Trainer, trainer_from_record

# The newest first: both are whole trainings to go on from.
_CHECKPOINTS = (LAST_FILE, BEST_FILE)


def run_train(data: Path | str, out: Path, *, resume: bool, overwrite: bool, options: dict[str, Any]) -> None:
    """Train into the folder `out`; see `macil.commands.training.train`."""
    there = any((out / name).exists() for name in _CHECKPOINTS)
    if there and not (resume or overwrite):
        raise UsageError(f"{out} holds a training; continue it with --resume, or replace it with --overwrite")
    if resume and not there:
        raise UsageError(f"there is nothing to resume in {out}: it has neither {' nor '.join(_CHECKPOINTS)}")
    saved = _newest_good(out) if resume else None
    trainer = _make_trainer(data, out if resume else None, saved, options)
    if saved:
        note(f"going on after epoch {trainer.epoch} of {trainer.config.epochs} ({out})")

    with _in_use(out):
        if not resume:
            # Of what is replaced: a kill now must not leave them for a resume.
            for name in (*_CHECKPOINTS, SCORES_FILE):
                (out / name).unlink(missing_ok=True)
        write_json_atomic(out / RECORD_FILE, trainer.record())
        trainer.config.save(out / CONFIG_FILE)
        if trainer.split is not None:
            trainer.split.save(out / SPLIT_FILE)
            videos = trainer.store.videos("train")
            doubts = [
                split_doubt(trainer.split, trainer.store, trainer.split_by),
                *source_doubts(videos.names, videos.sources),
            ]
            for doubt in filter(None, doubts):
                note(doubt)
        _write_epochs(trainer, out)
        _run(trainer, out)
    echo(_summary(trainer), keep="\n")
    _print_what_to_know(trainer)
    echo(f"results in {out}")
    echo(_next(trainer, data, out))


def _print_what_to_know(trainer: Trainer) -> None:
    """Print the notes that belong to the numbers: on data and labels, terms that never acted, made-up data."""
    for each in [*trainer.store.notes, *trainer.store.label_notes]:
        echo(f"note: {each}")
    silent, epochs = silent_epochs(trainer.history)
    if silent:
        echo(f"contrastive terms {silence_text(silent, epochs)}: {WHY}, so Λ, r and τ had no effect in them")
    if is_demo_data(trainer.store.path):
        echo(DEMO_NOTE)


def _next(trainer: Trainer, data: Path | str, out: Path) -> str:
    model, reading = out / _CHECKPOINTS[0], trainer.store.meta.reading
    if trainer.store.labels_hash:
        words = [] if is_uri(data) or looks_like_store(data) else reading.words
        return f"look further: {command_line('macil', 'evaluate', model, data, *words)}"
    one, scores = f"--video={trainer.store.videos('test').names[0]}", out.with_name(f"{out.name}-scores")
    return f"score a video: {command_line('macil', 'score', model, data, one, '--out', scores)}"


@contextlib.contextmanager
def _in_use(out: Path) -> Iterator[None]:
    """One training at a time in a folder; what a killed one left half-written is removed."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refusal(out, error) from None
    try:
        with exclusive(out / ".lock", f"training into {out}", wait=False):
            remove_temporaries(out)
            yield
    except WriteError as error:
        if not any((out / name).exists() for name in _CHECKPOINTS):
            raise
        raise WriteError(
            error.path, f"{error.reason}; finished epochs are kept, go on with --resume"
        ) from None


def _newest_good(out: Path) -> dict[str, Any]:
    """The last checkpoint, or where it is damaged the one of the chosen epoch.

    Raises:
        DataError: None can be read; names each.
    """
    problems = []
    for name in _CHECKPOINTS:
        try:
            state = load_checkpoint(out / name)
        except DataError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            note(f"{problem}; {name} is used, and what comes after it is trained again, to the same digits")
        return state
    raise DataError(f"no checkpoint in {out} can be read; begin again with --overwrite:", problems)


def _make_trainer(
    data: Path | str, resumed: Path | None, saved: dict[str, Any] | None, options: dict[str, Any]
) -> Trainer:
    given = given_hyperparameters(options)
    chosen = {
        name: options[name]
        for name in ("protocol", "device", "precision", "threads")
        if options[name] is not None
    }
    record, reading = options["record"], given_reading(options)
    fixed = [
        f"--{name.removesuffix('_file').replace('_', '-')}"
        for name in (
            *given,
            *chosen,
            *Reading.model_fields,
            "preset",
            "config_file",
            "split_seed",
            "split_by",
        )
        if options[name] is not None and name != "device"
    ]
    if (record or resumed) and fixed:
        where = f"the record {record}" if record else f"the training in {resumed}"
        raise UsageError(f"{where} fixes everything; leave out {', '.join(fixed)}")
    split = Split.load(options["split_file"]) if options["split_file"] else None
    if resumed:
        split = split or _split_of(resumed)
    if saved or record:
        # A checkpoint holds its record, so that a resume needs no other file.
        content = saved["record"] if saved else TrainingRecord.read(record).model_dump()
        store = _open_recorded(data, TrainingRecord.parse(content, "the record").reading)
        again: dict[str, Any] = {"split": split, "device": chosen.get("device")}
        return (
            Trainer.resume(saved, store, **again) if saved else trainer_from_record(content, store, **again)
        )
    config = resolve_config(options["preset"], options["config_file"], options)
    if split is not None and chosen.get("protocol") != "heldout":
        raise UsageError("--split belongs to --protocol heldout")
    if options["split_seed"] is not None and (split is not None or chosen.get("protocol") != "heldout"):
        raise UsageError("--split-seed belongs to --protocol heldout without --split")
    if options["split_by"] is not None and (split is not None or chosen.get("protocol") != "heldout"):
        raise UsageError("--split-by belongs to --protocol heldout without --split")
    return Trainer(
        config,
        resolve(data, reading=reading, progress=True),
        split=split,
        split_seed=options["split_seed"] or 0,
        split_by=options["split_by"] or "source",
        **chosen,
    )


def _open_recorded(data: Path | str, reading: Reading) -> FeatureStore:
    """The data of a record; a store tells itself how its folder was read, and its hash is compared."""
    return resolve(
        data, reading=AS_USUAL if is_uri(data) or looks_like_store(data) else reading, progress=True
    )


def _split_of(out: Path) -> Split | None:
    """The split of the training in `out`; None where it has none, or has to be made again from its seed."""
    path = out / SPLIT_FILE
    if not path.exists():
        return None
    try:
        return Split.load(path)
    except DataError as error:
        note(f"{error}; the split is made again from its seed, and must have the recorded hash")
        return None


def _run(trainer: Trainer, out: Path) -> None:
    console = PlainConsole(stderr=True)
    columns = (
        TextColumn("epoch"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=trainer.config.epochs, completed=trainer.epoch)
        while not trainer.finished:
            metrics = trainer.train_epoch()
            line = _describe(metrics)
            if console.is_terminal:
                progress.update(task, completed=trainer.epoch, description=line)
            else:
                echo(f"epoch {trainer.epoch}/{trainer.config.epochs}  {line}")
            # The checkpoint last: whatever it holds has been written before.
            _write_epochs(trainer, out)
            _write_scores(trainer, out / SCORES_FILE)
            if trainer.chosen_epoch == trainer.epoch:
                trainer.save(out / BEST_FILE)
            trainer.save(out / LAST_FILE)


def _describe(metrics: dict[str, Any]) -> str:
    shown = ("loss_mil", "heldout_ap", "heldout_score", "ap", "ap_trapezoid")
    parts = [f"{name} {metrics[name]:.4f}" for name in shown if metrics[name] is not None]
    return "  ".join([*parts, f"{metrics['seconds']:.1f} s"])


def _summary(trainer: Trainer) -> str:
    """The result in words; under closed labels they are opened here, once, after the last epoch."""
    lines = []
    last = trainer.history[-1]
    if trainer.protocol == "published":
        best = max(trainer.history, key=lambda metrics: metrics["ap_trapezoid"])
        lines.append(
            f"test AP at the last epoch ({last['epoch']}), protocol published, one seed: "
            f"{last['ap']!r} step-wise, {last['ap_trapezoid']!r} trapezoidal (the published definition)"
        )
        lines.append(
            f"best test epoch ({best['epoch']}), the published convention, chosen on the test set: "
            f"{best['ap']!r} step-wise, {best['ap_trapezoid']!r} trapezoidal"
        )
        return "\n".join(lines)
    try:
        labels = trainer.store.test_labels()
    except DataError as error:
        return f"no test AP: {error}"
    for rule in dict.fromkeys((epoch_rule(trainer.protocol), "last")):
        epoch = trainer.chosen_epoch if rule == "chosen" else trainer.epoch
        ap = frame_average_precision(
            trainer.test_scores[rule], labels.frame_labels, trainer.store.snippet_frames
        )
        lines.append(
            f"test AP at the {rule} epoch ({epoch}), protocol {trainer.protocol}, one seed: "
            f"{ap.ap!r} step-wise, {ap.ap_trapezoid!r} trapezoidal (labels opened after training)"
        )
    return "\n".join(lines)


def _write_epochs(trainer: Trainer, out: Path) -> None:
    """The epochs known so far: after a kill the file may be one epoch ahead of the checkpoint."""
    write_text_atomic(out / EPOCHS_FILE, "".join(json.dumps(metrics) + "\n" for metrics in trainer.history))


def _write_scores(trainer: Trainer, path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **trainer.test_scores)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
