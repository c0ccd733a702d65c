"""Test-label access: once, for all trials together, and never without a line in the log in the run's root.

Under `heldout` and `refit` a training stores test scores and reads no test label. Whoever could look at the test
metrics of some trials, choose, and look again would be choosing on the test set; so every look is logged before it is
taken, with a digest of the scores it was taken on, and the report shows the log.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from macil.data.store.feature_store import FeatureStore, TestLabels
from macil.errors import DataError
from macil.evaluation.average_precision import frame_average_precision
from macil.evaluation.protocols import CLOSED_PROTOCOLS
from macil.io.files import write_text_atomic
from macil.io.formats import FileFormat
from macil.io.reading import parse_json, read_text
from macil.io.wording import now
from tune.results.measured import (
    MEASURED_SCORES,
    NO_SCORES,
    Measured,
    read_measured,
    stamp_of,
    write_measured,
)
from tune.results.rows import TrialRow
from tune.results.run import RunResults
from tune.results.trial_folder import newest_scores
from tune.storage.location import RunLocation
from tune.storage.names import ACCESS_LOG, INTERVALS_FILE, MEASURED_FILE, SAVED_FILE, TRAINER_FILE
from tune.storage.root_files import move_to_root, older_file
from tune.storage.saved_epochs import read_saved_epochs
from tune.storage.score_file import read_scores


class LabelAccess(FileFormat):
    """A line of `openings.jsonl`, written before a label is read.

    Attributes:
        time: When, in UTC.
        labels_hash, store_hash: Of the labels and of the data.
        purpose: What for.
        trials: How many trainings had scores to measure.
        scores_hash: Equal for equal scores: an access on the same ones shows nothing new.
    """

    WHAT: ClassVar[str] = "a test-label access"

    time: str | None = None
    labels_hash: str | None = None
    store_hash: str | None = None
    purpose: str | None = None
    trials: int | None = None
    scores_hash: str | None = None


def closed_trials(results: RunResults) -> list[TrialRow]:
    """The trials trained without test labels that have finished an epoch."""
    return [row for row in results.trial_rows if row.protocol in CLOSED_PROTOCOLS and row.epochs_run]


def needs_label_access(results: RunResults, labels_hash: str | None = None) -> bool:
    """Whether a trial's test scores have not been measured, or with other labels than those of `labels_hash`."""
    known_hash, known = read_measured(results.path, [])
    if labels_hash is not None and known_hash not in (None, labels_hash):
        return bool(closed_trials(results))
    return any(
        (entry := known.get(trial.trial_dir)) is None or entry.stamp != _stamp(results, trial)
        for trial in closed_trials(results)
    )


def open_labels(results: RunResults, store: FeatureStore) -> RunResults:
    """Compute the test metrics of every trial trained without test labels, from its stored scores.

    Fills `ap`, `ap_trapezoid` (at the trial's epoch rule), `ap_last`, `ap_trapezoid_last` and `visual_ap`, and keeps
    them in the run folder, where `load_run` finds them. The access is logged in `openings.jsonl` before a label is
    read. Trials without stored scores are listed in `problems`. A run without any trial trained so comes back as it
    is, and nothing is opened.

    Raises:
        DataError: The store is not the one the run was trained on, or its labels are absent.
    """
    trials = closed_trials(results)
    if not trials:
        return results
    _check_store(results, store)
    found: dict[str, list[str]] = {trial.trial_dir: [] for trial in trials}
    # The checksums in the archives stand for the scores: reading them all twice would take half of the time.
    stamps = {trial.trial_dir: _stamp(results, trial) for trial in trials}
    labels = open_for(results.location, store, stamps, "report")

    def measure(trial: TrialRow) -> Measured:
        folder = trial.trial_dir
        scores = _read_scores(results, trial, found[folder])
        metrics = _measure(trial, scores, labels, store.snippet_frames, found[folder])
        return Measured(stamp=stamps[folder], metrics=metrics, problems=found[folder])

    # Sorting, nearly all of it, runs without the interpreter's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        kept = dict(zip(found, pool.map(measure, trials), strict=True))
    write_measured(results.path, labels.hash, labels.violent_share, kept)
    return _with_measured(results, kept, labels)


