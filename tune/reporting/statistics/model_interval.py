"""Intervals for a headline that is one model: how its AP depends on the test videos. Kept, for they take seconds.

Only trainings whose test AP is measured already have one: an interval around a known number chooses nothing. Unless the
protocol reads the test labels every epoch, reading them here is a test-label access: that of the report which has just
measured the AP, or one of its own, logged before (`tune.results.label_access`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from macil.data.store.feature_store import FeatureStore, TestLabels
from macil.errors import DataError, UsageError
from macil.evaluation.protocols import CLOSED_PROTOCOLS
from macil.io.files import write_json_atomic
from macil.io.formats import FileFormat
from tune.reporting.statistics.intervals import Estimate
from tune.reporting.statistics.video_bootstrap import RESAMPLES, ap_interval
from tune.results.label_access import open_for
from tune.results.measured import read_measured, stamp_of
from tune.results.rows import TrialRow
from tune.results.run import RunResults
from tune.results.trial_folder import newest_scores
from tune.storage.names import INTERVALS_FILE
from tune.storage.root_files import kept_file
from tune.storage.score_file import read_scores


@dataclass(frozen=True)
class ModelInterval:
    """95 % percentile bootstrap over `videos` test videos, as shares; `stamp` tells of which scores and labels."""

    stamp: str
    ap: tuple[float, float]
    ap_trapezoid: tuple[float, float]
    videos: int
    resamples: int

    def around(self, value: float, column: str) -> Estimate:
        """An AP of the training with this interval in the place of one over seeds."""
        low, high = self.ap if column == "ap" else self.ap_trapezoid
        return Estimate(1, value, None, low, high)


@dataclass(frozen=True)
class _NoInterval:
    """The labels were read, and these scores and labels give no interval."""

    stamp: str


_Kept = ModelInterval | _NoInterval

_Share = Annotated[float, Field(ge=0, le=1)]
_Range = Annotated[tuple[_Share, _Share], Field(strict=False)]


class _Entry(BaseModel):
    """An interval as it is kept; with nothing but the stamp where there is none."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    stamp: str
    ap: _Range | None = None
    ap_trapezoid: _Range | None = None
    videos: int | None = None
    resamples: int | None = None

    @property
    def kept(self) -> _Kept:
        """The interval, or that there is none."""
        ap, trapezoid, videos, resamples = self.ap, self.ap_trapezoid, self.videos, self.resamples
        if ap is None or trapezoid is None or videos is None or resamples is None:
            return _NoInterval(self.stamp)
        return ModelInterval(self.stamp, ap, trapezoid, videos, resamples)


class _IntervalsFile(FileFormat):
    """`intervals.json`: the interval of each training that has one, by its folder."""

    WHAT: ClassVar[str] = "the intervals of a run"

    format_version: int = 1
    resamples: int
    trials: dict[str, _Entry]


def model_intervals(results: RunResults, trials: Sequence[TrialRow]) -> dict[str, ModelInterval]:
    """Intervals by `trial_dir`, of those of `trials` whose test AP is measured; without an entry where none can be had.

    Computed where the stored scores, the labels or the epoch are not those of the kept ones, and written to
    intervals.json in the run's root.
    """
    kept = _read(results.path)
    found: dict[str, _Kept] = {}
    for trial in trials:
        if trial.ap_trapezoid is None:
            continue
        folder = trial.trial_dir
        stamp = f"{stamp_of(results.path / folder, trial.epochs_run, trial.chosen_epoch)}, AP {trial.ap!r}"
        entry = kept.get(folder)
        if entry is None or entry.stamp != stamp:
            entry = _measure(results, trial, stamp)
        if entry is not None:
            found[folder] = entry
    if any(kept.get(folder) != entry for folder, entry in found.items()):
        _write(results.path, {**kept, **found})
    return {folder: entry for folder, entry in found.items() if isinstance(entry, ModelInterval)}


def _measure(results: RunResults, trial: TrialRow, stamp: str) -> _Kept | None:
    """None while labels or scores cannot be read. What reading them gave is kept, also that there is no interval."""
    path = newest_scores(results.path / trial.trial_dir)
    location = results.info.data
    if path is None or not location:
        return None
    try:
        store = FeatureStore.open(location)
        scores = read_scores(path, trial.epoch_rule.__eq__)[trial.epoch_rule]
        labels = _labels(results, trial, store, stamp)
    except (DataError, UsageError, KeyError):
        return None
    try:
        drawn = ap_interval(scores, labels.frame_labels, store.videos("test").lengths, store.snippet_frames)
    except DataError:
        return _NoInterval(stamp)
    step, trapezoid = drawn.ap, drawn.ap_trapezoid
    # The scores of another epoch, or other labels: an interval around another number.
    if trial.ap is None or not np.isclose(step.value, trial.ap, rtol=1e-9, atol=0):
        return _NoInterval(stamp)
    if step.low is None or step.high is None or trapezoid.low is None or trapezoid.high is None:
        return _NoInterval(stamp)
    return ModelInterval(
        stamp, (step.low, step.high), (trapezoid.low, trapezoid.high), drawn.videos, drawn.resamples
    )


def _labels(results: RunResults, trial: TrialRow, store: FeatureStore, stamp: str) -> TestLabels:
    if trial.protocol not in CLOSED_PROTOCOLS:
        return store.test_labels()
    if results.labels is not None and results.labels.hash == store.labels_hash:
        return results.labels
    if read_measured(results.path, [])[0] != store.labels_hash:
        raise DataError(f"{store.path} has other test labels than those that the run was measured with")
    folder = trial.trial_dir
    return open_for(results.location, store, {folder: stamp}, f"interval of {folder}")


def _read(run: Path) -> dict[str, _Kept]:
    """The stored intervals by trial folder; empty when the file is damaged or of another version."""
    try:
        kept = _IntervalsFile.read(kept_file(run, INTERVALS_FILE))
    except DataError:
        return {}
    return (
        {folder: entry.kept for folder, entry in kept.trials.items()} if kept.resamples == RESAMPLES else {}
    )


def _write(run: Path, trials: dict[str, _Kept]) -> None:
    entries = {folder: _Entry(**asdict(entry)) for folder, entry in trials.items()}
    kept = _IntervalsFile(resamples=RESAMPLES, trials=entries)
    write_json_atomic(run / INTERVALS_FILE, kept.model_dump(mode="json", exclude_none=True))