def read_label_accesses(run: Path, problems: list[str]) -> list[LabelAccess]:
    """The log of label accesses, oldest first; a damaged line counts as an access of unknown time."""
    try:
        lines = _logged(run)
    except OSError as error:
        problems.append(
            f"{ACCESS_LOG} cannot be read: {error.strerror}; when the labels were opened is not known"
        )
        return [LabelAccess()]
    label_accesses = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = LabelAccess.parse(parse_json(line), ACCESS_LOG)
        except (DataError, ValueError, RecursionError):
            problems.append(
                f"{ACCESS_LOG} line {number} is damaged; it is counted as an opening of unknown time"
            )
            entry = LabelAccess()
        label_accesses.append(entry)
    return label_accesses


def move_older(location: RunLocation) -> None:
    """Move the log and what was measured into the run's root, where an earlier version kept them in `report/`.

    Raises:
        UsageError: The root cannot be written.
    """
    run = location.path
    if older_file(run, ACCESS_LOG).exists():
        with contextlib.suppress(OSError):  # unreadable: counted where it is
            _write_log(run, _logged(run))
            location.publish(ACCESS_LOG)
    for name in (MEASURED_FILE, INTERVALS_FILE):
        move_to_root(run, name)


def open_for(
    location: RunLocation, store: FeatureStore, stamps: Mapping[str, str], purpose: str
) -> TestLabels:
    """Read the labels, with the log written first, in the bucket too: an access that then fails is still an access.

    Args:
        location: Where the run lies.
        store: The data.
        stamps: Trial to a text that stands for its scores: what is going to be measured.
        purpose: Why, for the log.

    Raises:
        DataError: The store has no test labels, or the log cannot be read.
        UsageError: The log cannot be written.
    """
    if not store.labels_hash:
        return store.test_labels()  # absent: raises, and no label was read
    entry = LabelAccess(
        time=now(),
        labels_hash=store.labels_hash,
        store_hash=store.content_hash,
        purpose=purpose,
        trials=sum(not stamp.startswith(NO_SCORES) for stamp in stamps.values()),
        scores_hash=_digest(stamps),
    )
    try:
        before = _logged(location.path)
    except OSError as error:
        raise DataError(
            f"{location.path / ACCESS_LOG} cannot be read ({error.strerror}), and no opening may go unlogged"
        ) from None
    _write_log(location.path, [*before, json.dumps(entry.model_dump())])
    location.publish(ACCESS_LOG)
    try:
        return store.test_labels()
    except DataError:
        # No label was read after all: the line above would record an access that did not happen.
        _write_log(location.path, before)
        if before:
            location.publish(ACCESS_LOG)
        elif location.remote is not None:
            location.remote.delete(ACCESS_LOG)
        raise


def _logged(run: Path) -> list[str]:
    """The lines of the log, oldest first.

    An earlier version has them in `report/`. After a move that was cut short they lie in both; each counts once.
    """
    older, here = (_lines(path) for path in (older_file(run, ACCESS_LOG), run / ACCESS_LOG))
    return here if here[: len(older)] == older else [*older, *here]


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in read_text(path, errors="replace").splitlines() if line.strip()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _write_log(run: Path, lines: Sequence[str]) -> None:
    if lines:
        write_text_atomic(run / ACCESS_LOG, "".join(f"{line}\n" for line in lines))
    else:
        (run / ACCESS_LOG).unlink(missing_ok=True)
    older_file(run, ACCESS_LOG).unlink(missing_ok=True)


def _with_measured(results: RunResults, kept: dict[str, Measured], labels: TestLabels) -> RunResults:
    problems = [*results.problems]
    problems += [problem for entry in kept.values() for problem in entry.problems if problem not in problems]
    expected = results.info.labels_hash
    if expected and labels.hash != expected:
        problems.append(
            f"the test labels are not those the run was started with: their hash is {labels.hash}, "
            f"run.json has {expected}"
        )
    rows = [
        kept[row.trial_dir].filled_into(row) if row.trial_dir in kept else row for row in results.trial_rows
    ]
    return replace(
        results,
        trial_rows=rows,
        problems=problems,
        label_accesses=read_label_accesses(results.path, problems),
        labels=labels,
        chance=labels.violent_share,
    )


def _stamp(results: RunResults, trial: TrialRow) -> str:
    return stamp_of(results.path / trial.trial_dir, trial.epochs_run, trial.chosen_epoch)


def _check_store(results: RunResults, store: FeatureStore) -> None:
    expected = results.info.store_hash
    recorded = {row.store_hash for row in results.trial_rows if row.store_hash is not None}
    wrong = sorted((recorded | ({str(expected)} if expected else set())) - {store.content_hash})
    if wrong:
        raise DataError(
            f"{store.path} is not the data this run was trained on: its content hash is {store.content_hash}, "
            f"the run has {', '.join(wrong)}; "
            "the test labels stay closed and no test metric is computed"
        )


def _read_scores(results: RunResults, trial: TrialRow, problems: list[str]) -> dict[str, np.ndarray]:
    folder = results.path / trial.trial_dir
    path = newest_scores(folder)
    if path is None:
        problems.append(f"{folder.name}: no checkpoint with test scores; its test metrics cannot be computed")
        return {}
    where = f"{folder.name}/{path.parent.name}"
    try:
        # A trial may have kept the scores of every epoch; none of the others is measured.
        scores = read_scores(path, MEASURED_SCORES.__contains__)
    except DataError as error:
        problems.append(f"{where}/scores.npz cannot be read: {error}")
        return {}
    stale = _stale_epochs(trial, path.parent, where, problems)
    return {name: array for name, array in scores.items() if name.removeprefix("visual_") not in stale}


def _stale_epochs(trial: TrialRow, checkpoint: Path, where: str, problems: list[str]) -> set[str]:
    """Which of "chosen" and "last" are of other epochs in the checkpoint than in the trial's log.

    A process that was killed between report and checkpoint leaves the checkpoint an epoch behind.
    """
    if not any((checkpoint / file).is_file() for file in (SAVED_FILE, TRAINER_FILE)):
        return set()  # of an earlier version, copied without its weights
    try:
        saved = read_saved_epochs(checkpoint).model_dump()
    except DataError as error:
        reason = " ".join(str(error).replace(str(checkpoint), where).split())
        problems.append(f"{reason}; its scores are left out")
        return {"last", "chosen"}
    logged = {"last": trial.epochs_run, "chosen": trial.chosen_epoch}
    stale = {rule for rule in saved if saved[rule] != logged[rule]}
    problems.extend(
        f"{where}: the scores of the {rule} epoch are of epoch {saved[rule]}, the log says {logged[rule]}; left out"
        for rule in sorted(stale)
    )
    return stale


def _measure(
    trial: TrialRow,
    scores: Mapping[str, np.ndarray],
    labels: TestLabels,
    snippet_frames: int,
    problems: list[str],
) -> dict[str, float]:
    known: dict[bytes, tuple[float, float]] = {}

    def precision(name: str) -> tuple[float, float] | None:
        if name not in scores:
            return None
        key = scores[name].tobytes()  # chosen and last are often the same epoch
        if key not in known:
            known[key] = frame_average_precision(scores[name], labels.frame_labels, snippet_frames)
        return known[key]

    rule = trial.epoch_rule
    try:
        headline, last, visual = precision(rule), precision("last"), precision(f"visual_{rule}")
    except DataError as error:
        problems.append(f"{trial.trial_id}: its test scores do not fit the labels: {error}")
        return {}
    measured: dict[str, float] = {}
    if not scores:
        return measured
    if headline:
        measured |= {"ap": headline[0], "ap_trapezoid": headline[1]}
    else:
        problems.append(f"{trial.trial_id}: no test scores of the {rule} epoch were stored")
    if last:
        measured |= {"ap_last": last[0], "ap_trapezoid_last": last[1]}
    return measured | ({"visual_ap": visual[0]} if visual else {})


def _digest(stamps: Mapping[str, str]) -> str:
    """Equal for equal scores: an access with the same scores shows nothing that an earlier one did not."""
    lines = (f"{trial}: {stamps[trial]}\n" for trial in sorted(stamps))
    return hashlib.blake2b("".join(lines).encode(), digest_size=16).hexdigest()
